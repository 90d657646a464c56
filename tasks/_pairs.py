"""Image files go in; pairs of high and low resolution, which is made where it is not given, come out."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from slimbench.core import UserError
from slimbench.tasks import _basicsr
from slimbench.tasks._pixels import Pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Pixel = NDArray[np.uint8]

_THREADS = 8  # PIL lets go of the interpreter while it decodes
_COMPARED_PX = 192  # at most, of each side of a given low resolution
_LEVELS = 4  # by how many of 255 its pixels may differ from ours on average
SSIM_WINDOW_PX = 11


@dataclass(frozen=True)
class File:
    """Where a pair lies: the image, its given low resolution if any, and the test set that it belongs to."""

    hr: Path
    lr: Path | None = None
    group: str = ""


@dataclass(frozen=True)
class Pairs:
    """Images of any sizes, high and low resolution side by side, and the test set of each ("" in train and val).

    Attributes:
        digest: sha256 of the decoded high-resolution images and of given low-resolution ones, in their order.
        files: by the sha256 of each decoded high-resolution image, where it lies.

    """

    hr: Pixels
    lr: Pixels
    groups: tuple[str, ...]
    digest: str
    files: dict[str, Path]


def read(files: Sequence[File], scale: int, least_px: int) -> Pairs:
    """Decode, crop to a multiple of ``scale`` and make the low resolution where it is not given.

    Raises: UserError for an image that cannot be used, or is smaller than ``least_px`` at low resolution.
    """
    _basicsr.basicsr()  # imported before the threads, which would import it side by side
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(lambda file: _pair(file, scale, least_px), files))
        each = pool.map(content_digest, [[high] for high, _ in parts])
    given = [part for file, pair in zip(files, parts, strict=True) for part in (pair if file.lr else pair[:1])]
    paths = {digest: file.hr for digest, file in zip(each, files, strict=True)}
    hr, lr = (Pixels.of(images) for images in zip(*parts, strict=True))
    return Pairs(hr, lr, tuple(file.group for file in files), content_digest(given), paths)


def content_digest(images: Iterable[Pixel]) -> str:
    """sha256 over the sides and pixels of images in their order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def crop(image: Pixel, scale: int) -> Pixel:
    """The upper left part whose sides are multiples of ``scale``."""
    height, width = (side // scale * scale for side in image.shape[:2])
    return image[:height, :width]


def decode(path: Path, *, grey: bool = False) -> Pixel:
    """RGB pixels (H, W, 3) of an image file; a palette is looked up, 8-bit grey repeated where ``grey`` is welcome.

    Grey so taken, as basicsr takes it, spans luma's 219 levels: its PSNR-Y is 1.3 dB above that of MATLAB codes, which
    compare the grey levels (one image of Set14).

    Raises: UserError where it cannot be read, has an alpha channel or more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            _refuse(path, image, {"RGB", "P", "L"} if grey else {"RGB", "P"})
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"The image {path} cannot be read ({error}): replace it or take it out.") from error


def _refuse(path: Path, image: Image.Image, modes: set[str]) -> None:
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        raise UserError(f"The image {path} has an alpha channel: save it without one, or take it out.")
    # PIL cuts 16-bit colour to 8 bits without a word: only the raw mode of its decoder tells
    raw = str(tiles[0][3]) if (tiles := getattr(image, "tile", None)) else ""
    if image.mode not in modes or ";16" in raw:
        raise UserError(f"The image {path} is not 8-bit RGB ({raw or image.mode}): convert it, or take it out.")


def _pair(file: File, scale: int, least_px: int) -> tuple[Pixel, Pixel]:
    high = crop(decode(file.hr, grey=bool(file.group)), scale)
    if min(high.shape[:2]) < least_px * scale:
        height, width = high.shape[:2]
        raise UserError(
            f"The image {file.hr} has {width} x {height} pixels, but {least_px * scale} each way are needed here: "
            "use a smaller patch, or take it out."
        )
    low = decode(file.lr, grey=bool(file.group)) if file.lr else _shrunk(high, scale)
    if tuple(side * scale for side in low.shape[:2]) != high.shape[:2]:
        raise UserError(f"{file.lr} is not {file.hr} at 1/{scale} of its size: fetch both again.")
    if file.lr and (off := _difference(high, low, scale)) > _LEVELS:
        raise UserError(
            f"{file.lr} is not {file.hr} made smaller (their pixels differ by {off:.0f} of 255 on average): "
            "fetch both again."
        )
    return high, low


def _difference(high: Pixel, low: Pixel, scale: int) -> float:
    """Mean absolute difference of a low resolution from ours, over its middle: all of a large image takes long."""
    top, left = (max(0, side - _COMPARED_PX) // 2 for side in low.shape[:2])
    bottom, right = top + _COMPARED_PX, left + _COMPARED_PX
    ours = _shrunk(high[top * scale : bottom * scale, left * scale : right * scale], scale)
    return float(np.abs(ours.astype(float) - low[top:bottom, left:right]).mean())


def _shrunk(image: Pixel, scale: int) -> Pixel:
    return _basicsr.shrink(torch.from_numpy(np.ascontiguousarray(image)), scale).numpy()
