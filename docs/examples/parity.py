"""A task in one file: is a handwritten digit odd?"""

import functools
from dataclasses import dataclass
from typing import ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks import _images
from slimbench.tasks._classification import Classification


@dataclass(frozen=True)
class Parity(Classification):
    """Images (1, 8, 8) of two classes: 1,200 to train on, 197 to validate, 400 to test."""

    network: str = "resnet8"
    recipe: Recipe = Recipe(epochs=4, batch_size=64, lr=0.05)

    name: ClassVar[str] = "parity"
    version: ClassVar[int] = 1  # raise it when a change moves results
    channels: ClassVar[int] = 1
    size_px: ClassVar[int] = 8
    n_classes: ClassVar[int] = 2
    mean: ClassVar[tuple[float, ...]] = (0.305,)
    std: ClassVar[tuple[float, ...]] = (0.376,)
    pad: ClassVar[int] = 1
    content: ClassVar[str] = (
        "099c22f0ade572c91ab2bab968932216f86920d123dccfd0b77d7db0776d98d3"  # sha256 of pixels, then labels
    )

    def load(self, split: Split) -> _images.Images:
        """Images and labels of a split."""
        return _splits()[split]


@functools.cache
def _splits() -> dict[Split, _images.Images]:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * 15.9375).round().astype(np.uint8)  # (N, 8, 8); three channels would be (N, H, W, 3)
    labels = (digits.target % 2).astype(np.uint8)
    _images.expect("The copy of scikit-learn's digits", Parity.content, pixels, labels)
    every = _images.images(pixels, labels)
    rest, test = _images.split_off(len(labels), 400)
    train, val = _images.split_off(len(rest), 197)
    return {"train": every.part(rest[train]), "val": every.part(rest[val]), "test": every.part(test)}
