"""MNIST and Fashion-MNIST: 28 x 28 grey images, from the four official files."""

from __future__ import annotations

import functools
import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import MissingDataError, Recipe, Split, UserError
from slimbench.environment import data_root
from slimbench.tasks._classification import Classification

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._images import Images

_HELD = 5000


@dataclass(frozen=True)
class MNIST(Classification):
    """Handwritten digits: 55,000 to train on, 5,000 to validate, 10,000 to test."""

    network: str = "lenet5"
    recipe: Recipe = Recipe(epochs=20, lr=0.05)

    name: ClassVar[str] = "mnist"
    version: ClassVar[int] = 1
    channels: ClassVar[int] = 1
    size_px: ClassVar[int] = 28
    mean: ClassVar[tuple[float, ...]] = (0.1307,)
    std: ClassVar[tuple[float, ...]] = (0.3081,)
    pad: ClassVar[int] = 2
    folders: ClassVar[tuple[str, ...]] = ("classification/mnist", "MNIST/raw", "mnist")
    md5: ClassVar[dict[str, str]] = {  # as torchvision has them
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    content: ClassVar[str] = "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"

    def load(self, split: Split) -> Images:
        """Images and labels of a split."""
        task: Any = type(self)  # mypy holds dataclass types to be unhashable
        return _load(task, data_root(), split)

    def download(self, root: Path) -> None:
        """Fetch the official files with torchvision."""
        from slimbench.tasks._torchvision import torchvision

        torchvision().datasets.MNIST(root, download=True)


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Clothes, in MNIST's format and sizes."""

    network: str = "lenet5"
    recipe: Recipe = Recipe(epochs=30, lr=0.05)

    name: ClassVar[str] = "fashion_mnist"
    mean: ClassVar[tuple[float, ...]] = (0.2860,)
    std: ClassVar[tuple[float, ...]] = (0.3530,)
    flip: ClassVar[bool] = True
    folders: ClassVar[tuple[str, ...]] = ("classification/fashion_mnist", "FashionMNIST/raw", "fashion_mnist")
    md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    content: ClassVar[str] = "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"

    def download(self, root: Path) -> None:
        """Fetch the official files with torchvision."""
        from slimbench.tasks._torchvision import torchvision

        torchvision().datasets.FashionMNIST(root, download=True)


@functools.cache
def _load(task: Any, root: Path | None, split: Split) -> Images:
    from slimbench.tasks import _images

    official = "t10k" if split == "test" else "train"
    every = _read(task, root, official)
    if split == "test":
        return every
    train, val = _images.split_off(len(every.labels), _HELD)
    return every.part(train if split == "train" else val)


@functools.cache
def _read(task: Any, root: Path | None, official: str) -> Images:
    import numpy as np

    from slimbench.tasks import _images

    folder = _folder(task, root)
    pixels = _unpack(task, folder / f"{official}-images-idx3-ubyte.gz")
    labels = _unpack(task, folder / f"{official}-labels-idx1-ubyte.gz")
    # idx files: big-endian header of 16 and 8 bytes, then bytes
    return _images.images(
        np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)
    )


def _folder(task: type[MNIST], root: Path | None) -> Path:
    for folder in (root / below for below in task.folders) if root else ():
        if folder.is_dir():
            return folder
    where = f"{root} has none of {', '.join(task.folders)}" if root else "BENCH_DATA is not set"
    fetch = f"run `bench download {task.name} --data FOLDER`, or name the folder that holds them"
    raise MissingDataError(f"The data of {task.name} are missing ({where}): {fetch}.")


def _unpack(task: type[MNIST], path: Path) -> bytes:
    try:
        packed = path.read_bytes()
        if hashlib.md5(packed, usedforsecurity=False).hexdigest() != task.md5[path.name]:
            raise UserError(f"The data file {path} is damaged or altered (its checksum differs): fetch it again.")
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"The data file {path} cannot be read ({error}): fetch it again.") from error
