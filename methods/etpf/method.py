"""ETPF: a function of a channel's data says what it is worth; the lowest go (Liu, Kung and Wentzlaff, 2022)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from slimbench.core import Budget, Task, Trainer
    from slimbench.methods._graph import Width


@dataclass(frozen=True)
class ETPF:
    """Scores every layer's channels with a function, removes the lowest of each layer, fine-tunes.

    How many go from each layer never depends on the function: two functions leave networks of the same widths.

    Attributes:
        function: a name (the authors' GA_Func2 is their default), a baseline (DI, MMD, BN, random), or a formula of
            the search space such as ``"sum(abs(WI))"``.
        rule: "uniform": the authors'. The same share of every layer; channels that several layers make together stay,
            and convolutions that read them choose among them. "budget": the same share of every independent width,
            as the controls remove them.
        ratio: that share, rounded down in each layer; the budget is then not steered at. None: what meets the budget.
        removed: instead, channels that go from each layer, in order, in each round.
        rounds: of removing and training, each with as many of the channels and epochs.
        order: all layers are scored on the network as it is, or front to back, each behind those that were cut.
        images: training images that are looked at, as many of each class; None: all of them, or 2,000 where the
            function works on maps themselves.
        window: side of the windows of a map that are samples, where windows have labels.

    """

    function: str = "GA_Func2"
    rule: Literal["uniform", "budget"] = "uniform"
    ratio: float | None = None
    removed: tuple[tuple[int, ...], ...] = ()
    rounds: int = 1
    order: Literal["at once", "front to back"] = "at once"
    images: int | None = None
    window: int = 4

    name: ClassVar[str] = "etpf"
    card: ClassVar[Card] = Card(
        title="ETPF: evolving transferable neural pruning functions",
        paper="Liu, Kung and Wentzlaff, Evolving Transferable Neural Pruning Functions, GECCO 2022",
        link="https://arxiv.org/abs/2110.10876",
        section="the authors' code: Evolution/GA_Helper, Transfer_Pruning (of the evolution: see bench evolve --help)",
        fidelity={
            "functions and search space": "authors' code",
            "removal (rule='uniform')": "authors' code",
            "removal (rule='budget')": "extension",
            "classification": "authors' code",
            "segmentation": "extension",
            "super resolution": "extension",
        },
        deviations=(
            "fitness of the evolution is measured on the validation split; the authors' code selects on test",
            "an expression is valid by the size of its results (64 MB), not by seconds: evolutions repeat themselves",
            "validity is tried on 3,300 synthetic samples; the authors' code takes MNIST's 60,000",
            "a redrawn child that stays invalid is its parent again; the authors' code redraws for ever",
            "without a ratio, the share is the one that meets the budget; single channels fill up what rounding leaves",
            "in residual networks, the filter of a channel of the stream is that of the layer that added to it last",
            "projections on shortcuts read the whole stream; the authors' networks have none",
            "functions of maps see 2,000 training images; the authors' all 50,000 or 60,000",
            "in an evolution all functions see 2,000, and a trial trains for a quarter of the dense schedule in all",
            "segmentation and super resolution: samples are windows, by class or texture of what they show",
            "a layer of whose samples all show one class is scored by WL1; the record names it",
            "front to back, filters have no weights any more on channels that were cut before them",
            "GA_inspired_2 has each class's own mQ, as its formula says; the authors' code that of all classes",
            "of DI and MMD only the outline is known: ridge, kernel, number of samples",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse functions that cannot be read, and what nothing can be removed by."""
        from slimbench.methods.etpf import functions

        object.__setattr__(self, "function", functions.known_as(self.function))
        for counts in self.removed:
            if not isinstance(counts, (tuple, list)) or not all(type(count) is int for count in counts):
                raise UserError(
                    "etpf: removed holds whole numbers by round and layer, e.g. removed=((10, 30), (5, 8))."
                )
        object.__setattr__(self, "removed", tuple(map(tuple, self.removed)))
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UserError(
                f"etpf: ratio={self.ratio} is impossible: it is the share of channels that goes, in (0, 1)."
            )
        if self.removed and (self.ratio is not None or self.rounds != 1):
            raise UserError("etpf: removed says all about ratio and rounds: leave those out.")
        for field in ("rounds", "window", "images"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise UserError(f"etpf: {field}={value} is impossible: give at least 1.")

    @property
    def offline(self) -> str:
        """What it took to find the function, once."""
        from slimbench.methods.etpf import functions

        if self.function in functions.EVOLVED:
            return "function evolved by its authors: 98 GPU-days (claimed at second hand)"
        if self.function in functions.INSPIRED:
            return "function made by hand after those that its authors evolved: 98 GPU-days (claimed at second hand)"
        if self.function in functions.SEEDS or self.function in functions.BASELINES:
            return ""
        return "a formula: what it took to find it stands elsewhere"

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets below one channel a layer, counts of other networks, functions without what they score by."""
        from slimbench.methods import _choice
        from slimbench.methods.etpf import baselines, readings

        model = task.build()
        whole, every = self._widths(model, task)
        if max(self.rounds, len(self.removed)) > 1 and any(isinstance(width, readings.Sampled) for width in every):
            return "several rounds on a network with residual streams need rule='budget'"
        if self.removed:
            reason = _why_not_removed(every, self.removed)
        elif self.ratio is None:
            reason = _choice.why_not(model, task.example(), budget, every=every)
        else:
            reason = None
        if reason:
            return reason
        places = readings.readings(model, task.example(), every, whole)
        if baselines.scorer(self.function).needs_gains and not all(reading.norm for each in places for reading in each):
            return f"{self.function} scores by the gain of batch norm, and not all channels of {task.network} have one"
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Score, remove and train, once a round."""
        from slimbench.methods import _channels
        from slimbench.methods.etpf import baselines, readings
        from slimbench.methods.etpf.ranking import Ranker
        from slimbench.methods.etpf.space import formula, latex
        from slimbench.train import fine_tuning

        scorer = baselines.scorer(self.function)
        if scorer.expression:
            trainer.note("function", formula(scorer.expression))
            trainer.note("function in LaTeX", latex(scorer.expression))
        ranker = Ranker(task, trainer, scorer, self.images, self.window)
        _, dense = self._widths(model, task)
        rounds = self._counts(model, task, budget, dense)
        for number, counts in enumerate(rounds):
            whole, every = self._widths(model, task)
            removed = (ranker.lowest if self.order == "at once" else ranker.lowest_front_to_back)(
                model, every, counts, whole
            )
            if len(rounds) == 1:
                _channels.note_widths(every, removed, trainer)
            readings.remove(model, every, removed)
            model = trainer.fit(
                model, budget.epochs / len(rounds), name=f"fine-tune {number + 1}", recipe=fine_tuning(task.recipe)
            )
        if ranker.one_class:
            trainer.note("scored by WL1, all samples being of one class", ranker.one_class)
        if len(rounds) > 1:
            left = {width.name: width.channels for width in self._widths(model, task)[1]}
            trainer.note("widths", {width.name: [width.channels, left[width.name]] for width in dense})
        return model

    def _widths(self, model: nn.Module, task: Task) -> tuple[list[Width], list[Width]]:
        """All widths of a network, and what may go by the rule."""
        from slimbench.methods import _surgery
        from slimbench.methods.etpf import readings

        whole = _surgery.widths(model, task.example())
        return whole, readings.sparing_streams(model, whole) if self.rule == "uniform" else whole

    def _counts(self, model: nn.Module, task: Task, budget: Budget, every: Sequence[Width]) -> list[list[int]]:
        """Channels that go from each width in each round."""
        import torch

        from slimbench.methods import _choice

        if self.removed:
            return [list(counts) for counts in self.removed]
        if self.ratio is not None:
            total = [math.floor(self.ratio * width.channels + 1e-9) for width in every]
        else:
            zeros = [torch.zeros(width.channels) for width in every]
            chosen = _choice.choose(model, task.example(), every, zeros, budget=budget, how=_choice.How())
            total = [len(gone) for gone in chosen]
        ends = [[count * turn // self.rounds for count in total] for turn in range(self.rounds + 1)]
        return [[b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(ends)]


def _why_not_removed(every: Sequence[Width], removed: Sequence[Sequence[int]]) -> str | None:
    """Why these channels cannot go from a network, or None."""
    for counts in removed:
        if len(counts) != len(every):
            return f"removed has counts of {len(counts)} layers, the network has {len(every)}"
    for width, *counts in zip(every, *removed, strict=True):
        if min(counts) < 0 or sum(counts) >= width.channels:
            return f"{width.name} has {width.channels} channels: {sum(counts)} of them cannot go"
    return None
