"""Images of noise, and folders of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def fill(folder: Path, count: int, height: int = 40, width: int = 48) -> Path:
    """A folder of ``count`` images of noise, no two of them alike."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(noise(height, width, i)).save(folder / f"{i:02}.png")
    return folder
