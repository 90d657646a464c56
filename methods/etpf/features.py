"""A network and training data go in; what functions are told of each reading's channels comes out, in one pass.

A sample is an image, whose map has one label, or a window of the map, where ``Task.classes`` labels windows. Sums are
taken over all samples; maps are kept of as many of each class, where a function works on them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.cost import evaluating
from slimbench.methods.etpf import readings
from slimbench.methods.etpf.scoring import Layer, Maps, Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from slimbench.core import Batch, Task, Trainer
    from slimbench.methods.etpf.baselines import Scorer
    from slimbench.methods.etpf.readings import Reading

KEPT = 2000  # samples whose maps are kept
_LOOKED_AT = 4  # times as many images are looked through for a choice with as many of each class


def gather(
    model: nn.Module, every: Sequence[Reading], task: Task, scorer: Scorer, *, batches: Iterable[Batch], window: int
) -> list[Layer]:
    """What ``scorer`` needs to know of each reading's channels.

    Args:
        batches: training data, not augmented.
        window: side of the windows of a map, where windows have labels.

    """
    gathered = [_Gathered(model, reading, scorer) for reading in every]
    if scorer.needs_data:
        with evaluating(model), torch.no_grad():
            for inputs, targets in batches:
                model.to(inputs.device)
                with _reading(model, every) as read:
                    model(inputs)
                for one, values in zip(gathered, read, strict=True):
                    one.add(*samples(task, values, targets, window))
    return [one.layer() for one in gathered]


@contextlib.contextmanager
def _reading(model: nn.Module, every: Sequence[Reading]) -> Iterator[list[Tensor]]:
    """The maps (N, channels, ...) that each reading's layer reads in the forward pass inside this context."""
    read: list[Tensor] = [torch.empty(0)] * len(every)

    def hook(place: int, reading: Reading) -> torch.utils.hooks.RemovableHandle:
        def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            read[place] = readings.look(layer, given[0].detach(), reading.places)

        return model.get_submodule(reading.layer).register_forward_pre_hook(keep)

    handles = [hook(place, reading) for place, reading in enumerate(every)]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def samples(task: Task, values: Tensor, targets: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Samples (n, channels, D) and their classes (n,), of maps (N, channels, h, w) or vectors (N, channels, D)."""
    if values.ndim == 3:
        return values, task.classes(targets, (1, 1)).flatten()
    high, wide = (max(1, side // window) for side in values.shape[2:])
    labels = task.classes(targets, (high, wide))
    if labels.shape[1:] == (1, 1):
        return values.flatten(2), labels.flatten()
    side = [min(window, length) for length in values.shape[2:]]
    # window i starts where cell i of the labels' grid does
    rows, columns = (
        (torch.arange(count) * length // count)[:, None] + torch.arange(least)
        for count, length, least in zip((high, wide), values.shape[2:], side, strict=True)
    )
    cut = values[:, :, rows[:, None, :, None], columns[None, :, None, :]]  # (N, channels, high, wide, p, p)
    cut = cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, values.shape[1], side[0] * side[1])
    return cut, labels.flatten()


class _Gathered:
    """What is known of one reading so far."""

    def __init__(self, model: nn.Module, reading: Reading, scorer: Scorer) -> None:
        self.filters = readings.filters(model, reading)
        self.gains = readings.gains(model, reading)
        self.scorer = scorer
        self.moments: Moments | None = None
        self.maps: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.kept: Counter[int] = Counter()

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Samples (n, channels, D) and their classes (n,)."""
        if self.scorer.needs_maps:
            values, labels = self._as_many_of_each(values, labels)
            self.maps.append(values)
            self.labels.append(labels)
        if self.moments is None:
            by_class = self.scorer.needs_classes
            self.moments = Moments.none(*values.shape[1:], by_class=by_class, device=values.device)
        self.moments.add(values, labels)

    def _as_many_of_each(self, values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of classes that are not full; how many classes there are is known as they come."""
        chosen = []
        for place, label in enumerate(labels.tolist()):
            classes = len(self.kept) + (label not in self.kept)
            if label >= 0 and self.kept[label] < max(1, KEPT // classes):
                self.kept[label] += 1
                chosen.append(place)
        return values[chosen], labels[chosen]

    def layer(self) -> Layer:
        """All of it."""
        maps = Maps.of(torch.cat(self.maps), torch.cat(self.labels)) if self.maps else None
        moments = self.moments or Moments.none(len(self.filters), 1, by_class=False)
        return Layer(self.filters.to(moments.total.device), moments, maps, self.gains)


def subset(task: Task, trainer: Trainer, images: int) -> Tensor:
    """Indices of about ``images`` training images, drawn from torch's generator.

    As many of each label, where images have one; where windows have labels, the first that are drawn.
    """
    first, _ = next(iter(trainer.batches("train", limit=1)))
    order = torch.randperm(task.size("train"))[: _LOOKED_AT * images].to(first.device)
    labels = torch.cat([task.classes(task.batch("train", part, None)[1], (2, 2)) for part in order.split(1000)])
    if labels.shape[1:] != (1, 1):
        return order[:images]
    known = labels.flatten()
    quota = max(1, images // len(known.unique()))
    turn = (known[:, None] == known[None, :]).tril().sum(1)  # the how-manieth of its label
    return order[turn <= quota]
