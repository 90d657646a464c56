"""Images with label maps in memory: windows for training and mIoU over a whole split come out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor, nn

from slimbench.core import Batch, Outputs, Scores, UserError, pack
from slimbench.cost import evaluating
from slimbench.tasks._mmseg import mmseg
from slimbench.tasks._pixels import Pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from slimbench.tasks._segmentation import Segmentation

_METRIC: Any = mmseg("evaluation").IoUMetric
IGNORED = 255
_EVALUATION_PIXELS = 2**21  # in one batch


@dataclass(frozen=True)
class Scenes:
    """Images and their label maps, which may be larger: predictions are then enlarged to them."""

    images: Pixels
    labels: Pixels

    def to(self, device: torch.device) -> Scenes:
        """The same scenes on ``device``."""
        return Scenes(self.images.to(device), self.labels.to(device))


def scenes(images: Sequence[NDArray[np.uint8]], labels: Sequence[NDArray[np.uint8]]) -> Scenes:
    """From images (H, W, 3) RGB and labels (H, W)."""
    return Scenes(Pixels.of(images), Pixels.of(labels))


# ----------------------------------------------------------------------------------------------- from files


def read(
    dataset: Any,
    n_classes: int,
    *,
    ignored: int = IGNORED,
    chosen: Sequence[int] | None = None,
    shrink: int = 1,
) -> Scenes:
    """Decode a dataset of mmsegmentation's, whose pipeline loads images and label maps and does nothing else.

    Args:
        ignored: the label that stands for "not labelled".
        chosen: which samples; None: all.
        shrink: every image is averaged over squares of this many pixels; label maps keep their size.

    Raises: UserError naming the file that cannot be read or does not fit.

    """
    images, labels = [], []
    for index in range(len(dataset)) if chosen is None else chosen:
        info = dataset.get_data_info(index)
        image, label = _decoded(dataset, index, info)
        _refuse(image, label, info, n_classes, ignored)
        label[label == ignored] = IGNORED
        images.append(_shrunk(np.ascontiguousarray(image[:, :, ::-1]), shrink))  # mmcv decodes to BGR
        labels.append(label)
    return scenes(images, labels)


def _decoded(dataset: Any, index: int, info: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        result = dataset[index]
    except Exception as error:  # decoders raise whatever they like
        image, label = info["img_path"], info["seg_map_path"]
        raise UserError(f"{image} or its label map {label} cannot be read ({error}): fetch them again.") from error
    return result["img"], result["gt_seg_map"]


def _refuse(image: NDArray[Any], label: NDArray[Any], info: dict[str, Any], n_classes: int, ignored: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype}, {'x'.join(map(str, image.shape))}"
        raise UserError(f"{info['img_path']} is not an 8-bit colour image ({found}): convert it to 8-bit RGB.")
    with Image.open(info["seg_map_path"]) as opened:
        mode = opened.mode
    if mode not in {"L", "P", "1"}:  # mmsegmentation cuts more bits off: 259 would become 3
        raise UserError(f"{info['seg_map_path']} is not an 8-bit label map ({mode}): save its labels as 8-bit grey.")
    if image.shape[:2] != label.shape:
        sizes = f"{image.shape[0]} x {image.shape[1]} and {' x '.join(map(str, label.shape))} pixels"
        raise UserError(
            f"{info['img_path']} and its label map {info['seg_map_path']} differ in size ({sizes}): fetch them again."
        )
    wrong = np.unique(label[(label >= n_classes) & (label != ignored) & (label != IGNORED)])
    if len(wrong):
        raise UserError(
            f"{info['seg_map_path']} holds label {wrong[0]}, and the classes are 0 to {n_classes - 1} "
            f"({ignored}: ignored): it is not this task's label map."
        )


def _shrunk(image: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    if by == 1:
        return image
    height, width = image.shape[0] // by, image.shape[1] // by
    squares = image[: height * by, : width * by].reshape(height, by, width, by, 3)
    return squares.mean((1, 3)).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------- training


def example(size: tuple[int, int]) -> Tensor:
    """One input, (1, 3, *size), the same every time."""
    return torch.randn(1, 3, *size, generator=Generator().manual_seed(0))


def batch(task: Segmentation, source: Scenes, indices: Tensor, rng: Generator | None) -> Batch:
    """Windows of ``task.crop`` pixels: images bilinear, normalised, channels last; labels nearest.

    What lies outside an image is the mean colour, and ignored.
    """
    rows, columns = _window(task, source.images, indices, rng)
    outside = _outside(rows, source.images.heights[indices])[:, :, None]
    outside = outside | _outside(columns, source.images.widths[indices])[:, None, :]
    pixels = _bilinear(source.images, indices, rows, columns)
    labels = _nearest(source, indices, rows, columns).masked_fill(outside, IGNORED)
    return _normalised(task, pixels, outside), labels


def _window(task: Segmentation, images: Pixels, indices: Tensor, rng: Generator | None) -> tuple[Tensor, Tensor]:
    """Coordinates in source pixels of a window's rows (N, h) and columns (N, w); float, perhaps outside the image."""
    n, device = len(indices), indices.device
    scale, mirrored, place = torch.ones(n, 1), torch.zeros(n, 1, dtype=torch.bool), torch.full((2, n, 1), 0.5)
    if rng is not None:
        low, high = (math.log(end) for end in task.jitter)
        scale = (low + (high - low) * torch.rand(n, 1, generator=rng)).exp()
        mirrored = (torch.rand(n, 1, generator=rng) < 0.5) & task.flip
        place = torch.rand(2, n, 1, generator=rng)
    scale, mirrored, place = scale.to(device), mirrored.to(device), place.to(device)
    axes = []
    for axis, sizes in enumerate((images.heights, images.widths)):
        span = task.crop[axis] / scale
        start = place[axis] * (sizes[indices][:, None] - span)
        steps = torch.arange(task.crop[axis], device=device) + 0.5
        if axis == 1:
            steps = torch.where(mirrored, task.crop[1] - steps, steps)
        axes.append(start + steps / scale - 0.5)
    return axes[0], axes[1]


