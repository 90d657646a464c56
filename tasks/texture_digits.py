"""Handwritten digits on photographed textures, with a label for every pixel: the embedded segmentation task.

scikit-learn's digits are real, and so are scikit-image's brick, grass and gravel; what is made here is their meeting.
Digits and regions of the textures that train uses never occur in val or test.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Recipe, Split
from slimbench.tasks._segmentation import Segmentation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimbench.tasks._scenes import Scenes

    Array = NDArray[np.uint8]

_COUNT: dict[Split, int] = {"train": 240, "val": 60, "test": 180}
_ROWS: dict[Split, tuple[int, int]] = {"train": (0, 320), "val": (320, 416), "test": (416, 512)}  # of each texture
_TEXTURES = ("brick", "grass", "gravel")
_SIDE, _CELL, _ZOOM = 64, 32, 3  # pixels of a scene, of a quarter of it, and of one pixel of a digit
_INK = 6  # of 16: from here on a pixel is the digit's


@dataclass(frozen=True)
class TextureDigits(Segmentation):
    """Scenes (3, 64, 64) of one texture with three digits: 240 to train on, 60 to validate, 180 to test."""

    network: str = "fcn-resnet14"
    recipe: Recipe = Recipe(
        epochs=24, batch_size=8, optimizer="adamw", lr=1e-2, fine_tune_lr=4e-3, warmup=0.1, weight_decay=0.01
    )
    balanced: bool = True

    name: ClassVar[str] = "texture_digits"
    version: ClassVar[int] = 1
    class_names: ClassVar[tuple[str, ...]] = ("texture", *(str(digit) for digit in range(10)))
    size_px: ClassVar[tuple[int, int]] = (_SIDE, _SIDE)
    crop: ClassVar[tuple[int, int]] = (_SIDE, _SIDE)
    jitter: ClassVar[tuple[float, float]] = (0.8, 1.25)
    flip: ClassVar[bool] = False  # a mirrored digit is none
    content: ClassVar[str] = "701ec725535d0e7f7af5e693917da1683b370d5bc2a973aaabff2df3ec9cffdf"

    def load(self, split: Split) -> Scenes:
        """Images and label maps of a split."""
        return _splits()[split]

    def data_checksum(self) -> str:
        """The declared digest, which loading verifies."""
        return self.content


@functools.cache
def _splits() -> dict[Split, Scenes]:
    from slimbench.tasks import _images, _scenes

    made = {split: _compose(split) for split in _COUNT}
    what = "The scenes made of scikit-learn's digits and scikit-image's textures"
    _images.expect(what, TextureDigits.content, *(part for pair in made.values() for part in pair))
    return {split: _scenes.scenes(list(images), list(labels)) for split, (images, labels) in made.items()}


def _compose(split: Split) -> tuple[Array, Array]:
    """Images (N, 64, 64, 3) and labels (N, 64, 64): whole numbers throughout, so the same on every machine."""
    import numpy as np

    rng = np.random.RandomState(list(_COUNT).index(split))
    textures = [texture[slice(*_ROWS[split])] for texture in _textures()]
    inks, digits = _digits(split)
    images = np.empty((_COUNT[split], _SIDE, _SIDE, 3), np.uint8)
    labels = np.zeros((_COUNT[split], _SIDE, _SIDE), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:] = _ground(textures[rng.randint(len(textures))], rng)
        for cell in rng.permutation(4)[:3]:
            chosen = rng.randint(len(digits))
            ink = inks[chosen]
            place = _place(int(cell), len(ink), rng)
            colour = rng.randint(192, 256, 3)  # brighter than the ground: the shape, not the hunt for it, is the task
            image[place] = (image[place].astype(int) * (16 - ink[..., None]) + colour * ink[..., None]) // 16
            label[place][ink >= _INK] = digits[chosen] + 1
    return images, labels


def _textures() -> list[Array]:
    from skimage import data

    return [getattr(data, name)() for name in _TEXTURES]


def _digits(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ink of a split's digits, enlarged, 0 to 16 (N, 24, 24), and which they are, 0 to 9 (N,)."""
    import numpy as np

    from slimbench.tasks.digits import Digits

    source = Digits().load(split)
    levels = (source.pixels[:, 0].numpy().astype(np.int64) + 8) // 16  # 0 to 16, as scikit-learn has them
    return levels.repeat(_ZOOM, 1).repeat(_ZOOM, 2), source.labels.numpy()


def _ground(texture: Array, rng: np.random.RandomState) -> Array:
    """A square of a texture, tinted."""
    top, left = (rng.randint(side - _SIDE + 1) for side in texture.shape)
    tint = rng.randint(128, 256, 3)
    return (texture[top : top + _SIDE, left : left + _SIDE, None].astype(int) * tint // 255).astype("uint8")


def _place(cell: int, side: int, rng: np.random.RandomState) -> tuple[slice, slice]:
    """Where a digit goes: anywhere in one quarter of a scene."""
    top, left = (_CELL * at + rng.randint(_CELL - side + 1) for at in divmod(cell, 2))
    return slice(top, top + side), slice(left, left + side)
