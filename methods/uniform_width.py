"""A uniformly narrower network trained from scratch: what pruning must beat to be worth its trouble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer


@dataclass(frozen=True)
class UniformWidth:
    """Every width shrinks by the same share; the weights are drawn anew and trained.

    ``scratch-E`` trains for the budget's epochs; ``scratch-B`` also for the dense epochs that fine-tuned methods
    inherit, so that its total training is theirs.
    """

    arm: Literal["scratch-E", "scratch-B"] = "scratch-B"
    round_to: int = 1

    name: ClassVar[str] = "uniform_width"
    card: ClassVar[Card] = Card(
        title="Uniform width, from scratch",
        paper="Liu et al., Rethinking the Value of Network Pruning, ICLR 2019",
        link="https://arxiv.org/abs/1810.05270",
        section="3 (Scratch-E and Scratch-B)",
        fidelity={"all tasks": "control"},
        starts_from="scratch",
        deviations=(
            "scratch-B spends the dense epochs as well; the paper equalises total computation instead",
            "weights are drawn as the task draws those of its fresh networks, whatever the dense network's were",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse blocks of no channel."""
        if self.round_to < 1:
            raise UserError(f"{self.name}: round_to={self.round_to} is impossible: give at least 1.")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets below one channel a width, and training for no epochs."""
        from slimbench.methods import _choice

        if self.arm == "scratch-E" and not budget.epochs:
            return "scratch-E trains for the budget's epochs, and they are 0"
        return _choice.why_not(task.build(), task.example(), budget, self.round_to)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Shrink, draw weights, train."""
        import torch

        from slimbench.methods import _channels, _choice, _surgery

        every = _surgery.widths(model, task.example())
        scores = [-torch.arange(width.channels, dtype=torch.float64) for width in every]  # the last channels go
        how = _choice.How(round_to=self.round_to)
        removed = _choice.choose(model, task.example(), every, scores, budget=budget, how=how)
        _channels.note_widths(every, removed, trainer)
        _surgery.remove(model, every, removed)
        task.initialise(model)
        epochs = budget.epochs + (task.recipe.epochs if self.arm == "scratch-B" else 0)
        return trainer.fit(model, epochs, name=self.arm)
