"""A record and two stored networks go in; a picture of what both make of test samples comes out.

Only of embedded data and networks that were made of them here: other licences do not let samples be passed on.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from slimbench.core import Record

    Image = NDArray[np.uint8]

_SHOWN = 4  # scenes of a segmentation task
_CROP = 96  # side of what is shown of a photograph, from its middle


def can_show(record: Record) -> bool:
    """Whether samples of such a task say something to the eye."""
    return record.cell["task"]["family"] in _PAINTED and bool(record.cost and record.reference)


def draw(record: Record, networks: Mapping[str, Path], file: Path) -> None:
    """Write the picture. ``networks``: folders of artifacts by record id.

    Raises: UserError that says why there is none: networks that are not at hand or not those of the record, data that
    may not be passed on, a task that is not installed.
    """
    from slimbench import described, submission

    if not submission.may_be_passed_on(record):
        raise UserError("samples are shown only of embedded data, for networks made from nothing else")
    sums = {record.id: record.artifact, record.reference: record.reference_artifact}
    dense, ours = (_network(networks.get(name), sums[name]) for name in (record.reference, record.id))
    task = described.spec(record.cell["task"])
    figure = _PAINTED[record.cell["task"]["family"]](task, {"dense": dense, "compressed": ours})
    figure.suptitle(record.label, fontsize=9, wrap=True)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _network(folder: Path | None, checksum: str) -> nn.Module:
    """A stored network. Raises: UserError where it is not at hand, damaged, or another one."""
    from slimbench import artifact

    if folder is None:
        raise UserError("the stored networks are not at hand")
    if artifact.sha256(folder / "manifest.json") != checksum:
        raise UserError("the stored networks are not those of the record")
    return _loaded(folder, checksum)


@functools.lru_cache(maxsize=4)
def _loaded(folder: Path, checksum: str) -> nn.Module:
    """By its checksum: many records share a dense network."""
    from slimbench import artifact

    return artifact.load(folder).module(check_guards=False)


def _panels(rows: int, heads: Sequence[str], side: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(side * len(heads), side * rows + 0.6), layout="constrained")
    panels = drawn.subplots(rows, len(heads), squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, head in zip(panels[0], heads, strict=True):
        axes.set_title(head, fontsize=8)
    return drawn, panels


# ------------------------------------------------------------------------------------------- super resolution


def _restored(task: Any, networks: Mapping[str, nn.Module]) -> Figure:
    """The middle of the first test image: bicubic, dense, compressed, original; PSNR-Y of the whole image."""
    import torch

    from slimbench.tasks import _restoration
    from slimbench.tasks._networks.bicubic import Bicubic

    low, high = task.batch("test", torch.tensor([0]), None)
    original = _restoration.levels(high)
    shown = {}
    with torch.inference_mode():
        for name, network in {"bicubic": Bicubic(task.scale), **networks}.items():
            image = _restoration.levels(network(low))
            psnr, *_ = _restoration.compare(image, original, task.scale)
            shown[f"{name}: {psnr:.2f} dB"] = image
    shown["original"] = original
    drawn, panels = _panels(1, list(shown), 2.6)
    for axes, image in zip(panels[0], shown.values(), strict=True):
        axes.imshow(_middle(image), interpolation="nearest")
    return drawn


def _middle(image: Image) -> Image:
    top, left = ((side - _CROP) // 2 if side > _CROP else 0 for side in image.shape[:2])
    return image[top : top + _CROP, left : left + _CROP]


# ----------------------------------------------------------------------------------------------- segmentation


def _segmented(task: Any, networks: Mapping[str, nn.Module]) -> Figure:
    """The first test scenes: labels and both predictions laid over them, with the share of pixels that are right."""
    import torch

    scenes, labels = task.batch("test", torch.arange(min(_SHOWN, task.size("test"))), None)
    with torch.inference_mode():
        classes = {name: _classes(network, scenes, labels) for name, network in networks.items()}
    heads = ("scene", "labels", *classes)
    drawn, panels = _panels(len(scenes), heads, 1.9)
    deviation, mean = (torch.tensor(part).view(1, 3, 1, 1) for part in (task.std, task.mean))
    images = (scenes * deviation + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for i, (row, image) in enumerate(zip(panels, images, strict=True)):
        row[0].imshow(image)
        for axes, name in zip(row[1:], heads[1:], strict=True):
            found = labels[i] if name == "labels" else classes[name][i]
            _overlay(axes, image, found, len(task.class_names))
            if name != "labels":
                known = labels[i] < len(task.class_names)
                right = float((found == labels[i])[known].float().mean())
                axes.set_title(f"{name}: {100 * right:.1f} % right", fontsize=8)
    return drawn


def _classes(network: nn.Module, scenes: Tensor, labels: Tensor) -> Tensor:
    """The likeliest class of each pixel, (N, H, W)."""
    import torch.nn.functional as F

    outputs = network(scenes)
    size = labels.shape[1:]
    if outputs.shape[2:] != size:
        outputs = F.interpolate(outputs, size, mode="bilinear", align_corners=False)
    return outputs.argmax(1)


def _overlay(axes: Any, image: NDArray[np.float32], found: Tensor, classes: int) -> None:
    """Classes in colours over a grey scene; class 0 and what has no label stay clear."""
    import numpy as np

    labels = found.numpy()
    axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=1)
    shown = np.ma.masked_where((labels == 0) | (labels >= classes), labels)
    axes.imshow(shown, cmap="tab20", vmin=0, vmax=19, alpha=0.75, interpolation="nearest")


_PAINTED: dict[str, Callable[[Any, Mapping[str, nn.Module]], Figure]] = {
    "super resolution": _restored,
    "segmentation": _segmented,
}
