"""A task goes in; how functions are tried on it comes out: the authors' counts where they give them, else one share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from slimbench.core import Budget
from slimbench.methods.etpf.method import ETPF

if TYPE_CHECKING:
    from slimbench.core import Task

_VGG = (12, 12, 25, 25, 51, 51, 51, 102, 102, 102, 102, 102, 102)

# Channels that go in each round, from 20-50-500 to 5-11-40, and from 64-64-128-128-256x3-512x7 to
# 40-40-78-78-154x3-308x7; in which order layers are scored; and the share of MACs that is left.
REMOVED: Final = {
    "lenet5": (((10, 30, 400), (5, 8, 55), (0, 1, 5)), "at once", 0.073),
    "vgg16-bn": ((_VGG, _VGG), "front to back", 0.369),
    "vgg16-bn-fc": (((*_VGG, 102),) * 2, "front to back", 0.369),
    "vgg16-relu-bn-fc": (((*_VGG, 102),) * 2, "front to back", 0.369),
}


def trial(task: Task, keep: float, epochs: float | None, images: int | None) -> tuple[ETPF, Budget]:
    """How a function is tried on ``task``: put it in with ``dataclasses.replace``.

    Args:
        keep: share of MACs that is left, where the authors give no counts for the network.
        epochs: of training, of all rounds together; None: a quarter of the dense network's.
        images: that scores are made from; None: all of them.

    """
    epochs = task.recipe.epochs / 4 if epochs is None else epochs
    if task.network not in REMOVED:
        return ETPF(images=images), Budget(keep, epochs=epochs)
    removed, order, kept = REMOVED[task.network]
    return ETPF(removed=removed, order=order, images=images), Budget(kept, epochs=epochs)  # type: ignore[arg-type]
