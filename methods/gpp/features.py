"""A network and its task go in; what its last layer reads comes out: the pre-decision neurons, sample by sample."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.cost import PRODUCTS, evaluating, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.core import Task, Trainer

_GRID = 8  # windows along a side that a map has at least, as far as it has pixels: large ones all show the background


def decision(model: nn.Module, example: Tensor) -> str:
    """The layer that decides: the last convolution or linear layer that a forward pass in eval mode calls."""
    called: list[str] = []
    with watching(model, PRODUCTS, lambda name, *_: called.append(name)), evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters())))
    return called[-1]


class Read:
    """What a layer read last: (N, M) or (N, M, H, W)."""

    values: Tensor


@contextlib.contextmanager
def reading(model: nn.Module, layer: str) -> Iterator[Read]:
    """Watch what the layer reads."""
    read = Read()

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        read.values = given[0]

    handle = model.get_submodule(layer).register_forward_pre_hook(keep)
    try:
        yield read
    finally:
        handle.remove()


def samples(task: Task, features: Tensor, targets: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Samples (n, M), float32, and their classes (n,).

    A sample is an image, whose map is averaged, or a window of the map where ``Task.classes`` labels windows.

    Args:
        features: (N, M) or (N, M, H, W).
        window: side of a window in pixels of the map; less on small maps, which are cut into 8 x 8 at least.

    """
    features = features.float()
    if features.ndim == 2:
        return _labelled(features, task.classes(targets, (1, 1)))
    rows, columns = (max(min(_GRID, side), side // window) for side in features.shape[2:])
    labels = task.classes(targets, (rows, columns))
    means = averaged(features, labels.shape[1], labels.shape[2])
    return _labelled(means.movedim(1, -1).flatten(0, 2), labels)


def averaged(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Means of windows, (N, M, H, W) -> (N, M, rows, columns); window i starts at pixel i * H // rows."""
    down, across = (_means(side, n).to(maps) for side, n in zip(maps.shape[2:], (rows, columns), strict=True))
    return down @ maps @ across.T


def _means(side: int, windows: int) -> Tensor:
    """(windows, side): the weight of each pixel in each window's mean."""
    starts = torch.arange(windows + 1) * side // windows
    pixels = torch.arange(side)
    inside = (pixels >= starts[:-1, None]) & (pixels < starts[1:, None])
    return inside / inside.sum(1, keepdim=True)


def _labelled(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    known = labels.flatten() >= 0  # -1: nobody says what it shows
    return features[known], labels.flatten()[known]


def labels_of_images(task: Task, trainer: Trainer) -> Tensor | None:
    """The label of each training image, (N,) on the CPU; None where windows have labels."""
    found = []
    for _, targets in trainer.batches("train"):
        labels = task.classes(targets, (2, 2))
        if labels.shape[1:] != (1, 1):
            return None
        found.append(labels.flatten().cpu())
    return torch.cat(found)


def balanced(labels: Tensor, part: Tensor, rng: torch.Generator) -> Tensor:
    """An order of one epoch with the classes by turns, so that every batch has as many of each: a ``fit`` sampler.

    As long as ``part``; of a rare class images come again, of a frequent one some stay out.

    Args:
        labels: of all training images, (N,). part: indices (n,) of those that may be drawn.

    """
    shown = labels[part]
    sizes = shown.unique(return_counts=True)[1].tolist()
    quota = -(-len(part) // len(sizes))
    rows = []
    for images in part[shown.argsort(stable=True)].split(sizes):  # those of one class
        again = -(-quota // len(images))
        rows.append(torch.cat([images[torch.randperm(len(images), generator=rng)] for _ in range(again)])[:quota])
    turns = torch.stack(rows, 1)  # (quota, classes)
    order = torch.rand(turns.shape, generator=rng).argsort(1)  # classes in another order at each turn
    return turns.gather(1, order).flatten()[: len(part)]
