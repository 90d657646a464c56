"""A network and training data go in; what functions are told of each reading's channels comes out, layer by layer.

A sample is an image, whose map has one label, or a window of the map, where ``Task.classes`` labels windows. Functions
of sums see all samples that there are, in one pass; those that work on maps are given up to 2,000, as many of each
class, and as many layers a pass as fit into memory.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.cost import evaluating
from slimbench.methods.etpf import readings
from slimbench.methods.etpf.scoring import Layer, Maps, Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from slimbench.core import Batch, Task, Trainer
    from slimbench.methods.etpf.baselines import Scorer
    from slimbench.methods.etpf.readings import Reading

KEPT = 2000  # samples whose maps are kept
HELD_BYTES = 2**30  # of maps in one pass
_LOOKED_AT = 4  # times as many images are looked through for a choice with as many of each class
_GRID = 8  # windows along a side that a map has at least, as far as it has pixels: large ones all show the background


def gather(
    model: nn.Module,
    every: Sequence[Reading],
    task: Task,
    scorer: Scorer,
    *,
    batches: Callable[[], Iterable[Batch]],
    window: int,
) -> Iterator[Layer]:
    """What ``scorer`` needs to know of each reading's channels, in their order.

    Args:
        batches: training data, not augmented, from the start at each call.
        window: side of the windows of a map, where windows have labels.

    """
    for group in _groups(model, every, task, scorer, window):
        gathered = [_Gathered(model, reading, scorer) for reading in group]
        if scorer.needs_data:
            for inputs, targets in batches():
                labels = functools.cache(functools.partial(task.classes, targets))  # many maps have one size
                for one, values in zip(gathered, _read(model, group, inputs), strict=True):
                    one.add(*samples(values, labels, window))
        while gathered:
            yield gathered.pop(0).layer()


def _groups(
    model: nn.Module, every: Sequence[Reading], task: Task, scorer: Scorer, window: int
) -> Iterator[Sequence[Reading]]:
    """Readings whose maps are held at once."""
    if not scorer.needs_maps:
        yield every
        return
    group: list[Reading] = []
    held = 0
    for reading, values in zip(every, _read(model, every, task.example()), strict=True):
        size = KEPT * values[0].numel() * values.element_size()  # of whole maps: of windows there is less
        if group and held + size > HELD_BYTES:
            yield group
            group, held = [], 0
        group.append(reading)
        held += size
    yield group


def _read(model: nn.Module, every: Sequence[Reading], inputs: Tensor) -> list[Tensor]:
    """The maps (N, channels, ...) that each reading's layer reads of these inputs."""
    read: list[Tensor] = [torch.empty(0)] * len(every)

    def hook(place: int, reading: Reading) -> torch.utils.hooks.RemovableHandle:
        def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            read[place] = readings.look(layer, given[0].detach(), reading.places)

        return model.get_submodule(reading.layer).register_forward_pre_hook(keep)

    with contextlib.ExitStack() as stack, evaluating(model), torch.no_grad():
        for place, reading in enumerate(every):
            stack.callback(hook(place, reading).remove)
        model.to(inputs.device)(inputs)
    return read


def samples(values: Tensor, classes: Callable[[tuple[int, int]], Tensor], window: int) -> tuple[Tensor, Tensor]:
    """Samples (n, channels, D) and their classes (n,), of maps (N, channels, h, w) or vectors (N, channels, D).

    Args:
        classes: of what each window shows, by how many of them there are in a column and in a row: ``Task.classes``.

    """
    if values.ndim == 3:
        return values, classes((1, 1)).flatten()
    side = [min(window, max(1, length // _GRID)) for length in values.shape[2:]]
    grid = [length // least for length, least in zip(values.shape[2:], side, strict=True)]
    labels = classes((grid[0], grid[1]))
    if labels.shape[1:] == (1, 1):
        return values.flatten(2), labels.flatten()
    # window i starts where cell i of the labels' grid does
    rows, columns = (
        (torch.arange(count) * length // count)[:, None] + torch.arange(least)
        for count, length, least in zip(grid, values.shape[2:], side, strict=True)
    )
    cut = values[:, :, rows[:, None, :, None], columns[None, :, None, :]]  # (N, channels, rows, columns, p, p)
    cut = cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, values.shape[1], side[0] * side[1])
    return cut, labels.flatten()


class _Gathered:
    """What is known of one reading so far."""

    def __init__(self, model: nn.Module, reading: Reading, scorer: Scorer) -> None:
        self.filters = readings.filters(model, reading)
        self.gains = readings.gains(model, reading)
        self.scorer = scorer
        self.moments: Moments | None = None
        self.maps: dict[int, list[Tensor]] = {}  # by class

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Samples (n, channels, D) and their classes (n,)."""
        if not self.scorer.needs_maps:
            self._sum(values, labels)
            return
        for label in labels.unique().tolist():
            kept = self.maps.setdefault(label, [])
            room = KEPT - sum(map(len, kept))
            if label >= 0 and room:
                kept.append(values[(labels == label).nonzero()[:room, 0]])

    def _sum(self, values: Tensor, labels: Tensor) -> None:
        if self.moments is None:
            by_class = self.scorer.needs_classes
            self.moments = Moments.none(*values.shape[1:], by_class=by_class, device=values.device)
        self.moments.add(values, labels)

    def layer(self) -> Layer:
        """All of it; maps of as many samples of each class."""
        maps = None
        found = {label: kept for label, kept in sorted(self.maps.items()) if kept}
        if found:
            quota = max(1, KEPT // len(found))
            each = [torch.cat(kept)[:quota] for kept in found.values()]
            self.maps.clear()
            values = torch.cat(each)
            sizes = torch.tensor([len(part) for part in each])
            labels = torch.tensor(list(found)).repeat_interleave(sizes).to(values.device)
            turn = torch.cat([torch.arange(len(part)) for part in each]).argsort(stable=True)  # classes by turns
            values, labels = values[turn], labels[turn]
            self._sum(values, labels)
            maps = Maps.of(values, labels)
        moments = self.moments or Moments.none(len(self.filters), 1, by_class=False)
        return Layer(self.filters.to(moments.total.device), moments, maps, self.gains)


def subset(task: Task, trainer: Trainer, images: int) -> Tensor:
    """Indices of about ``images`` training images, drawn from torch's generator.

    As many of each label, where images have one; where windows have labels, the first that are drawn.
    """
    first, target = next(iter(trainer.batches("train", limit=1)))
    order = torch.randperm(task.size("train"))[: _LOOKED_AT * images].to(first.device)
    if task.classes(target, (2, 2)).shape[1:] != (1, 1):
        return order[:images]
    parts = order.split(chunk(trainer))
    labels = torch.cat([task.classes(task.batch("train", part, None)[1], (1, 1)) for part in parts]).flatten()
    sizes = labels.bincount()
    quota = max(1, images // int((sizes > 0).sum()))
    sorted_ = labels.argsort(stable=True)
    turn = torch.empty_like(sorted_)  # the how-manieth of its label
    turn[sorted_] = torch.arange(len(labels), device=labels.device) - (sizes.cumsum(0) - sizes)[labels[sorted_]]
    return order[turn < quota]


def chunk(trainer: Trainer) -> int:
    """How many images are looked at together."""
    return len(next(iter(trainer.batches("train")))[1])
