"""What super-resolution tasks compute: batches of patches, scores of whole images, texture bins of targets."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from slimbench.core import Batch, Scores, Split, pack
from slimbench.cost import evaluating
from slimbench.tasks import _basicsr
from slimbench.tasks._luma import luma

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimbench.tasks._pairs import Pairs
    from slimbench.tasks._pixels import Pixels
    from slimbench.tasks._super_resolution import SuperResolution

_BINNED_PATCHES = 512  # that the bounds of the texture bins are taken from
_BINNED_WINDOWS = 2**23
_EXACT_DB = 100.0  # stands for the infinite PSNR of an image without error


# ---------------------------------------------------------------------------------------------------------- batches


def patches(source: Pixels, patch: int) -> int:
    """How many squares of ``patch`` pixels fit into the images side by side."""
    return int(_patches(source, patch).sum())


def _patches(source: Pixels, patch: int) -> Tensor:
    return (source.heights // patch) * (source.widths // patch)


def batch(source: Pairs, patch: int, scale: int, indices: Tensor, rng: Generator | None) -> Batch:
    """Patches (N, 3, p, p) and (N, 3, p * scale, p * scale) in [0, 1], channels last in memory.

    An index is a square of the grid that each image is cut into. With ``rng`` the patch is taken from anywhere in the
    square's image, and mirrored and transposed at random: eight ways.
    """
    low, high = source.lr.to(indices.device), source.hr.to(indices.device)
    ends = _patches(low, patch).cumsum(0)
    images = torch.searchsorted(ends, indices, right=True)
    if rng is None:
        across = low.widths[images] // patch
        inside = indices - ends[images] + _patches(low, patch)[images]
        corner, turn = (inside // across * patch, inside % across * patch), None
    else:
        corner, turn = _drawn(low, images, patch, rng)
    inputs = _gathered(low, images, corner, turn, patch)
    return inputs, _gathered(high, images, (corner[0] * scale, corner[1] * scale), turn, patch * scale)


def _drawn(source: Pixels, images: Tensor, patch: int, rng: Generator) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Upper left corners, (N,) each, and whether to transpose, mirror rows and mirror columns, (3, N) bool."""
    draws = torch.rand(5, len(images), generator=rng, dtype=torch.float64).to(images.device)
    top = (draws[0] * (source.heights[images] - patch + 1)).long()
    left = (draws[1] * (source.widths[images] - patch + 1)).long()
    return (top, left), draws[2:] < 0.5


def _gathered(source: Pixels, images: Tensor, corner: tuple[Tensor, Tensor], turn: Tensor | None, side: int) -> Tensor:
    """Squares (N, 3, side, side) in [0, 1]: one gather for the whole batch."""
    steps = torch.arange(side, device=images.device)
    rows, columns = steps[:, None], steps
    if turn is not None:
        transposed, upside_down, mirrored = turn[:, :, None, None]
        rows, columns = torch.where(transposed, columns, rows), torch.where(transposed, rows, columns)
        rows = torch.where(upside_down, side - 1 - rows, rows)
        columns = torch.where(mirrored, side - 1 - columns, columns)
    image, top, left = (part[:, None, None] for part in (images, *corner))
    return source.at(image, top + rows, left + columns).permute(0, 3, 1, 2).float() / 255


def whole(source: Pairs, indices: Tensor) -> Batch:
    """Whole images by index. Raises: RuntimeError where they differ in size."""
    low, high = source.lr.to(indices.device), source.hr.to(indices.device)
    chosen = indices.tolist()
    inputs, targets = (torch.stack([part.image(i) for i in chosen]).float() / 255 for part in (low, high))
    return inputs, targets


# ----------------------------------------------------------------------------------------------------------- scores


def evaluate(task: SuperResolution, model: nn.Module, split: Split) -> dict[str, Scores]:
    """PSNR-Y, SSIM-Y and RGB PSNR, means over images; of each test set by itself, under the task's metric names.

    Raises: FloatingPointError where an output is not finite.
    """
    source = task.load(split)
    device = next(model.parameters(), torch.empty(0)).device
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: dict[str, list[tuple[float, float, float]]] = {}
    with evaluating(model), torch.inference_mode():
        for index, group in enumerate(source.groups):
            low = source.lr.image(index)[None].to(device).float() / 255
            restored = levels(model(low))
            rows.setdefault(group, []).append(compare(restored, _array(source.hr.image(index)), task.scale))
    names = [metric.name for metric in task.metrics_of(split)]
    columns = [column for group in rows.values() for column in zip(*group, strict=True)]
    return {name: _mean(column) for name, column in zip(names, columns, strict=True)}


def levels(outputs: Tensor) -> NDArray[np.uint8]:
    """The image that a network's output (1, 3, H, W) stands for: clamped to [0, 1], rounded; (H, W, 3)."""
    if not bool(torch.isfinite(outputs).all()):
        raise FloatingPointError("the network puts out values that are not finite")
    return _array((outputs[0].clamp(0, 1) * 255).round().to(torch.uint8))


def compare(restored: NDArray[np.uint8], original: NDArray[np.uint8], scale: int) -> tuple[float, float, float]:
    """PSNR-Y and SSIM-Y with ``scale`` pixels cropped, and RGB PSNR without a crop, which some papers report."""
    return (
        min(_EXACT_DB, _basicsr.psnr(restored, original, scale, luma=True)),
        _basicsr.ssim(restored, original, scale, luma=True),
        min(_EXACT_DB, _basicsr.psnr(restored, original, 0, luma=False)),
    )


def _array(image: Tensor) -> NDArray[np.uint8]:
    return image.permute(1, 2, 0).cpu().numpy()


def _mean(values: tuple[float, ...]) -> Scores:
    return Scores(sum(values) / len(values), sum(values), len(values), pack(values))


# ---------------------------------------------------------------------------------------------------------- texture


def strength(targets: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean gradient of luma, in luma a pixel, over windows of (N, 3, H, W) in [0, 1]: (N, *size).

    Central differences; outside of the image the edge is repeated.
    """
    padded = F.pad(luma(targets), (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return F.adaptive_avg_pool2d(torch.hypot(across, down), size)[:, 0]


def texture(targets: Tensor, size: tuple[int, int], bounds: tuple[float, float]) -> Tensor:
    """0 flat, 1 texture, 2 edge: how many of the bounds a window's gradient strength exceeds, (N, *size) int64."""
    return torch.bucketize(strength(targets, size), targets.new_tensor(bounds))


@functools.cache
def bounds(task: SuperResolution) -> tuple[float, float]:
    """The terciles of gradient strength over windows of one low-resolution pixel, in evenly spread training patches."""
    size = task.size("train")
    chosen = torch.arange(min(size, _BINNED_PATCHES)) * size // min(size, _BINNED_PATCHES)
    _, targets = task.batch("train", chosen, None)
    found = strength(targets, (task.patch, task.patch)).flatten()
    found = found[:: 1 + len(found) // _BINNED_WINDOWS]  # torch takes quantiles of so many values and no more
    first, second = torch.quantile(found, torch.tensor([1 / 3, 2 / 3])).tolist()
    return first, second
