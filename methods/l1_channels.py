"""Channels whose filters have the smallest L1 norm go: the simplest criterion that works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer


@dataclass(frozen=True)
class L1Channels:
    """Ranks channels by the mean absolute weight of the filters that make them, removes the lowest, fine-tunes."""

    ranking: Literal["layer", "global"] = "layer"
    round_to: int = 1

    name: ClassVar[str] = "l1_channels"
    card: ClassVar[Card] = Card(
        title="L1-norm channels",
        paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
        link="https://arxiv.org/abs/1608.08710",
        section="3.1, one-shot of 3.3",
        fidelity={"all tasks": "control"},
        deviations=(
            "the same share goes from every width, coupled layers included; the paper spares sensitive layers by hand",
            "in a width that several layers make, their filters' mean absolute weights are averaged",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse blocks of no channel."""
        if self.round_to < 1:
            raise UserError(f"{self.name}: round_to={self.round_to} is impossible: give at least 1.")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets below one channel a width."""
        from slimbench.methods import _choice

        return _choice.why_not(task.build(), task.example(), budget, self.round_to)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Rank, remove, fine-tune."""
        from slimbench.methods import _channels, _choice, _surgery

        every = _surgery.widths(model, task.example())
        scores = [_channels.mean_magnitude(model, width) for width in every]
        how = _choice.How(self.ranking, self.round_to)
        return _channels.prune(model, every, scores, how, task=task, budget=budget, trainer=trainer)
