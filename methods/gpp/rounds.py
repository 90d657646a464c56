"""A trained network and a budget go in; pushed, pruned and retrained in rounds, the smaller network comes out."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.core import UserError
from slimbench.methods import _channels, _choice, _surgery
from slimbench.methods.gpp import discriminants, features, prune, trace
from slimbench.methods.gpp.discriminants import Scatters
from slimbench.methods.gpp.push import Push
from slimbench.train import fine_tuning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from slimbench.core import Budget, Task, Trainer
    from slimbench.methods._graph import Width
    from slimbench.methods.gpp.method import GPP

_CHUNK = 32  # images that are traced at once, all their maps being held; fewer where they have more pixels than
_TRACED_PIXELS = 2**21


def why_not(method: GPP, model: nn.Module, task: Task, budget: Budget) -> str | None:
    """Why a network cannot be pushed and pruned to a budget, or None."""
    if method.eta is None:
        reason = _choice.why_not(model, task.example(), budget, every=_widths(method, model, task))
        if reason:
            return reason
    layer = features.decision(model, task.example())
    with features.reading(model, layer) as read, torch.no_grad():
        model.eval()(task.example())
    if read.values.ndim not in {2, 4}:
        return f"the last layer of {task.network}, {layer}, reads neither neurons (N, M) nor maps (N, M, H, W)"
    if not trace.leads_back(model, layer, task.example()):
        return (
            f"deconvolution finds no way back from the last layer of {task.network}, {layer}: sigmoids are gates to it"
        )
    return None


def push_and_prune(method: GPP, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
    """All rounds and the final retraining, in the epochs that are left; ``budget.keep`` is a share of ``model``."""
    rounds = Rounds(method, model, task, budget, trainer)
    for number in range(method.rounds):
        before = copy.deepcopy(rounds.model) if method.eta is not None else None
        rounds.push(number)
        rounds.prune(number)
        if before is not None or number < method.rounds - 1:
            rounds.retrain(number)
        if before is not None and not rounds.is_comparable():
            rounds.model = before
            break
    rounds.report()
    return trainer.fit(rounds.model, trainer.epochs_left, name="final retraining", recipe=fine_tuning(task.recipe))


class Rounds:
    """A network on its way, and what there is to tell of it.

    Attributes:
        decision: the layer that reads the pre-decision neurons.
        labels: of training images, (N,); None where windows have labels.
        told: for the record, by name.

    """

    def __init__(self, method: GPP, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> None:
        self.method, self.model, self.task, self.budget, self.trainer = method, model, task, budget, trainer
        self.unit = trainer.epochs_left / (method.rounds + method.final)
        self.decision = features.decision(model, task.example())
        self.labels = features.labels_of_images(task, trainer)
        if self.labels is not None and method.images is not None:
            _refuse_few_classes(self.labels, method.images)
        self.every = _widths(method, model, task)
        self.cost = _choice.Ledger(model, task.example(), self.every).left(budget.resource)
        self.whole = prune.score(model, task) if method.eta is not None else None
        self.told: dict[str, Any] = {"eta": [], "pre-decision neurons": [], "skipped batches": [], "discriminants": {}}

    # ------------------------------------------------------------------------------------------------------- push

    def push(self, number: int) -> None:
        """Train with the push loss on batches that have as many of each class."""
        before = self.scatters()
        push = Push(self.method, self.task, before)
        recipe = fine_tuning(self.task.recipe)
        labels = self.labels
        with features.reading(self.model, self.decision) as push.read:
            self.trainer.fit(
                self.model,
                self.unit * self.method.push_share,
                name=f"push {number + 1}",
                recipe=replace(recipe, clip_norm=recipe.clip_norm or self.method.clip_norm),
                sampler=None if labels is None else functools.partial(features.balanced, labels),
                loss=push.loss,
                before_step=push.before_step,
                state=(push,),
            )
        self.after = self.scatters()
        self._tell(number, push, before)

    def scatters(self) -> Scatters:
        """Of training images, as the network is."""
        return Scatters.of(self._samples())

    def _samples(self) -> Iterator[tuple[Tensor, Tensor]]:
        with features.reading(self.model.eval(), self.decision) as read, torch.no_grad():
            for inputs, targets in self.trainer.batches("train", limit=self.method.images):
                self.model.to(inputs.device)(inputs)
                yield features.samples(self.task, read.values, targets, self.method.window)

    # ------------------------------------------------------------------------------------------------------ prune

    def prune(self, number: int) -> None:
        """Find the neurons that are enough, trace what makes them, remove what does not."""
        method, utilities = self.method, self.after.utilities()
        every = _widths(method, self.model, self.task)
        kept = prune.enough(self.model, self.decision, utilities, self.task, method.comparable)
        scores = prune.worth(self.model, every, self.decision, self._images(), kept)
        floors = prune.floors(self.model, every, scores, self.decision, method.floor)
        if method.eta is None:
            example, budget = self.task.example(), self._next(number)
            removed = prune.to_budget(self.model, example, every, scores, budget=budget, floors=floors)
        else:
            removed = prune.below(scores, (number + 1) * method.eta, floors)
        self.told["eta"].append(prune.reached(scores, removed))
        self.told["pre-decision neurons"].append([len(kept), int(kept.sum())])
        _surgery.remove(self.model, every, removed if method.pick == "traced" else self._picked(every, removed))

    def _picked(self, every: Sequence[Width], removed: Sequence[set[int]]) -> list[set[int]]:
        """As many of each width, by ``pick``."""
        if self.method.pick == "l1":
            scores = [_channels.mean_magnitude(self.model, width).cpu() for width in every]
        else:
            scores = [torch.rand(width.channels) for width in every]
        return [set(s.argsort(stable=True)[: len(gone)].tolist()) for s, gone in zip(scores, removed, strict=True)]

    def retrain(self, number: int) -> None:
        """Train with the task's loss, between two rounds."""
        epochs = self.unit * (1 - self.method.push_share)
        self.trainer.fit(self.model, epochs, name=f"retraining {number + 1}", recipe=fine_tuning(self.task.recipe))

    def _next(self, number: int) -> Budget:
        """What this round leaves of the network as it is: of ``keep``, one factor of as many as there are rounds."""
        left = _choice.Ledger(self.model, self.task.example(), self.every[:0]).left(self.budget.resource)
        wanted = self.cost * self.budget.keep ** ((number + 1) / self.method.rounds)
        return replace(self.budget, keep=min(1.0, wanted / left))

    def _images(self) -> Iterator[Tensor]:
        """Training images to trace, the same number of each class, drawn from torch's generator."""
        everything = torch.arange(self.task.size("train"))
        rng = torch.default_generator
        if self.labels is None:
            order = everything[torch.randperm(len(everything), generator=rng)]
        else:
            order = features.balanced(self.labels, everything, rng)
        device = next(self.model.parameters()).device
        pixels = math.prod(self.task.example().shape[2:])
        for part in order[: self.method.traced].split(max(1, min(_CHUNK, _TRACED_PIXELS // pixels))):
            yield self.task.batch("train", part.to(device), None)[0]

    # --------------------------------------------------------------------------------------------------- stop, tell

    def is_comparable(self) -> bool:
        """Whether the validation score still is that of the network that was given."""
        assert self.whole is not None
        return prune.comparable(prune.score(self.model, self.task), self.whole, self.task, self.method.comparable)

    def _tell(self, number: int, push: Push, before: Scatters) -> None:
        named = {"before": before, "after": self.after}
        for when, scatters in named.items():
            v = scatters.utilities()
            self.told[f"utilities {when} push {number + 1}"] = {str(j): _short(x) for j, x in enumerate(v)}
            self.told["discriminants"][f"{when} push {number + 1}"] = {
                "power": _short(discriminants.power(v, push.k)),
                "correlation": _short(discriminants.correlation(scatters.within)),
                "effective": _short(discriminants.effective(v)),
            }
        self.told[f"push {number + 1}"] = push.shown()
        self.told["skipped batches"].append(push.skipped)

    def report(self) -> None:
        """Widths, and what was told on the way, into the record."""
        left = {width.name: width.channels for width in _widths(self.method, self.model, self.task)}
        self.trainer.note("widths", {width.name: [width.channels, left[width.name]] for width in self.every})
        for name, value in self.told.items():
            self.trainer.note(name, value)


def _refuse_few_classes(labels: Tensor, images: int) -> None:
    shown, classes = (len(each.unique()) for each in (labels[:images], labels))
    if shown < classes:
        raise UserError(
            f"gpp: the first images={images} show {shown} of {classes} classes, and scatters need all: give more."
        )


def _widths(method: GPP, model: nn.Module, task: Task) -> list[Width]:
    every = _surgery.widths(model, task.example())
    return every if method.streams else prune.inner(model, every)


def _short(value: Tensor) -> float:
    return float(f"{float(value):.6g}")
