"""Cityscapes: 2,975 + 500 street scenes of 2048 x 1024 pixels, 19 classes, in the official layout."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks._segmentation import Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._scenes import Scenes

_BASES = ("cityscapes", "Cityscapes", "data/cityscapes", "")
_WHERE = "fetch them from https://www.cityscapes-dataset.com and let cityscapesscripts make the training ids"
_HELD = 100
_SHRINK = 2


@dataclass(frozen=True)
class Cityscapes(Segmentation):
    """Networks see images at half size; predictions are enlarged and scored at the full one.

    The official validation set is the test split, since the labels of the official test set are not public. A hundred
    images of train, fixed for all seeds, are held out to validate. All images are decoded into memory, about 11 GB.
    """

    network: str = "fast-scnn"
    recipe: Recipe = Recipe(epochs=200, batch_size=16, lr=0.05, fine_tune_lr=0.01, warmup=0.02, weight_decay=5e-4)

    name: ClassVar[str] = "cityscapes"
    version: ClassVar[int] = 1
    class_names: ClassVar[tuple[str, ...]] = (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    )  # fmt: skip
    size_px: ClassVar[tuple[int, int]] = (512, 1024)
    crop: ClassVar[tuple[int, int]] = (512, 512)
    images: ClassVar[dict[str, int]] = {"train": 2975, "val": 2975, "test": 500}  # in the split's folder
    feeding: ClassVar[dict[str, str]] = {"prepared": "every square of 2 x 2 pixels averaged into one"}

    def load(self, split: Split) -> Scenes:
        """Images, at half size, and label maps of a split."""
        from slimbench.environment import data_root

        return _load(data_root(), split)

    def data_checksum(self) -> str:
        """A digest of every file."""
        from slimbench.environment import data_root

        return _checksum(data_root())


@functools.cache
def _load(root: Path | None, split: Split) -> Scenes:
    from slimbench.tasks import _scene_files, _scenes

    dataset = _dataset(root, split)
    chosen = None
    if split != "test":
        chosen = _scene_files.part(split, dataset, _dataset(root, "test"), _HELD)
    return _scenes.read(dataset, len(Cityscapes.class_names), chosen=chosen, shrink=_SHRINK)


@functools.cache
def _checksum(root: Path | None) -> str:
    from slimbench.tasks import _scene_files

    return _scene_files.digest({"train": _dataset(root, "train"), "test": _dataset(root, "test")})


def _dataset(root: Path | None, split: Split) -> Any:
    """The official train (val is a part of it) or val, which is the test split; labels are training ids."""
    from slimbench.tasks import _scene_files

    official = "val" if split == "test" else "train"
    suffixes = ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")
    layouts = [_scene_files.Layout(b, f"leftImg8bit/{official}", f"gtFine/{official}", *suffixes) for b in _BASES]
    source = _scene_files.Source(
        "cityscapes", "CityscapesDataset", layouts, Cityscapes.class_names, _WHERE, Cityscapes.images[split]
    )
    return _scene_files.dataset(source, root)
