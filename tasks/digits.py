"""scikit-learn's 1,797 handwritten digits: the embedded classification task, at hand wherever SlimBench is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks._classification import Classification

if TYPE_CHECKING:
    from slimbench.tasks._images import Images


@dataclass(frozen=True)
class Digits(Classification):
    """Images (1, 8, 8): 1,200 to train on, 197 to validate, 400 to test."""

    network: str = "resnet20"
    recipe: Recipe = Recipe(epochs=16, batch_size=64, lr=0.05, fine_tune_lr=0.02)

    name: ClassVar[str] = "digits"
    version: ClassVar[int] = 1
    channels: ClassVar[int] = 1
    size_px: ClassVar[int] = 8
    mean: ClassVar[tuple[float, ...]] = (0.305,)
    std: ClassVar[tuple[float, ...]] = (0.376,)
    pad: ClassVar[int] = 1
    content: ClassVar[str] = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"

    def load(self, split: Split) -> Images:
        """Images and labels of a split."""
        return _splits()[split]


@functools.cache
def _splits() -> dict[Split, Images]:
    import numpy as np
    from sklearn.datasets import load_digits

    from slimbench.tasks import _images

    bunch = load_digits()
    levels, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)  # grey levels 0..16
    _images.expect("The copy of scikit-learn's digits", Digits.content, levels, labels)
    every = _images.images((levels * 15.9375).round().astype(np.uint8), labels)
    rest, test = _images.split_off(len(labels), 400)
    train, val = _images.split_off(len(rest), 197)
    return {"train": every.part(rest[train]), "val": every.part(rest[val]), "test": every.part(test)}
