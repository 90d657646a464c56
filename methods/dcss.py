"""DCSS: every layer's width is searched by gradients, over prefixes of its own filters (Zhao and Lee, 2020)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from slimbench.core import Card, Task, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from slimbench.core import Budget, Trainer
    from slimbench.methods._graph import Width


Discretise = Literal["expectation", "argmax"]


@dataclass(frozen=True)
class DCSS:
    """Warm-up with uniform gates, search of weights and gates in turns, a slim network trained from scratch.

    Attributes:
        candidates: prefixes of its channels that each width chooses from.
        discretise: a width becomes its rounded expectation (the authors' choice), or its likeliest candidate.
        penalty: lambda of ``L_task + lambda * log(expected cost)``, as in the paper: then the budget's share is not
            steered at, and the cell may end off budget. None: a controller steers at the budget.
        pull: of the controller: how strongly it pulls towards the budget where the expected cost is off by more than
            the tolerance, as a multiple of how strongly the task pulls at the gates.
        warm_up, search, train: shares of the epochs, in passes that train weights: 1 : 1 : 4.
        hold_out: share of train that only the gates learn from.
        search_lr: of the weights in the search, as a share of the recipe's.
        gate_lr: of the gates' Adam, for 26,400 steps; where there are fewer, larger by as much, at most 30 times.
            A tenth of it after one third of the search, a hundredth after two.
        weight_temperature: in the weight step; None: the search's own, which falls. 1 in the authors' super resolution.
        norm_momentum: of batch norm in the search.
        source: the widths are searched on this other task, whose network shares layer names with the cell's, and
            carried over: the paper's "transferred" arm. None: searched on the task itself.

    """

    candidates: int = 8
    discretise: Discretise = "expectation"
    penalty: float | None = None
    pull: float = 0.5
    warm_up: float = 1.0
    search: float = 1.0
    train: float = 4.0
    hold_out: float = 0.1
    search_lr: float = 0.1
    gate_lr: float = 0.01
    weight_temperature: float | None = None
    norm_momentum: float = 0.1
    source: Task | None = None

    name: ClassVar[str] = "dcss"
    card: ClassVar[Card] = Card(
        title="DCSS: differentiable channel sparsity search via weight sharing within filters",
        paper="Zhao and Lee, Differentiable Channel Sparsity Search via Weight Sharing within Filters, arXiv, v2 2022",
        link="https://arxiv.org/abs/2010.14714",
        section="the authors' code: utils/DNAS.py, learner/prune.py, learner/prunesr.py, nets/resnet_gated.py",
        fidelity={
            "gates and search": "authors' code",
            "classification": "authors' code",
            "segmentation": "re-derived",
            "super resolution": "authors' code",
            "controller": "extension",
        },
        starts_from="scratch",
        deviations=(
            "any network: one gate for each independent width of its graph; the authors write gated networks by hand",
            "EDSR's upsampler has a gate at each stage, and is counted; the authors tie it to the stem, uncounted",
            "the mask is folded into gain and bias of batch norm, or into filters: the same mathematics, no memory",
            "a controller steers at the budget: lambda is what holds the expected cost, and a pull by the miss's sign",
            "where rounding leaves the tolerance, all widths are rescaled by one factor",
            "learning rates of weights fall by the recipe's schedule; the authors' by steps, as the gates' do here",
            "batch norm's momentum in the search is 0.1; the authors' 0.01 is too slow for short searches",
            "gates of short searches learn up to 30 times as fast, to travel as far as in the authors' 26,400 steps",
            "on every task these steps, and the gates' rate of x0.1 at 1/3 and 2/3 of the search, are CIFAR-10's",
            "super resolution: residual blocks keep the network's own scale; the authors' gated ones have 0.1",
            "super resolution: held-out patches are of the images trained on, mostly the same pixels, as theirs",
            "transfer, segmentation: no code; a carried width keeps its share, others get the mean share",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what no search can be made of."""
        least = {"warm_up": 0.0, "search": 1e-9, "train": 1e-9, "search_lr": 0.0, "gate_lr": 0.0, "pull": 1e-9}
        least |= {"weight_temperature": 1e-9, "penalty": 0.0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not smallest <= value < math.inf:
                raise UserError(f"dcss: {name}={value} is impossible: give a number of at least {smallest:g}.")
        if self.candidates < 2 or not 0 < self.hold_out < 1 or not 0 < self.norm_momentum <= 1:
            raise UserError("dcss: candidates must be at least 2, hold_out within (0, 1), norm_momentum within (0, 1].")
        if self.discretise not in get_args(Discretise):
            raise UserError(
                f"dcss: discretise={self.discretise!r} is impossible: use {' or '.join(get_args(Discretise))}."
            )

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets below the smallest candidates, networks that cannot be gated, other tasks without such layers."""
        from slimbench.methods import _choice, _surgery

        model = task.build()
        every = _surgery.widths(model, task.example())
        if reason := _choice.why_not(model, task.example(), budget) or self._why_not_searched(self.source or task):
            return reason
        least = _least(model, task, budget, every, self.candidates)
        if budget.keep < least:
            return f"keep {budget.keep:g} of {budget.resource} is below what the smallest candidates leave, {least:.4f}"
        if self.source:
            theirs = _surgery.widths(self.source.build(), self.source.example())
            found = _carried(every, {maker.layer: 1.0 for width in theirs for maker in width.makers})
            if 2 * len(found) < len(theirs):
                return (
                    f"{len(found)} of {len(theirs)} widths of {self.source.network} have a namesake in {task.network}"
                )
        return None

    def _why_not_searched(self, task: Task) -> str | None:
        from slimbench.methods import _gates

        size = task.size("train")
        if not 0 < round(self.hold_out * size) < size:
            return f"hold_out={self.hold_out:g} of {size} training samples leaves nothing to gates or weights"
        return _gates.why_not(task.build(), task.example(), task.network)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Search, cut the network to the widths found, draw its weights anew, train."""
        from slimbench.methods import _channels, _surgery

        every = _surgery.widths(model, task.example())
        passes = self.warm_up * (1 - self.hold_out) + 2 * self.search * (1 - self.hold_out) + self.train
        unit = trainer.epochs_left / passes  # a pass of the search trains gates on as many samples as weights
        if self.source:
            other = self.source.build()
            found = self._shares(other, self.source, budget, trainer.elsewhere(self.source), unit)
            shares = _carried(every, found)
            trainer.note("carried widths", f"{len(shares)} of {len(every)}")
        else:
            shares = self._shares(model, task, budget, trainer, unit)
        removed = self._cut(model, task, budget, every, shares)
        _channels.note_widths(every, removed, trainer)
        _surgery.remove(model, every, removed)
        task.initialise(model)
        return trainer.fit(model, trainer.epochs_left, name="slim network")

    def _shares(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer, unit: float) -> dict[str, float]:
        """The share of each gated layer's channels that the search leaves, by its name."""
        from slimbench.methods._gate_search import Search

        search = Search(self, task, model, budget)
        trainer.note("kept for a backward pass", search.kept_bytes(model, trainer))
        fit = functools.partial(
            trainer.fit, search.network, phase="search", hold_out=self.hold_out, loss=search.loss, state=(search,)
        )
        fit(unit * self.warm_up, name="warm-up", before_step=search.leave_gates_open)
        fit(
            unit * self.search,
            name="search",
            recipe=search.recipe,
            before_step=search.draw_gates,
            after_step=search.turn_gates,
        )
        search.report(trainer)
        return search.shares()

    def _cut(
        self, model: nn.Module, task: Task, budget: Budget, every: Sequence[Width], shares: Mapping[str, float]
    ) -> list[set[int]]:
        """Channels to remove: rounded widths where they meet the budget, or lambda is fixed; else rescaled once."""
        import torch

        from slimbench.methods import _choice

        expected = [shares.get(width.name, _mean(shares)) * width.channels for width in every]
        ledger = _choice.Ledger(model, task.example(), every)
        target = budget.keep * ledger.left(budget.resource)
        for index, width in enumerate(every):
            ledger.change(index, range(min(width.channels, max(1, round(expected[index]))), width.channels), -1)
        met = abs(ledger.left(budget.resource) - target) <= budget.tolerance * target
        if self.penalty is not None or met:
            return ledger.removed
        # channel k of a width stays while s * E[c] >= k - 1/2: one factor s for all widths
        places = [torch.arange(width.channels, dtype=torch.float64) + 0.5 for width in every]
        scores = [wanted / place for wanted, place in zip(expected, places, strict=True)]
        how = _choice.How("as scored")
        return _choice.choose(model, task.example(), every, scores, budget=budget, how=how)


def _least(model: nn.Module, task: Task, budget: Budget, every: Sequence[Width], count: int) -> float:
    """The share of the budget's resource that the smallest candidates leave."""
    from slimbench.methods import _choice, _gates

    ledger = _choice.Ledger(model, task.example(), every)
    dense = ledger.left(budget.resource)
    for index, width in enumerate(every):
        ledger.change(index, range(_gates.candidates(width.channels, count)[0], width.channels), -1)
    return ledger.left(budget.resource) / dense


def _carried(every: Sequence[Width], found: Mapping[str, float]) -> dict[str, float]:
    """Shares of another network's layers, by width, where layers have the same names behind one prefix."""
    makers = {maker.layer: width.name for width in every for maker in width.makers}
    prefixes = {layer.removesuffix(name) for layer in makers for name in found if layer.endswith(name)}
    matches = [{makers[p + n]: share for n, share in found.items() if p + n in makers} for p in sorted(prefixes)]
    return max(matches, key=len, default={})


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)
