"""SparseScores: which weights stay is learned, by a score for each (HYDRA; what DASS's peers are pruned with)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer


@dataclass(frozen=True)
class SparseScores:
    """Scores are trained while weights are frozen, then the weights that they keep.

    Attributes:
        prune, finetune: shares of the epochs. DASS has 20 : 200.
        prune_lr: of the scores, as a share of the recipe's.
        ranking: the same share in every layer, or the largest scores of all.

    """

    prune: float = 1.0
    finetune: float = 3.0
    prune_lr: float = 1.0
    ranking: Literal["layer", "global"] = "layer"

    name: ClassVar[str] = "sparse_scores"
    card: ClassVar[Card] = Card(
        title="HYDRA: learned scores of single weights",
        paper="Sehwag et al., HYDRA: Pruning Adversarially Robust Neural Networks, NeurIPS 2020",
        link="https://arxiv.org/abs/2002.10509",
        section="the pruning of DASS's code (k-winner masks, scaled score initialisation), without adversaries",
        fidelity={"all tasks": "control"},
        granularity="weight",
        deviations=(
            "plain training: no adversarial examples",
            "what is frozen in a phase is not in its optimiser; in the authors' it decays",
            "auxiliary heads stay dense: they are not deployed",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse shares that nothing can be trained by."""
        refuse(self.name, positive={"prune": self.prune, "finetune": self.finetune}, least={"prune_lr": self.prune_lr})

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets in MACs or params, which zeros do not change, and below one weight a layer."""
        from slimbench.methods.dass import pruning

        if not budget.epochs:
            return "scores are learned, and the budget leaves them no epochs"
        return pruning.why_not(task.build(), task, budget)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Attach scores, train them, fix the masks, fine-tune."""
        from slimbench.cost import prunable
        from slimbench.methods.dass import pruning, sparse

        used = prunable(task.deploy(model))  # auxiliary heads neither count nor go
        layers = sparse.sparsify(model, [name.removesuffix(".weight") for name in prunable(model) if name in used])
        return pruning.prune(model, layers, self, task=task, budget=budget, trainer=trainer)


def refuse(name: str, *, positive: dict[str, float], least: dict[str, float]) -> None:
    """Raises: UserError for a value that is not positive, or below zero."""
    for field, value in positive.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name}: {field}={value} is impossible: give a positive number.")
    for field, value in least.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{name}: {field}={value} is impossible: give at least 0.")
