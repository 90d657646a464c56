"""A network of residual convolutions goes in; it is trained sparsely, its weakest layers go, the rest is fused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from torch import fx
from torch.optim.swa_utils import update_bn

from slimbench.cost import count, layers
from slimbench.methods import _fusible, _fusible_sites
from slimbench.train import fine_tuning

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from slimbench.core import Budget, Recipe, Resource, Step, Task, Trainer
    from slimbench.methods._fusible_sites import Site

RESOURCES: tuple[Resource, ...] = ("macs", "params")
_MISS = 1e3  # what missing an aim costs beside |scale|, which is about 1 at most
CALIBRATION = 2048  # training images that batch-norm statistics are estimated from
_ADAM = 0.5  # its steps have the size of the rate, whatever the gradient: more than that, and all scales fall alike


class How(Protocol):
    """What both methods say: see ``ResConv``."""

    @property
    def shrink(self) -> float: ...

    @property
    def penalty(self) -> Literal["uniform", "macs"]: ...

    @property
    def threshold(self) -> float | None: ...


def why_not(model: nn.Module, task: Task, budget: Budget, *, closing: float) -> str | None:
    """Why removing layers cannot meet a budget, or None."""
    if budget.resource == "prunable_nonzero":
        return "layers are removed to a budget of macs or params"
    try:
        costs = Costs(model, task)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"torch.fx cannot follow {task.network} ({why})"
    if not costs.every:
        return f"{task.network} has no convolution of stride 1 with as many channels out as in"
    going = {site.conv for site in costs.every}
    if closing == 0:
        going = going.union(*(site.branch for site in costs.every if site.closes_branch))
    for resource, keep in aims(budget):
        least, most = (costs.share(names, resource) for names in (going, set()))
        near = budget.tolerance * keep
        if keep < least - near:
            return f"keep {keep:g} of {resource} is below the least that removing layers leaves, {least:.4f}"
        if keep > most + max(near, costs.slack(resource)):
            return f"keep {keep:g} of {resource} is above what the network has without its shortcuts, {most:.4f}"
    return None


def aims(budget: Budget) -> list[tuple[Resource, float]]:
    """What a budget asks for: resources, and the share of each that is to be left."""
    found: list[tuple[Resource, float]] = [(budget.resource, budget.keep)]
    return found if budget.params_keep is None else [*found, ("params", budget.params_keep)]


class Costs:
    """What layers cost: of the dense network in all, and what goes with each layer of ``model`` once all is fused."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        """Look at the network as it is, before ``_fusible.install``."""
        self.every = _fusible_sites.sites(model)
        rows = layers(model, task.example())
        dense = task.build()
        self.dense = count(task.deploy(dense), task.example())
        self.largest = {r: max(row.of(r) for row in layers(dense, task.example()).values()) for r in RESOURCES}
        self.start = count(task.deploy(model), task.example())
        norms = {site.norm for site in self.every if site.norm}
        self.going = {name: {r: row.of(r) for r in RESOURCES} for name, row in rows.items() if name not in norms}
        # a norm has 2 values a channel; fused, the convolution has one, its bias: that is saved in any case
        self.fused = 0
        for site in self.every:
            if site.norm:
                outs, had_bias = rows[site.conv].outs, rows[site.conv].vectors
                self.fused += rows[site.norm].of("params") - outs * (1 - had_bias)
                self.going[site.conv]["params"] += outs * (1 - had_bias)

    def share(self, names: Iterable[str], resource: Resource) -> float:
        """What is left of the dense network's resource without these layers."""
        gone = sum(self.going[name][resource] for name in names if name in self.going)
        saved = self.fused if resource == "params" else 0
        return (self.start.of(resource) - saved - gone) / self.dense.of(resource)

    def slack(self, resource: Resource) -> float:
        """Half of the largest layer: what whole layers may miss a share by."""
        return 0.5 * self.largest[resource] / self.dense.of(resource)


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
        self.costs = Costs(self.model, self.task)
        self.every = self.costs.every

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
        if recipe.optimizer != "sgd":
            rho = min(rho, _ADAM)
        macs = {name: self.costs.going[name]["macs"] for name in self.layers}
        mean = sum(macs.values()) / len(macs)
        share = {name: cost / mean if self.how.penalty == "macs" else 1.0 for name, cost in macs.items()}

        def soften(step: Step) -> None:
            for name, layer in self.layers.items():
                least = step.lr * rho * share[name]
                layer.scale.data = layer.scale.sign() * (layer.scale.abs() - least).clamp(min=0)
                layer.settle()

        groups = _groups(self.model)
        self.trainer.fit(self.model, epochs, name="sparse training", recipe=recipe, params=groups, after_step=soften)
        self.trainer.note("scales", {name: layer.scale.item() for name, layer in self.layers.items()})
        self.trainer.note("alphas", {name: layer.alpha.item() for name, layer in self.layers.items()})

    def finish(self, *, fine_tune: bool = True) -> nn.Module:
        """Remove, fine-tune for what is left of the epochs (or only estimate batch norms' statistics), fuse, fold."""
        removed = self.choose()
        going = self.going(removed)
        self._end_empty_branches(removed)
        for site in removed:
            if isinstance(self.model.get_submodule(site.conv), _fusible.ResConv):  # else it went with its branch
                _fusible.drop(self.model, site)
        self.trainer.note("removed layers", [n for n, cost in self.costs.going.items() if n in going and cost["macs"]])
        left = {resource: self.costs.share(going, resource) for resource in RESOURCES}
        self.trainer.note("nearest whole layers", {"asked": dict(aims(self.budget)), "left": left})
        if fine_tune:
            self._fine_tune()
        else:  # the norms would keep the statistics of what came through the layers that are gone
            batches = self.trainer.batches("train", limit=CALIBRATION, spread=True)
            update_bn((inputs for inputs, _ in batches if len(inputs) > 1), self.model)  # one image has no variance
        self.trainer.note("products that stay", _fusible_sites.fold(_fusible.fuse(self.model)))
        has_heads = self.task.deploy(self.model) is not self.model  # which a rewritten network would lose
        return self.model if has_heads else _fusible_sites.without_zeros(self.model)

    def _fine_tune(self) -> None:
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

    def _end_empty_branches(self, removed: Sequence[Site]) -> None:
        """Where all convolutions of a branch go, its rest, at most `closing` of the identity, goes as well."""
        names = {site.conv for site in removed}
        for site in removed:
            convolutions = [name for name in site.branch if self.costs.going.get(name, {}).get("macs")]
            if site.closes_branch and convolutions and names.issuperset(convolutions):
                self.layers[site.conv].alpha.data.zero_()

    def choose(self) -> list[Site]:
        """The sites to remove: by threshold, by two aims, or smallest |scale| first, to the nearest whole layer.

        What would go further than asked is passed over for the next that does not.
        """
        if self.how.threshold is not None:
            return [site for site in self.every if self._size(site) <= self.how.threshold]
        if self.budget.params_keep is not None:
            return self._program()
        ((resource, keep),) = aims(self.budget)
        removed: list[Site] = []
        skipped: list[Site] = []
        for site in sorted(self.every, key=self._size):
            over = self.costs.share(self.going([*removed, site]), resource) < keep
            (skipped if over else removed).append(site)
        misses = {site: keep - self.costs.share(self.going([*removed, site]), resource) for site in skipped}
        miss = self.costs.share(self.going(removed), resource) - keep
        nearest = min(misses, key=lambda site: misses[site], default=None)
        if nearest and misses[nearest] < miss:
            removed, miss = [*removed, nearest], misses[nearest]
        return removed if miss <= self.costs.slack(resource) else self._program()

    def going(self, removed: Sequence[Site]) -> set[str]:
        """Layers that go with the removed sites."""
        branches = (site.branch for site in removed if _fusible.takes_branch(site, self.layers[site.conv]))
        return {site.conv for site in removed}.union(*branches)

    def _size(self, site: Site) -> float:
        return abs(self.layers[site.conv].scale.item())

    def _program(self) -> list[Site]:
        """The least sum of |scale| whose removal meets every aim to within half of the largest layer.

        An integer program: x says whether a layer goes; y, one an aim, by how much more than that it is missed.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        names, wanted = list(self.costs.going), aims(self.budget)
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
            whole, slack = self.costs.share(set(), resource), 0.98 * self.costs.slack(resource)
            parts = {column[name]: whole - self.costs.share({name}, resource) for name in names}
            for sign in (1.0, -1.0):  # sign * (removed - aim) <= slack + y
                row = {place: sign * part for place, part in parts.items()} | {len(names) + turn: -1.0}
                rules.append((row, -np.inf, sign * (whole - keep) + slack))
        table = np.zeros((len(rules), length))
        for turn, (row, _, _) in enumerate(rules):
            table[turn, list(row)] = list(row.values())
        bounds = [np.array([rule[side] for rule in rules]) for side in (1, 2)]
        integral = np.arange(length) < len(names)
        found = milp(price, integrality=integral, bounds=Bounds(0, upper), constraints=LinearConstraint(table, *bounds))
        return [site for site in self.every if found.x[column[site.conv]] > 0.5]


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weights as usual; scales and alphas without decay."""
    named = [(name.rpartition(".")[2], p) for name, p in model.named_parameters() if p.requires_grad]
    rest = [p for name, p in named if name not in {"scale", "alpha"}]
    scalars = [p for name, p in named if name in {"scale", "alpha"}]
    return [{"params": rest}, {"params": scalars, "weight_decay": 0.0}]