def _outside(places: Tensor, size: Tensor) -> Tensor:
    return (places < -0.5) | (places > size[:, None] - 0.5)


def _bilinear(images: Pixels, indices: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels between pixels, (N, h, w, C) float, 0 to 255; beyond an edge, the edge."""
    (top, down), (left, right) = (
        _neighbours(rows, images.heights[indices]),
        _neighbours(columns, images.widths[indices]),
    )
    own = indices[:, None, None]
    corners = [images.at(own, r[:, :, None], c[:, None, :]).float() for r in (top, down) for c in (left, right)]
    across = (columns - columns.floor())[:, None, :, None]
    along = (rows - rows.floor())[:, :, None, None]
    upper, lower = (torch.lerp(corners[k], corners[k + 1], across) for k in (0, 2))
    return torch.lerp(upper, lower, along)


def _neighbours(places: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    last = (size - 1)[:, None]
    before = places.floor().long()
    return before.clamp(min=0).minimum(last), (before + 1).clamp(min=0).minimum(last)


def _nearest(source: Scenes, indices: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Labels (N, h, w) int64; label maps may be larger than their images."""
    places = []
    for axis, own in ((rows, "heights"), (columns, "widths")):
        image, label = (getattr(part, own)[indices][:, None] for part in (source.images, source.labels))
        scaled = ((axis + 0.5) * (label / image)).floor().long()
        places.append(scaled.clamp(min=0).minimum(label - 1))
    return source.labels.at(indices[:, None, None], places[0][:, :, None], places[1][:, None, :])[..., 0].long()


def _normalised(task: Segmentation, pixels: Tensor, outside: Tensor | None = None) -> Tensor:
    """(N, h, w, 3), 0 to 255 -> (N, 3, h, w), channels last; zero where ``outside``, (N, h, w), is true."""
    mean, std = (torch.tensor(figures, device=pixels.device) * 255 for figures in (task.mean, task.std))
    inputs = (pixels - mean).div_(std)
    if outside is not None:
        inputs.masked_fill_(outside[..., None], 0.0)
    return inputs.permute(0, 3, 1, 2)


def loss(task: Segmentation, outputs: Outputs, targets: Tensor) -> Tensor:
    """Cross-entropy of every head, mean over labelled pixels (weighed where classes are balanced)."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    size = targets.shape[1:]
    heads = tuple(  # networks of one's own may put out fewer pixels
        head if head.shape[2:] == size else F.interpolate(head, size, mode="bilinear", align_corners=False)
        for head in heads
    )
    weights = torch.ones(len(task.class_names))
    if task.balanced:
        weights = class_weights(task)
    weights = weights.to(targets.device)
    labelled = targets != IGNORED
    total = weights[targets[labelled]].sum().clamp(min=1e-6)  # a batch without a label adds nothing
    smoothing = task.recipe.label_smoothing
    entropy = [
        F.cross_entropy(head, targets, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
        / total
        for head in heads
    ]
    return entropy[0] + task.auxiliary_weight * sum(entropy[1:])


@functools.cache
def class_weights(task: Segmentation) -> Tensor:
    """1 / ln(1.02 + p) with p the share of a class among the labelled pixels of train, (classes,)."""
    labels = task.load("train").labels.values.flatten()
    counts = torch.bincount(labels, minlength=IGNORED + 1)[: len(task.class_names)].double()
    return (1 / (1.02 + counts / counts.sum()).log()).float()


def majority(targets: Tensor, size: tuple[int, int], n_classes: int) -> Tensor:
    """The most frequent class of each window of ``size`` windows, (N, h, w) int64; -1 where no pixel is labelled.

    Args:
        targets: (N, H, W) int64, 255: ignored.

    """
    labelled = targets != IGNORED
    shares = F.one_hot(targets.masked_fill(~labelled, n_classes), n_classes + 1)[..., :n_classes]
    pooled = F.adaptive_avg_pool2d(shares.permute(0, 3, 1, 2).float(), size)
    best, found = pooled.max(1)
    return found.masked_fill(best == 0, -1)


# ----------------------------------------------------------------------------------------------- evaluation


def evaluate(task: Segmentation, model: nn.Module, source: Scenes) -> dict[str, Scores]:
    """mIoU: mean over the classes that occur of TP / (TP + FP + FN), summed over all images, by mmsegmentation.

    Its ``per_sample`` holds, for each image, the intersections and then the unions of all classes, in pixels.
    """
    n_classes = len(task.class_names)
    areas = [
        torch.stack(_METRIC.intersect_and_union(predicted, label, n_classes, IGNORED))  # (4, classes)
        for predicted, label in _predictions(task, model, source)
    ]
    each = torch.stack(areas).double()
    figures = _METRIC.total_area_to_metrics(*each.sum(0), metrics=["mIoU"])
    iou = torch.tensor(figures["IoU"])
    occurring = iou[~iou.isnan()]
    right, labelled = float(each[:, 0].sum()), float(each[:, 3].sum())
    return {
        "mIoU": Scores(
            100 * float(occurring.mean()),
            float(occurring.sum()),
            float(len(occurring)),
            pack(each[:, :2].flatten().tolist()),
        ),
        "pixel_accuracy": Scores(
            100 * float(figures["aAcc"]),
            right,
            labelled,
            pack((each[:, 0].sum(1) / each[:, 3].sum(1).clamp(min=1)).tolist()),
        ),
    }


def _predictions(task: Segmentation, model: nn.Module, source: Scenes) -> Iterator[tuple[Tensor, Tensor]]:
    """Each image's predicted classes and its labels, (H, W) int64, at the size of the label map."""
    device = next(model.parameters(), torch.empty(0)).device
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with evaluating(model), torch.inference_mode():
        for part in _alike(source):
            pixels = torch.stack([source.images.image(i) for i in part]).permute(0, 2, 3, 1).to(device)
            logits = model(_normalised(task, pixels.float()))
            if not bool(torch.isfinite(logits).all()):
                raise FloatingPointError("the network puts out values that are not finite")
            labels = torch.stack([source.labels.image(i)[0] for i in part]).long()
            if logits.shape[2:] != labels.shape[1:]:
                logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
            yield from zip(logits.argmax(1).cpu(), labels, strict=True)


def _alike(source: Scenes) -> Iterator[list[int]]:
    """Runs of images whose sizes are equal, a batch each."""
    part: list[int] = []
    before: tuple[int, ...] = ()
    for index in range(len(source.images)):
        size = tuple(int(t[index]) for p in (source.images, source.labels) for t in (p.heights, p.widths))
        if part and (size != before or len(part) * size[2] * size[3] >= _EVALUATION_PIXELS):
            yield part
            part = []
        part.append(index)
        before = size
    if part:
        yield part
