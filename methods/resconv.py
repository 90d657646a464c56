"""ResConv: layers are pruned by way of residual convolutions that fuse (Xu et al. 2020).

``ResConv`` starts from the trained dense network, ``ResConvFromScratch`` from fresh weights; both train with an L1
penalty on each layer's scale, remove the layers of smallest scale, fine-tune what is left and fuse it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer

_CARD = Card(
    title="ResConv: layer pruning via fusible residual convolutional blocks",
    paper="Xu, Cao, Shang, Sun, Li, Layer Pruning via Fusible Residual Convolutional Block, arXiv 2011.14356, 2020",
    link="https://arxiv.org/abs/2011.14356",
    section="abstract (the equations are our derivation, form A)",
    fidelity={
        "residual convolution": "re-derived",
        "removal": "re-derived",
        "segmentation": "extension",
        "super resolution": "extension",
    },
    granularity="layer",
    deviations=(
        "the abstract gives no equations: placement of batch norm, both scalars and the schedule are ours",
        "a convolution that closes a residual branch has no shortcut of its own, and the branch goes with it",
        "a removed layer's alpha is folded into a neighbour; between gates, ReLU6 or sums it stays a product",
        "a removed layer whose alpha has come near 0 leaves a tenth of the identity, or nothing would reach the next",
        "where a batch norm follows, alpha and scale can shrink together at no loss: the penalty presses less",
        "Adam moves all scales alike: after a short training they are near each other, and so is their order to chance",
        "form B: a removed layer leaves its batch norm behind; what closes a branch has no shortcut, and is of form A",
    ),
    version=3,
)


@dataclass(frozen=True)
class ResConv:
    """Converts the trained network, which changes nothing, then makes layers sparse, removes, fine-tunes and fuses.

    Attributes:
        shrink: how far the penalty alone would move a scale over the sparse training; it sets rho,
            rho * sum of learning rates = shrink, so that it does not depend on the schedule's length. At most half as
            far as Adam moves a scale, where the recipe has that.
        sparse_share: share of the budget's epochs that the sparse training takes; fine-tuning has the rest.
            1: no retraining after the removal; batch norms' statistics are estimated anew.
        form: "A": scale * BN(W x) + alpha * x; "B": BN(scale * W x + alpha * x), an ablation.
        penalty: the same for all layers, or in proportion to a layer's MACs.
        threshold: remove every layer whose |scale| is at most this, whatever the budget; None: the smallest, as many as
            come nearest to the budget.
        closing: the largest alpha of a convolution that closes a residual branch. 0: it has none, and where it goes the
            whole branch does; else it goes by itself, and leaves a branch that is at most so strong.

    """

    shrink: float = 1.0
    sparse_share: float = 0.5
    form: Literal["A", "B"] = "A"
    penalty: Literal["uniform", "macs"] = "uniform"
    threshold: float | None = None
    closing: float = 0.0

    name: ClassVar[str] = "resconv"
    card: ClassVar[Card] = replace(
        _CARD,
        deviations=(
            *_CARD.deviations,
            "starts from the trained network: alpha 1, the identity subtracted from the kernel; block shortcuts stay",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what nothing can be removed by."""
        _refuse(self.name, shrink=self.shrink, closing=self.closing, threshold=self.threshold)
        if not 0 <= self.sparse_share <= 1:
            raise UserError(f"resconv: sparse_share={self.sparse_share} is impossible: it is a share of the epochs.")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Networks without eligible layers, and budgets below what removing all of them leaves."""
        from slimbench.methods import _layer_pruning

        if not budget.epochs * self.sparse_share:
            return "layers are ranked by scales that sparse training made, and the budget leaves it no epochs"
        return _layer_pruning.why_not(task.build(), task, budget, closing=self.closing)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Convert, train sparsely, remove, fine-tune, fuse."""
        from slimbench.methods import _fusible
        from slimbench.methods._layer_pruning import CALIBRATION, LayerPruning
        from slimbench.train import fine_tuning

        pruning = LayerPruning(self, model, task, budget, trainer)
        _fusible.install(model, pruning.every, form=self.form, closing=self.closing)
        _fusible.calibrate(model, trainer.batches("train", limit=CALIBRATION, spread=True))
        pruning.train_sparsely(budget.epochs * self.sparse_share, fine_tuning(task.recipe))
        return pruning.finish(fine_tune=self.sparse_share < 1)


@dataclass(frozen=True)
class ResConvFromScratch:
    """Trains the network with residual convolutions from fresh weights; the fields are ``ResConv``'s, and one more.

    At keep 1 nothing is removed: what is left is the claim that residual convolutions train better.

    Attributes:
        variant: "R2": the network's own shortcuts stay. "R1": they go, and every convolution is its own residual;
            fused, the network has no sums.

    """

    shrink: float = 1.0
    form: Literal["A", "B"] = "A"
    penalty: Literal["uniform", "macs"] = "uniform"
    threshold: float | None = None
    closing: float = 0.0
    variant: Literal["R2", "R1"] = "R2"

    name: ClassVar[str] = "resconv_scratch"
    card: ClassVar[Card] = replace(
        _CARD,
        title="ResConv from scratch: training with residual convolutions, then layer pruning",
        starts_from="scratch",
        deviations=(
            *_CARD.deviations,
            "sparse training takes the dense network's epochs, fine-tuning the budget's; at keep 1 there is but one",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what nothing can be removed by."""
        _refuse(self.name, shrink=self.shrink, closing=self.closing, threshold=self.threshold)

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """As ``ResConv``; without shortcuts also networks with auxiliary heads."""
        from slimbench.methods import _fusible_sites, _layer_pruning

        model = task.build()
        if not task.recipe.epochs:
            return "layers are ranked by scales that training made, and the recipe has no epochs"
        if self.variant == "R1" and task.deploy(model) is not model:
            return "R1 rewrites the network as it is used, and this one has auxiliary heads to train"
        if (reason := _layer_pruning.why_not(model, task, budget, closing=self.closing)) or self.variant == "R2":
            return reason
        return _layer_pruning.why_not(_fusible_sites.without_shortcuts(model), task, budget, closing=self.closing)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Draw weights, train sparsely, remove, fine-tune, fuse."""
        from slimbench.methods import _fusible, _fusible_sites
        from slimbench.methods._layer_pruning import LayerPruning

        task.initialise(model)
        if self.variant == "R1":
            model = _fusible_sites.without_shortcuts(model)
        removes = self.threshold is not None or min(budget.keep, budget.params_keep or 1.0) < 1
        pruning = LayerPruning(self if removes else replace(self, shrink=0.0), model, task, budget, trainer)
        _fusible.install(model, pruning.every, form=self.form, closing=self.closing, fresh=True)
        pruning.train_sparsely(trainer.epochs_left - (budget.epochs if removes else 0.0), task.recipe)
        return pruning.finish() if removes else _fusible.fuse(model)


def _refuse(name: str, **fields: float | None) -> None:
    for field, value in fields.items():
        if value is not None and not value >= 0:
            raise UserError(f"{name}: {field}={value} is impossible: give at least 0.")
