"""The dense network: what every method starts from and is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Card

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer


@dataclass(frozen=True)
class Dense:
    """Trains the task's network by the task's recipe, or takes published weights; removes nothing."""

    name: ClassVar[str] = "dense"
    card: ClassVar[Card] = Card(
        title="The dense network",
        fidelity={"all tasks": "control"},
        starts_from="scratch",
        granularity="none",
    )

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Only a budget that keeps less than everything is out of reach."""
        return None if budget.keep == 1 else "the dense network keeps everything: ask for keep 1"

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Train the network that ``task.build`` made."""
        if task.published():
            task.load_published(model)
            return model
        return trainer.fit(model, task.recipe.epochs, name="dense")
