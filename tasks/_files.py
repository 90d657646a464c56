"""Image files in class folders: lists of files in, decoded, cropped and normalised batches out."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Generator, Tensor

from slimbench.core import Batch, MissingDataError, Split, UserError

if TYPE_CHECKING:
    from pathlib import Path

Files = tuple[tuple["Path", int], ...]
Scaling = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel, of values in [0, 1]
_THREADS = 8  # PIL lets go of the interpreter while it decodes


@functools.cache
def split(root: Path | None, wanted: Split, classes: int, held_a_class: int, images: int | None = None) -> Files:
    """Files and labels of a split; ``held_a_class`` training images a class, fixed for all seeds, are val.

    Raises: UserError where folders or images are missing, or of another number than ``classes`` and ``images``.
    """
    if root is None:
        raise MissingDataError(
            "The data of imagenet are missing (BENCH_DATA is not set): name the folder that holds imagenet/."
        )
    official = root / "imagenet" / ("val" if wanted == "test" else "train")
    if not official.is_dir():
        raise MissingDataError(
            f"The data of imagenet are missing ({official} does not exist): `bench download imagenet`."
        )
    folders = sorted(path for path in official.glob("*") if path.is_dir())
    if len(folders) != classes:
        raise UserError(
            f"{official} holds {len(folders)} class folders, not {classes}: `bench download imagenet --data {root}`."
        )
    found: list[tuple[Path, int]] = []
    whole = 0
    for label, folder in enumerate(folders):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpeg", ".jpg", ".png"})
        whole += len(files)
        if wanted != "test":
            order = np.random.RandomState(label).permutation(len(files))
            chosen = order[:held_a_class] if wanted == "val" else order[held_a_class:]
            files = [files[i] for i in sorted(chosen)]
        found += [(path, label) for path in files]
    if images is not None and whole != images:
        raise UserError(f"{official} holds {whole:,} images, not {images:,}: fetch the data again.")
    if not found:
        raise UserError(f"{official} holds no images for the {wanted} split: fetch the data again.")
    return tuple(found)


def batch(files: Files, indices: Tensor, rng: Generator | None, size: int, scaling: Scaling) -> Batch:
    """Decoded images (N, 3, size, size), channels last: random resized crops and mirrors where ``rng`` is given."""
    chosen = [files[int(i)] for i in indices]
    draws = torch.rand(len(chosen), 5, generator=rng).tolist() if rng is not None else [None] * len(chosen)
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(lambda job: _decode(job[0][0], job[1], size), zip(chosen, draws, strict=True)))
    pixels = torch.from_numpy(np.stack(parts)).to(indices.device).permute(0, 3, 1, 2).float()
    m, s = (torch.tensor(v, device=pixels.device)[:, None, None] * 255 for v in scaling)
    return (pixels - m) / s, torch.tensor([label for _, label in chosen], device=indices.device)


def _decode(path: Path, draws: list[float] | None, size: int) -> np.ndarray:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"The image {path} cannot be read ({error}): fetch it again.") from error
    if draws is None:
        return np.asarray(_centre_crop(image, size))
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=resized_crop(image.size, draws))
    return np.asarray(image)[:, :: -1 if draws[4] < 0.5 else 1]


def resized_crop(image: tuple[int, int], draws: list[float]) -> tuple[float, float, float, float]:
    """Box (left, top, right, bottom) of 8 to 100 % of the area, aspect 3/4 to 4/3, as in Inception's recipe."""
    width, height = image
    area = width * height * (0.08 + 0.92 * draws[0])
    aspect = math.exp(math.log(3 / 4) + draws[1] * math.log(16 / 9))
    w, h = min(width, math.sqrt(area * aspect)), min(height, math.sqrt(area / aspect))
    left, top = draws[2] * (width - w), draws[3] * (height - h)
    return left, top, left + w, top + h


def _centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The shorter side resized to 8/7 of ``size`` (256 for 224), then the middle."""
    scale = size * 8 / 7 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))
