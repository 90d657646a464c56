"""PASCAL VOC 2012: 20 kinds of objects and the background, in torchvision's and mmsegmentation's layout."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks._segmentation import Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._scenes import Scenes

_BASE = "VOCdevkit/VOC2012"
_LISTS = "ImageSets/Segmentation"
_WHERE = "run `bench download voc2012 --data FOLDER`, or name the folder that holds VOCdevkit"
_HELD = 100


@dataclass(frozen=True)
class VOC2012(Segmentation):
    """Trained on train, or on train_aug where ``trainaug.txt`` and ``SegmentationClassAug`` are there; tested on val.

    The labels of the official test set are not public. A hundred images of the training list, fixed for all seeds,
    are held out to validate. All images are decoded into memory: train_aug takes about 8 GB.
    """

    network: str = "deeplabv3-resnet18"
    recipe: Recipe = Recipe(epochs=60, batch_size=16, lr=0.01, fine_tune_lr=0.002, warmup=0.02, weight_decay=5e-4)

    name: ClassVar[str] = "voc2012"
    version: ClassVar[int] = 1
    class_names: ClassVar[tuple[str, ...]] = (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    size_px: ClassVar[tuple[int, int]] = (512, 512)
    crop: ClassVar[tuple[int, int]] = (512, 512)

    def load(self, split: Split) -> Scenes:
        """Images and label maps of a split."""
        from slimbench.environment import data_root

        return _load(data_root(), split)

    def data_checksum(self) -> str:
        """A digest of every file."""
        from slimbench.environment import data_root

        return _checksum(data_root())

    def download(self, root: Path) -> None:
        """Fetch the official archive with torchvision, which checks it; train_aug comes from others."""
        from slimbench.tasks._torchvision import torchvision

        torchvision().datasets.VOCSegmentation(root, "2012", "trainval", download=True)


@functools.cache
def _load(root: Path | None, split: Split) -> Scenes:
    from slimbench.tasks import _scene_files, _scenes

    dataset = _dataset(root, split)
    chosen = None
    if split != "test":
        chosen = _scene_files.part(split, dataset, _dataset(root, "test"), _HELD)
    return _scenes.read(dataset, len(VOC2012.class_names), chosen=chosen)


@functools.cache
def _checksum(root: Path | None) -> str:
    from slimbench.tasks import _scene_files

    return _scene_files.digest({"train": _dataset(root, "train"), "test": _dataset(root, "test")})


def _dataset(root: Path | None, split: Split) -> Any:
    """The official list of train (val is a part of it) or of val, which is the test split."""
    from slimbench.tasks import _scene_files

    labels, listing = "SegmentationClass", f"{_LISTS}/{'val' if split == 'test' else 'train'}.txt"
    augmented = f"{_LISTS}/trainaug.txt"
    if split != "test" and root and all((root / _BASE / p).exists() for p in (augmented, "SegmentationClassAug")):
        labels, listing = "SegmentationClassAug", augmented
    layout = _scene_files.Layout(_BASE, "JPEGImages", labels, ".jpg", listing=listing)
    classes = VOC2012.class_names
    return _scene_files.dataset(_scene_files.Source("voc2012", "PascalVOCDataset", (layout,), classes, _WHERE), root)
