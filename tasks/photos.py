"""Photographs that scikit-image and scikit-learn bring along: the embedded super-resolution task."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Recipe, Split, UserError
from slimbench.tasks._super_resolution import RECIPE, SuperResolution

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._pairs import Pairs


@dataclass(frozen=True)
class Photos(SuperResolution):
    """Four photographs to train on, one to validate, two to test: no photograph in two splits.

    Bicubic enlargement has 29.80 dB PSNR-Y on test at scale 2.
    """

    network: str = "edsr-tiny"
    recipe: Recipe = replace(RECIPE, epochs=7, batch_size=8, lr=3e-3, fine_tune_lr=1e-3, warmup=0.1)
    patch: int = 16

    name: ClassVar[str] = "photos"
    version: ClassVar[int] = 1
    size_px: ClassVar[int] = 24
    files: ClassVar[dict[Split, tuple[str, ...]]] = {
        "train": ("skimage/astronaut.png", "skimage/coffee.png", "sklearn/flower.jpg", "skimage/motorcycle_left.png"),
        "val": ("skimage/rocket.jpg",),
        "test": ("skimage/chelsea.png", "sklearn/china.jpg"),
    }
    # of the files, as decoders of JPEG may differ by a level
    content: ClassVar[str] = "dd9b4b18e8d464b234423f6e5e1e94e0f07a33b66851446ad371c1d6c255801f"

    def load(self, split: Split) -> Pairs:
        """The split's photographs, at both resolutions."""
        return _splits(self.scale, self.patch)[split]

    def data_checksum(self) -> str:
        """The declared digest; ``load`` verifies it."""
        return self.content


@functools.cache
def _splits(scale: int, patch: int) -> dict[Split, Pairs]:
    """Every split. Raises: UserError where a file is another than the declared one."""
    import hashlib

    from slimbench.tasks import _pairs

    paths = {split: [_path(name) for name in names] for split, names in Photos.files.items()}
    found = hashlib.sha256()
    for path in (path for part in paths.values() for path in part):
        found.update(path.read_bytes())
    if found.hexdigest() != Photos.content:
        raise UserError("The photographs of scikit-image or scikit-learn are other ones: install both again.")
    splits: dict[Split, Pairs] = {}
    for split, part in paths.items():
        group = Photos.name if split == "test" else ""
        splits[split] = _pairs.read([_pairs.File(path, group=group) for path in part], scale, 1 if group else patch)
    return splits


def _path(name: str) -> Path:
    """Where a photograph lies inside its package's folder: nothing is fetched. Raises: UserError where it is not."""
    import importlib.util
    from pathlib import Path

    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    below = {"skimage": "data", "sklearn": "datasets/images"}[package]
    path = Path(str(spec and spec.origin)).parent / below / file
    if not path.is_file():
        raise UserError(f"The photograph {path} is missing: install {package} again.")
    return path
