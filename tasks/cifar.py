"""CIFAR-10 and CIFAR-100: 32 x 32 colour images, from torchvision's layout or (CIFAR-10) from lossless WebP shards."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import Metric, MissingDataError, Recipe, Split, UserError
from slimbench.environment import data_root
from slimbench.tasks._classification import TOP1, TOP5, Classification

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from slimbench.tasks._images import Images

    Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]

_HELD = 5000


@dataclass(frozen=True)
class CIFAR10(Classification):
    """45,000 images to train on, 5,000 to validate, 10,000 to test; ImageNet mean and deviation, as is usual."""

    network: str = "resnet20"
    recipe: Recipe = Recipe(epochs=200, weight_decay=5e-4)

    name: ClassVar[str] = "cifar10"
    version: ClassVar[int] = 1
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    flip: ClassVar[bool] = True
    shards: ClassVar[str] = "classification/cifar10"
    torchvision_name: ClassVar[str] = "CIFAR10"
    content: ClassVar[str] = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    # sha256 of pixels (N, 32, 32, 3) uint8 and then labels int64, by official set; None: torchvision's MD5s alone
    digests: ClassVar[dict[str, tuple[str, str] | None]] = {
        "train": (
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
        ),
        "test": (
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
        ),
    }

    def load(self, split: Split) -> Images:
        """Images and labels of a split."""
        task: Any = type(self)  # mypy holds dataclass types to be unhashable
        return _load(task, data_root(), split)

    def download(self, root: Path) -> None:
        """Fetch the official archive with torchvision, which checks it."""
        from slimbench.tasks._torchvision import torchvision

        getattr(torchvision().datasets, self.torchvision_name)(root, download=True)


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """The same sizes, 100 classes."""

    name: ClassVar[str] = "cifar100"
    n_classes: ClassVar[int] = 100
    metrics: ClassVar[tuple[Metric, ...]] = (TOP1, TOP5)
    shards: ClassVar[str] = ""  # without digests nobody could tell whether they hold what the archive does
    torchvision_name: ClassVar[str] = "CIFAR100"
    content: ClassVar[str] = "md5:16019d7e3df5f24257cddd939b257f8d"
    digests: ClassVar[dict[str, tuple[str, str] | None]] = {"train": None, "test": None}


@functools.cache
def _load(task: Any, root: Path | None, split: Split) -> Images:
    from slimbench.tasks import _images

    if split == "test":
        return _images.images(*_read(task, root, "test"))
    pixels, labels = _read(task, root, "train")
    train, val = _images.split_off(len(labels), _HELD)
    chosen = train if split == "train" else val
    return _images.images(pixels[chosen], labels[chosen])


@functools.cache
def _read(task: Any, root: Path | None, official: str) -> Arrays:
    from slimbench.tasks import _images

    if root and task.shards and any((root / task.shards).glob(f"{official}_*.webp")):
        pixels, labels = _read_shards(root / task.shards, official)
        if len(pixels) < len(labels):
            raise UserError(
                f"The {official} images of {task.name} are incomplete: the shards in {root / task.shards} hold "
                f"{len(pixels):,} of {len(labels):,}: fetch the missing ones again."
            )
    else:
        pixels, labels = _read_torchvision(task, root, official)
    digests = task.digests[official]
    if digests:
        _images.expect(f"The {official} images of {task.name} in {root}", digests[0], pixels)
        _images.expect(f"The {official} labels of {task.name} in {root}", digests[1], labels)
    return pixels, labels


def _read_shards(folder: Path, official: str) -> Arrays:
    """Shards of 500 images, 32 wide and 16,000 high, in the official order."""
    import numpy as np
    from PIL import Image

    parts = []
    for path in sorted(folder.glob(f"{official}_*.webp")):
        try:
            with Image.open(path) as shard:
                parts.append(np.asarray(shard.convert("RGB")).reshape(-1, 32, 32, 3))
        except (OSError, ValueError) as error:
            raise UserError(f"The data file {path} cannot be read ({error}): fetch it again.") from error
    labels = folder / f"{official}_labels.npy"
    try:
        return np.concatenate(parts), np.load(labels, allow_pickle=False).astype(np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The data file {labels} cannot be read ({error}): fetch it again.") from error


def _read_torchvision(task: type[CIFAR10], root: Path | None, official: str) -> Arrays:
    """torchvision's layout; it checks the official MD5s before it reads."""
    import numpy as np

    from slimbench.tasks._torchvision import torchvision

    fetch = f"run `bench download {task.name} --data FOLDER`, or name the folder that holds them"
    if root is None:
        raise MissingDataError(f"The data of {task.name} are missing (BENCH_DATA is not set): {fetch}.")
    dataset = getattr(torchvision().datasets, task.torchvision_name)
    if not (root / dataset.base_folder).is_dir():
        raise MissingDataError(f"The data of {task.name} are missing ({root} has no {dataset.base_folder}): {fetch}.")
    try:
        data = dataset(root, train=official == "train")
    except RuntimeError as error:
        raise UserError(f"The data of {task.name} in {root / dataset.base_folder} are altered: {fetch}.") from error
    return data.data, np.asarray(data.targets, np.int64)
