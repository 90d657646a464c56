"""Scores in, a pruned and fine-tuned network out: what one-shot channel methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from slimbench.cost import PRODUCTS
from slimbench.methods import _choice, _surgery
from slimbench.train import fine_tuning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from slimbench.core import Budget, Task, Trainer


def prune(
    model: nn.Module,
    every: Sequence[_surgery.Width],
    scores: Sequence[Tensor],
    how: _choice.How,
    *,
    task: Task,
    budget: Budget,
    trainer: Trainer,
) -> nn.Module:
    """Remove the channels with the lowest scores until the budget is met, note the widths, fine-tune."""
    removed = _choice.choose(model, task.example(), every, scores, budget=budget, how=how)
    note_widths(every, removed, trainer)
    _surgery.remove(model, every, removed)
    return trainer.fit(model, budget.epochs, name="fine-tune", recipe=fine_tuning(task.recipe))


def note_widths(every: Sequence[_surgery.Width], removed: Sequence[set[int]], trainer: Trainer) -> None:
    """Keep each width before and after in the record."""
    table = {w.name: [w.channels, w.channels - len(gone)] for w, gone in zip(every, removed, strict=True)}
    trainer.note("widths", table)


def mean_magnitude(model: nn.Module, width: _surgery.Width) -> Tensor:
    """Mean |weight| of the filters that make each channel, averaged over the layers that make it, (channels,)."""
    made = []
    for maker in width.makers:
        layer = model.get_submodule(maker.layer)
        if isinstance(layer, PRODUCTS):
            each = _surgery.filters(layer).detach().abs().flatten(1).mean(1)
            made.append(torch.stack([each[list(indices)].mean() for indices in maker.indices]))  # NaN: it makes none
    return torch.stack(made).nanmean(0)
