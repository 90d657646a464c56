"""A method in one file: what is cut is always the second half of a width, so that every real method should beat it."""

from dataclasses import dataclass
from typing import ClassVar

from slimbench import Card


@dataclass(frozen=True)
class Halved:
    """Keeps the first half of every width."""

    name: ClassVar[str] = "halved"
    card: ClassVar[Card] = Card(title="First half", fidelity={"all tasks": "control"})

    def unsupported(self, task, budget):
        return None if budget.keep < 1 else "nothing to remove"

    def compress(self, model, task, budget, trainer):
        import torch

        from slimbench.methods import _choice, _surgery
        from slimbench.train import fine_tuning

        every = _surgery.widths(model, task.example())
        scores = [-torch.arange(width.channels, dtype=torch.float64) for width in every]  # the last go first
        how = _choice.How()
        removed = _choice.choose(model, task.example(), every, scores, budget=budget, how=how)
        _surgery.remove(model, every, removed)
        return trainer.fit(model, budget.epochs, name="fine-tune", recipe=fine_tuning(task.recipe))
