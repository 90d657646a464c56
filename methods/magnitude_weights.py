"""The smallest weights become zeros: the unstructured control. Zeros are not speed, and the table shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimbench.core import Budget, Step, Task, Trainer


@dataclass(frozen=True)
class MagnitudeWeights:
    """Zeroes the weights of smallest magnitude, in every layer alike or over the whole network, and fine-tunes."""

    ranking: Literal["layer", "global"] = "layer"

    name: ClassVar[str] = "magnitude_weights"
    card: ClassVar[Card] = Card(
        title="Magnitude pruning of single weights",
        paper="Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015",
        link="https://arxiv.org/abs/1506.02626",
        section="3, one-shot",
        fidelity={"all tasks": "control"},
        granularity="weight",
        deviations=("one cut and one fine-tuning; the paper iterates",),
    )

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets in MACs or params, which zeros do not change."""
        if budget.resource != "prunable_nonzero" or budget.params_keep is not None:
            return f"zeroed weights leave {budget.resource} as they are: ask for a share of prunable_nonzero"
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Cut, then fine-tune with the cut weights held at zero."""
        import torch

        from slimbench.cost import prunable
        from slimbench.train import fine_tuning

        deployed = prunable(task.deploy(model))  # auxiliary heads are not: their weights neither count nor go
        weights = {name: weight for name, weight in prunable(model).items() if name in deployed}
        masks = self._masks(weights, budget.keep)

        def cut(_: Step | None = None) -> None:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.mul_(masks[name].to(weight.device))

        cut()
        trainer.note("kept", {name: float(mask.float().mean()) for name, mask in masks.items()})
        trainer.fit(model, budget.epochs, name="fine-tune", recipe=fine_tuning(task.recipe), after_step=cut)
        return model

    def _masks(self, weights: dict[str, Tensor], keep: float) -> dict[str, Tensor]:
        """True where a weight stays: exactly round(keep * n) of them, at least one a layer."""
        import torch

        if self.ranking == "layer":
            return {name: largest(w.detach().abs(), max(1, round(keep * w.numel()))) for name, w in weights.items()}
        flat = torch.cat([w.detach().abs().flatten() for w in weights.values()])
        kept = largest(flat, round(keep * flat.numel())).split([w.numel() for w in weights.values()])
        masks = {name: part.view_as(w) for (name, w), part in zip(weights.items(), kept, strict=True)}
        for name, w in weights.items():
            masks[name] = masks[name] | largest(w.detach().abs(), 1)
        return masks


def largest(values: Tensor, count: int) -> Tensor:
    """A mask, shaped like ``values``, of exactly the ``count`` largest; of equal ones the first."""
    import torch

    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask.view_as(values)
