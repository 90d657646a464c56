"""GPP: discriminants are pushed onto few neurons, and what does not feed them goes (Tian, Arbel and Clark, 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError

if TYPE_CHECKING:
    from torch import nn

    from slimbench.core import Budget, Task, Trainer

_CARD = Card(
    title="GPP: grow-push-prune, deep discriminants aligned with neurons",
    paper="Tian, Arbel and Clark, Grow-Push-Prune: Aligning Deep Discriminants for Effective Structural Network "
    "Compression, CVIU 231, 2023",
    link="https://arxiv.org/abs/2009.13716",
    section="prune: Tian, Arbel and Clark, Task dependent deep LDA pruning, CVIU 203, 2021, sections 3 and 4; "
    "push and grow: the abstract",
    fidelity={
        "prune": "companion paper",
        "push": "re-derived",
        "grow": "re-derived",
        "segmentation": "extension",
        "super resolution": "extension",
    },
    selects_on_val=True,
    version=2,
    deviations=(
        "the abstract gives no loss: its three terms, their weights and the schedule are ours",
        "values of the push loss are moving averages', its gradients those of the batch, unscaled",
        "batches of fewer than two samples a class give S_w by its degrees of freedom: of all samples it would vanish",
        "the push trains without the task's distillation; retraining has it",
        "push='none', the companion's pruning, trains before it prunes too: balanced batches, clipped gradients",
        "the order of channels is the companion's, u over a layer's deviation; eta is then what meets the budget",
        "with eta= the notes hold the last round as well, which was rejected where validation suffered",
        "manual correction of layers that lose too much: the best tenth of each width goes last",
        "of the neurons that are read last and are enough, the best go last, at most as many as there are outputs",
        "batch norm's scale is traced with its convolution; maps are traced at the input of the layer that reads them",
        "activations other than ReLU go back as ReLU does; sigmoid gates are constants",
        "residual networks, which the companion avoids: widths that several layers make together stay",
        "segmentation and super resolution: samples are windows, by class or texture of what they show",
    ),
)


@dataclass(frozen=True)
class GPP:
    """Push, prune and retrain, in rounds; a final retraining from the kept weights.

    Attributes:
        push: "eigen-free": the loss of neurons' own discriminants; "eigen": of LDA's eigenvalues and eigenvectors;
            "none": the task's loss alone, which is the companion paper's pruning.
        separation, covariance, compactness: weights of the push loss's terms (of alignment, the last, with "eigen").
        top: neurons that are asked to discriminate, as a multiple of (classes - 1).
        decay: of the moving averages, in [0, 1).
        shrinkage: share r of S_w <- (1 - r) S_w + r tr(S_w) / M I.
        warm_up: share of each push in which the push loss sets in.
        clip_norm: of gradients in the push.
        rounds: of push, prune and retraining; at most, where ``eta`` is given. Short schedules have room for one.
        push_share: of a round's epochs.
        final: how many rounds the final retraining is as long as; without ``eta`` the last round's own is part of it.
        eta: raised by this much in each round, whatever the budget, until validation is no longer comparable; what was
            comparable last is retrained. None: the eta that meets the budget, which a round nears by as many factors.
        comparable: the largest relative loss of the validation score that is.
        streams: whether channels that several layers make together (residual streams) go as well.
        floor: share of each width's channels that goes last; of those that the decision reads, one an output.
        pick: which channels of a width go, as many as the traced order says: those that it names; or, as controls at
            the same rates, those of the least L1 norm, or any.
        images: training images, the first ones, that scatters are taken of; they must show all classes. None: all.
        traced: training images that are traced, as many of each class.
        window: side of the windows of a map that are samples, where windows have labels.

    """

    push: Literal["eigen-free", "eigen", "none"] = "eigen-free"
    separation: float = 0.1
    covariance: float = 0.1
    compactness: float = 0.1
    top: float = 2.0
    decay: float = 0.9
    shrinkage: float = 0.01
    warm_up: float = 0.25
    clip_norm: float = 5.0
    rounds: int = 1
    push_share: float = 0.4
    final: float = 1.0
    eta: float | None = None
    comparable: float = 0.01
    streams: bool = False
    floor: float = 0.1
    pick: Literal["traced", "l1", "random"] = "traced"
    images: int | None = None
    traced: int = 256
    window: int = 4

    name: ClassVar[str] = "gpp"
    card: ClassVar[Card] = _CARD

    def __post_init__(self) -> None:
        """Refuse what nothing can be pushed or pruned by."""
        for name in ("separation", "covariance", "compactness", "comparable", "final"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"gpp: {name}={getattr(self, name)} is impossible: give a number of at least 0.")
        for name in ("top", "clip_norm", "eta"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise UserError(f"gpp: {name}={value} is impossible: give a number above 0.")
        for name in ("rounds", "traced", "window", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"gpp: {name}={value} is impossible: give at least 1.")
        for name in ("shrinkage", "warm_up", "push_share", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"gpp: {name}={getattr(self, name)} is impossible: it is a share, in [0, 1].")
        if not 0 <= self.decay < 1:
            raise UserError(f"gpp: decay={self.decay} is impossible: give a number in [0, 1).")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets below one channel a width, and networks whose last layer reads no neurons or maps."""
        from slimbench.methods.gpp import rounds

        return rounds.why_not(self, task.build(), task, budget)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Push, prune, retrain, in rounds; the final retraining takes what epochs are left."""
        from slimbench.methods.gpp import rounds

        return rounds.push_and_prune(self, model, task, budget, trainer)


@dataclass(frozen=True)
class GPPGrown:
    """Grows the network while validation improves, each from fresh weights; then pushes and prunes to the budget.

    The networks share the dense network's epochs; the keep is a share of the dense network's cost, as everywhere.

    Attributes:
        steps: copies of a module that each stage gains at most.
        rises: the least relative gain of the validation score for which it goes on.
        then: push and prune.

    """

    steps: int = 1
    rises: float = 0.0
    then: GPP = GPP()

    name: ClassVar[str] = "gpp_grown"
    card: ClassVar[Card] = replace(
        _CARD,
        title="GPP with growth: a base that is too small gains modules first",
        starts_from="scratch",
        deviations=(
            *_CARD.deviations,
            "growth: one more copy of the last module of each stage a step, for any network that has such stages",
            "a stage is a sequence of modules: a network that holds all its modules in one grows at its end alone",
            "a copy whose input is wider than the module's reads all of it",
            "grown networks and their base are compared after equal shares of the dense network's epochs",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what nothing can grow by."""
        if self.steps < 1 or not 0 <= self.rises < math.inf:
            raise UserError("gpp_grown: steps must be at least 1, and rises a number of at least 0.")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Networks without stages that can grow, and what the most grown one cannot be pruned to."""
        from slimbench.methods.gpp import grow, rounds

        model = task.build()
        names = grow.stages(model, task.example())
        if not names:
            return f"{task.network} has no sequence of modules that a copy of the last could continue"
        if not task.recipe.epochs:
            return "grown networks are trained in the dense network's epochs, and the recipe has none"
        if reason := rounds.why_not(self.then, model, task, budget):
            return reason
        for _ in range(self.steps):
            model = grow.grown(model, names, task.example())
        return rounds.why_not(self.then, model, task, _share(budget, task, model))

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Grow, then push and prune."""
        from slimbench.methods.gpp import rounds
        from slimbench.train import fine_tuning

        grown = self._grow(model, task, budget, trainer)
        trainer.fit(grown, trainer.epochs_left - budget.epochs, name="grown network", recipe=fine_tuning(task.recipe))
        return rounds.push_and_prune(self.then, grown, task, _share(budget, task, grown), trainer)

    def _grow(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """The last network that was better than the one before it, each trained from fresh weights."""
        from slimbench.methods.gpp import grow, prune

        names = grow.stages(model, task.example())
        unit = (trainer.epochs_left - budget.epochs) / (self.steps + 1)
        task.initialise(model)
        trainer.fit(model, unit, name="base")
        scores = [prune.score(model, task)]
        grown = 0
        while grown < self.steps:
            longer = grow.grown(model, names, task.example())
            task.initialise(longer)
            trainer.fit(longer, unit, name=f"grown by {grown + 1}")
            scores.append(prune.score(longer, task))
            if not prune.better(scores[-1], scores[-2], task, self.rises):
                break
            model, grown = longer, grown + 1
        trainer.note("grown by", grown)
        trainer.note("validation while growing", [score.value for score in scores])
        return model


def _share(budget: Budget, task: Task, grown: nn.Module) -> Budget:
    """The budget as a share of what the grown network costs."""
    from slimbench.cost import layers

    dense, cost = (
        sum(layer.of(budget.resource) for layer in layers(network, task.example()).values())
        for network in (task.build(), grown)
    )
    return replace(budget, keep=budget.keep * dense / cost)
