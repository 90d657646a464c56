"""ResConv: layers are pruned by way of residual convolutions that fuse (Xu et al. 2020), in their simplest form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Card

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Step, Task, Trainer
    from slimbench.methods._fusible import ResConv as Layer
    from slimbench.methods._fusible import Site

_CALIBRATION = 2048  # training images that batch-norm statistics are estimated from


@dataclass(frozen=True)
class ResConv:
    """Trains with an L1 penalty on each layer's scale, removes the layers of smallest scale, fine-tunes, fuses.

    Attributes:
        shrink: how far the penalty alone would move a scale over the sparse training; it sets rho,
            rho * sum of learning rates = shrink, so that it does not depend on the schedule's length.
        sparse_share: share of the budget's epochs that the sparse training takes; fine-tuning has the rest.

    """

    shrink: float = 1.0
    sparse_share: float = 0.5

    name: ClassVar[str] = "resconv"
    card: ClassVar[Card] = Card(
        title="ResConv: layer pruning via fusible residual convolutional blocks",
        paper="Xu, Cao, Shang, Sun, Li, Layer Pruning via Fusible Residual Convolutional Block, arXiv 2011.14356, 2020",
        link="https://arxiv.org/abs/2011.14356",
        section="abstract (the equations are our derivation, form A, variant R2)",
        fidelity={"residual convolution": "re-derived", "removal": "re-derived"},
        granularity="layer",
        deviations=(
            "the abstract gives no equations: placement of batch norm, both scalars and the schedule are ours",
            "starts from the trained dense network: scale 1, alpha 1, the identity subtracted from the kernel",
            "the convolution that closes a residual branch has no shortcut of its own: removed, its branch goes",
            "a removed layer leaves one scalar multiplication, not yet folded into the next convolution",
        ),
    )

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Networks without eligible layers, and budgets below what removing all of them leaves."""
        from slimbench.methods import _fusible

        if budget.params_keep is not None or budget.resource == "prunable_nonzero":
            return "layers are removed to one budget, of macs or params"
        if not budget.epochs * self.sparse_share:
            return "layers are ranked by scales that sparse training made, and the budget leaves it no epochs"
        model = task.build()
        every = _fusible.sites(model)
        if not every:
            return f"{task.network} has no convolution with batch norm, stride 1 and as many channels out as in"
        costs = _costs(model, task, budget)
        least = 1 - sum(costs[name] for name in _going(every)) / sum(costs.values())
        if budget.keep < least:
            return (
                f"keep {budget.keep:g} of {budget.resource} is below the least that removing layers leaves, {least:.4f}"
            )
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Convert, train sparsely, remove, fine-tune, fuse."""
        from slimbench.methods import _fusible
        from slimbench.train import fine_tuning

        every = _fusible.sites(model)
        costs = _costs(model, task, budget)
        convolutions = [name for name, layer in model.named_modules() if type(layer).__name__ == "Conv2d"]
        layers = _fusible.install(model, every)
        recipe = fine_tuning(task.recipe)
        sparse = budget.epochs * self.sparse_share
        steps = sparse * (task.size("train") // min(recipe.batch_size, task.size("train")))
        rho = self.shrink / (0.5 * recipe.lr * steps)  # a cosine's rates sum to half its peak a step

        def soften(step: Step) -> None:
            # scale <- sign(scale) * max(|scale| - lr * rho, 0); alpha >= 0
            for layer in layers.values():
                layer.scale.data = layer.scale.sign() * (layer.scale.abs() - step.lr * rho).clamp(min=0)
                layer.alpha.data.clamp_(min=0)

        shortcuts = [layer for layer in layers.values() if not layer.closes_branch]
        _fusible.calibrate(model, shortcuts, trainer.batches("train", limit=_CALIBRATION))
        trainer.fit(model, sparse, name="sparse training", recipe=recipe, params=_groups(model), after_step=soften)
        trainer.note("scales", {name: layer.scale.item() for name, layer in layers.items()})
        trainer.note("alphas", {name: layer.alpha.item() for name, layer in layers.items()})
        removed = _choose(every, layers, costs, budget)
        for site in removed:
            _fusible.drop(model, site)
        trainer.note("removed layers", sorted(name for name in _going(removed) if costs[name] and name in convolutions))
        trainer.fit(model, budget.epochs - sparse, name="fine-tune", recipe=recipe, params=_groups(model))
        return _fusible.fuse(model)


def _costs(model: nn.Module, task: Task, budget: Budget) -> dict[str, int]:
    """Every layer's share of the budget's resource."""
    from slimbench.cost import layers

    return {name: layer.of(budget.resource) for name, layer in layers(model, task.example()).items()}


def _choose(every: list[Site], layers: dict[str, Layer], costs: dict[str, int], budget: Budget) -> list[Site]:
    """The sites to remove: smallest |scale| first, until no further layer brings the cost nearer to the budget."""
    dense = left = sum(costs.values())
    target = budget.keep * dense
    removed: list[Site] = []
    for site in sorted(every, key=lambda site: abs(layers[site.conv].scale.item())):
        after = dense - sum(costs[name] for name in _going([*removed, site]))
        if abs(after - target) < abs(left - target):
            removed.append(site)
            left = after
    return removed


def _going(removed: list[Site]) -> set[str]:
    """Convolutions that go with the removed sites."""
    return {name for site in removed for name in (site.conv, *(n for n in site.branch))}


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weights as usual; scales and alphas without decay."""
    named = [(name.rpartition(".")[2], p) for name, p in model.named_parameters() if p.requires_grad]
    rest = [p for name, p in named if name not in {"scale", "alpha"}]
    scalars = [p for name, p in named if name in {"scale", "alpha"}]
    return [{"params": rest}, {"params": scalars, "weight_decay": 0.0}]
