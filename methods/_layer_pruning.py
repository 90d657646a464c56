"""A network of residual convolutions goes in; it is trained sparsely, its weakest layers go, the rest is fused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from slimbench.cost import layers
from slimbench.methods import _fusible, _fusible_sites
from slimbench.train import fine_tuning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from slimbench.core import Budget, Recipe, Step, Task, Trainer
    from slimbench.methods._fusible_sites import Site

_MISS = 1e3  # what missing an aim costs beside |scale|, which is about 1 at most


class How(Protocol):
    """What both methods say: see ``ResConv``."""

    @property
    def shrink(self) -> float: ...

    @property
    def penalty(self) -> Literal["uniform", "macs"]: ...

    @property
    def threshold(self) -> float | None: ...


def why_not(model: nn.Module, task: Task, budget: Budget) -> str | None:
    """Why removing layers cannot meet a budget, or None."""
    if budget.resource == "prunable_nonzero":
        return "layers are removed to a budget of macs or params"
    every, costs = _fusible_sites.sites(model), costs_of(model, task)
    if not every:
        return f"{task.network} has no convolution of stride 1 with as many channels out as in"
    for resource, keep in aims(budget):
        total = sum(cost[resource] for cost in costs.values())
        least = 1 - sum(costs[site.conv][resource] for site in every) / total
        if keep < least:
            return f"keep {keep:g} of {resource} is below the least that removing layers leaves, {least:.4f}"
    return None


def costs_of(model: nn.Module, task: Task) -> dict[str, dict[str, int]]:
    """MACs and parameters of every layer."""
    rows = layers(model, task.example())
    return {name: {"macs": row.of("macs"), "params": row.of("params")} for name, row in rows.items()}


def aims(budget: Budget) -> list[tuple[str, float]]:
    """What a budget asks for: resources, and the share of each that is to be left."""
    return [(budget.resource, budget.keep), *([("params", budget.params_keep)] if budget.params_keep else [])]


@dataclass
class LayerPruning:
    """One network on its way; made before ``_fusible.install``, while layers have their own names."""

    how: How
    model: nn.Module
    task: Task
    budget: Budget
    trainer: Trainer

    def __post_init__(self) -> None:
        """Look at the network as it is."""
        self.every = _fusible_sites.sites(self.model)
        self.costs = costs_of(self.model, self.task)

    @cached_property
    def layers(self) -> dict[str, _fusible.ResConv]:
        """The residual convolutions, by name, removed or not."""
        found = {site.conv: self.model.get_submodule(site.conv) for site in self.every}
        return {name: layer for name, layer in found.items() if isinstance(layer, _fusible.ResConv)}

    def train_sparsely(self, epochs: float, recipe: Recipe) -> None:
        """scale <- sign(scale) * max(|scale| - lr * rho, 0) after each step; rho uniform, or by a layer's MACs."""
        size = self.task.size("train")
        steps = epochs * (size // min(recipe.batch_size, size))
        rho = self.how.shrink / max(0.5 * recipe.lr * steps, 1e-12)  # a cosine's rates sum to half its peak a step
        mean = sum(self.costs[name]["macs"] for name in self.layers) / len(self.layers)
        by_macs = self.how.penalty == "macs"
        share = {name: self.costs[name]["macs"] / mean if by_macs else 1.0 for name in self.layers}

        def soften(step: Step) -> None:
            for name, layer in self.layers.items():
                least = step.lr * rho * share[name]
                layer.scale.data = layer.scale.sign() * (layer.scale.abs() - least).clamp(min=0)
                layer.settle()

        groups = _groups(self.model)
        self.trainer.fit(self.model, epochs, name="sparse training", recipe=recipe, params=groups, after_step=soften)
        self.trainer.note("scales", {name: layer.scale.item() for name, layer in self.layers.items()})
        self.trainer.note("alphas", {name: layer.alpha.item() for name, layer in self.layers.items()})

    def finish(self) -> nn.Module:
        """Remove, fine-tune for what is left of the epochs, fuse, fold."""
        removed = self.choose()
        going = self.going(removed)
        for site in removed:
            if isinstance(self.model.get_submodule(site.conv), _fusible.ResConv):  # else it went with its branch
                _fusible.drop(self.model, site)
        self.trainer.note("removed layers", [n for n, cost in self.costs.items() if n in going and cost["macs"]])
        left = {
            resource: 1 - self._of(going, resource) / self._of(self.costs, resource) for resource in ("macs", "params")
        }
        self.trainer.note("nearest whole layers", {"asked": dict(aims(self.budget)), "left": left})
        kinds = (_fusible.ResConv, _fusible.Scale)
        settling = [module for module in self.model.modules() if isinstance(module, kinds)]

        def settle(step: Step) -> None:
            for module in settling:
                module.settle()

        self.trainer.fit(
            self.model,
            self.trainer.epochs_left,
            name="fine-tune",
            recipe=fine_tuning(self.task.recipe),
            params=_groups(self.model),
            after_step=settle,
        )
        self.trainer.note("products that stay", _fusible_sites.fold(_fusible.fuse(self.model)))
        return self.model

    def choose(self) -> list[Site]:
        """The sites to remove: by threshold, by two aims, or smallest |scale| first, to the nearest whole layer."""
        if self.how.threshold is not None:
            return [site for site in self.every if self._size(site) <= self.how.threshold]
        if self.budget.params_keep is not None:
            return self._meet_both()
        resource = self.budget.resource
        dense = left = self._of(self.costs, resource)
        removed: list[Site] = []
        for site in sorted(self.every, key=self._size):
            after = dense - self._of(self.going([*removed, site]), resource)
            if abs(after - self.budget.keep * dense) < abs(left - self.budget.keep * dense):
                removed.append(site)
                left = after
        return removed

    def going(self, removed: Sequence[Site]) -> set[str]:
        """Layers that go with the removed sites."""
        branches = (site.branch for site in removed if _fusible.takes_branch(site, self.layers[site.conv]))
        return {site.conv for site in removed}.union(*branches)

    def _size(self, site: Site) -> float:
        return abs(self.layers[site.conv].scale.item())

    def _of(self, names: Mapping[str, object] | set[str], resource: str) -> int:
        return sum(self.costs[name][resource] for name in names if name in self.costs)

    def _meet_both(self) -> list[Site]:
        """The least sum of |scale| whose removal leaves both shares to within half of the largest layer.

        An integer program: x says whether a layer goes; y, one an aim, by how much more than that it is missed.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        names, wanted = list(self.costs), aims(self.budget)
        column = {name: place for place, name in enumerate(names)}
        length = len(names) + len(wanted)
        price, upper = np.zeros(length), np.zeros(length)
        price[len(names) :], upper[len(names) :] = _MISS, np.inf
        rules: list[tuple[dict[int, float], float, float]] = []  # a row of coefficients, and its bounds
        for site in self.every:
            place = column[site.conv]
            price[place], upper[place] = self._size(site), 1
            for name in self.going([site]) & set(names) - {site.conv}:  # where a branch ends, all of it does
                upper[column[name]] = 1
                rules.append(({column[name]: 1.0, place: -1.0}, 0.0, 0.0 if name not in self.layers else np.inf))
        for turn, (resource, keep) in enumerate(wanted):
            total = self._of(self.costs, resource)
            slack = 0.5 * max(cost[resource] for cost in self.costs.values()) / total
            for sign in (1.0, -1.0):  # sign * (removed - aim) <= slack + y
                row = {column[name]: sign * self.costs[name][resource] / total for name in names}
                rules.append((row | {len(names) + turn: -1.0}, -np.inf, sign * (1 - keep) + slack))
        table = np.zeros((len(rules), length))
        for turn, (row, _, _) in enumerate(rules):
            table[turn, list(row)] = list(row.values())
        bounds = [np.array([rule[side] for rule in rules]) for side in (1, 2)]
        whole = np.arange(length) < len(names)
        found = milp(price, integrality=whole, bounds=Bounds(0, upper), constraints=LinearConstraint(table, *bounds))
        return [site for site in self.every if found.x[column[site.conv]] > 0.5]


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weights as usual; scales and alphas without decay."""
    named = [(name.rpartition(".")[2], p) for name, p in model.named_parameters() if p.requires_grad]
    rest = [p for name, p in named if name not in {"scale", "alpha"}]
    scalars = [p for name, p in named if name in {"scale", "alpha"}]
    return [{"params": rest}, {"params": scalars, "weight_decay": 0.0}]
