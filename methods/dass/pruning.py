"""A trained network goes in; scores are trained, masks fixed, weights fine-tuned; zeros come out (HYDRA)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

from slimbench.cost import NORMS, prunable
from slimbench.methods.dass import sparse
from slimbench.train import fine_tuning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from slimbench.core import Budget, Outputs, Step, Task, Trainer

    Loss = Callable[[nn.Module, Tensor, Tensor, Outputs], Tensor]


class How(Protocol):
    """What both methods say: see ``SparseScores``."""

    @property
    def prune(self) -> float: ...

    @property
    def finetune(self) -> float: ...

    @property
    def prune_lr(self) -> float: ...

    @property
    def ranking(self) -> sparse.Ranking: ...


class Masking:
    """Layers whose masks follow their scores, at a share that is kept."""

    def __init__(self, layers: Sequence[sparse.Sparse], keep: float, ranking: sparse.Ranking) -> None:
        self.layers, self.keep, self.ranking = layers, keep, ranking

    def follow(self, step: Step | None = None) -> None:
        """Set the masks by the scores as they are now."""
        sparse.set_masks(self.layers, self.keep, self.ranking)


@contextlib.contextmanager
def learning(model: nn.Module, what: Literal["weights", "scores"]) -> Iterator[None]:
    """While it lasts, weights learn and scores are frozen, or the other way round; batch norm learns with both.

    What was frozen before stays so. A phase's optimiser holds what learns alone: no decay shrinks what is frozen.
    """
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    scores = {id(layer.scores) for layer in model.modules() if isinstance(layer, sparse.Sparse)}
    norms = {id(p) for layer in model.modules() if isinstance(layer, NORMS) for p in layer.parameters()}
    for parameter, was in before.items():
        learns = (id(parameter) in scores) == (what == "scores")
        parameter.requires_grad_(was and (learns or id(parameter) in norms))
    try:
        yield
    finally:
        for parameter, was in before.items():
            parameter.requires_grad_(was)


def why_not(model: nn.Module, task: Task, budget: Budget) -> str | None:
    """Why zeros cannot meet a budget on a network, or None."""
    if budget.resource != "prunable_nonzero" or budget.params_keep is not None:
        return f"zeroed weights leave {budget.resource} as they are: ask for a share of prunable_nonzero"
    if reason := sparse.unlike(model):
        return reason
    sizes = [weight.numel() for weight in prunable(task.deploy(model)).values()]
    least = len(sizes) / sum(sizes)
    if budget.keep < least:
        return f"keep {budget.keep:g} of prunable_nonzero is below one weight a layer, {least:.6f}"
    return None


def prune(
    model: nn.Module,
    layers: Sequence[sparse.Sparse],
    how: How,
    *,
    task: Task,
    budget: Budget,
    trainer: Trainer,
    loss: Loss | None = None,
) -> nn.Module:
    """Spend the epochs that are left on scores and then on the weights that they keep; zeros are baked in."""
    unit = trainer.epochs_left / (how.prune + how.finetune)
    masking = Masking(layers, budget.keep, how.ranking)
    sparse.score_by_magnitude(layers)
    recipe = replace(task.recipe, lr=how.prune_lr * task.recipe.lr)
    with learning(model, "scores"):
        trainer.fit(model, unit * how.prune, name="prune", recipe=recipe, before_step=masking.follow, loss=loss)
    masking.follow()
    with learning(model, "weights"):
        trainer.fit(model, trainer.epochs_left, name="fine-tune", recipe=fine_tuning(task.recipe), loss=loss)
    trainer.note("kept", densities(model))
    return sparse.bake(model)


def densities(model: nn.Module) -> dict[str, float]:
    """Share of its weights that each sparse layer keeps."""
    every = {name: layer for name, layer in model.named_modules() if isinstance(layer, sparse.Sparse)}
    return {name: round(float(layer.mask.float().mean()), 6) for name, layer in every.items()}
