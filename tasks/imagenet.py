"""ImageNet (ILSVRC 2012), decoded as it is needed: ``imagenet/train/WNID/*.JPEG`` and ``imagenet/val/WNID/*.JPEG``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Batch, Metric, Recipe, Split
from slimbench.environment import data_root
from slimbench.tasks._classification import TOP1, TOP5, Classification

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor

    from slimbench.tasks._files import Files


@dataclass(frozen=True)
class ImageNet(Classification):
    """Random resized crops of 224 pixels; tested on a centre crop after resizing to 256.

    The official validation set is the test split; 50 training images a class are the validation split.
    """

    network: str = "imagenet-resnet18"
    recipe: Recipe = Recipe(epochs=90, batch_size=256, weight_decay=1e-4, warmup=0.05)

    name: ClassVar[str] = "imagenet"
    version: ClassVar[int] = 1
    n_classes: ClassVar[int] = 1000
    size_px: ClassVar[int] = 224
    metrics: ClassVar[tuple[Metric, ...]] = (TOP1, TOP5)
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    content: ClassVar[str] = "ILSVRC2012"  # 150 GB: the file list is checked, not every byte
    held_a_class: ClassVar[int] = 50
    feeding: ClassVar[dict[str, str]] = {
        "prepared": "the shorter side resized to 256 pixels, bilinear, and the middle 224 x 224 of it cut out"
    }
    images: ClassVar[dict[str, int]] = {"train": 1_281_167, "val": 1_281_167, "test": 50_000}  # in the split's folder

    def check(self) -> None:
        """List the files of both folders."""
        for split in ("train", "val", "test"):
            self.size(split)

    def size(self, split: Split) -> int:
        """Number of images."""
        return len(self._files(split))

    def batch(self, split: Split, indices: Tensor, rng: Generator | None) -> Batch:
        """Decode, crop and normalise."""
        from slimbench.tasks import _files

        return _files.batch(self._files(split), indices, rng, self.size_px, (self.mean, self.std))

    def _files(self, split: Split) -> Files:
        from slimbench.tasks import _files

        return _files.split(data_root(), split, self.n_classes, self.held_a_class, self.images.get(split))

    def download(self, root: Path) -> None:
        """Unpack the official archives, which must lie in ``root``: their licence forbids fetching them for you."""
        from slimbench.core import UserError
        from slimbench.tasks._torchvision import torchvision

        try:
            for split in ("train", "val"):
                torchvision().datasets.ImageNet(root / "imagenet", split)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"ImageNet cannot be unpacked ({error}): put the official archives into {root / 'imagenet'}."
            ) from error
