"""Random channels go: the floor under every channel-pruning criterion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer


@dataclass(frozen=True)
class RandomChannels:
    """Removes channels at random, the same share of every width, and fine-tunes."""

    round_to: int = 1

    name: ClassVar[str] = "random_channels"
    card: ClassVar[Card] = Card(
        title="Random channels",
        paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (as its control)",
        link="https://arxiv.org/abs/1608.08710",
        section="4.4",
        fidelity={"all tasks": "control"},
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
        """Draw, remove, fine-tune."""
        import torch

        from slimbench.methods import _channels, _choice, _surgery

        every = _surgery.widths(model, task.example())
        scores = [torch.rand(width.channels) for width in every]
        how = _choice.How(round_to=self.round_to)
        return _channels.prune(model, every, scores, how, task=task, budget=budget, trainer=trainer)
