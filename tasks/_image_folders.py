"""Names of test sets and folders go in; the image files in them, with given low resolution beside, come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimbench.core import MissingDataError, UserError
from slimbench.discover import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_ABOVE = ("", "super_resolution", "benchmark")  # folders below BENCH_DATA that data sets lie in
TEST_SETS = {
    "set5": ("Set5/HR", "Set5/GTmod12", "Set5"),
    "set14": ("Set14/HR", "Set14/GTmod12", "Set14"),
    # the validation images of BSDS500 are B100, bit for bit
    "b100": ("B100/HR", "BSD100/HR", "BSDS100/HR", "B100", "BSD100", "BSDS100", "BSDS500/val"),
    "urban100": ("Urban100/HR", "Urban100"),
}
# how many images a set usually has, which papers' means are over
USUAL = {"set5": 5, "set14": 14, "b100": 100, "urban100": 100, "T91": 91, "BSDS500/train": 200}
# names of folders beside "HR" or "GTmod12", and of the files in them
_LOW_FOLDERS = ("LR_bicubic_x{}", "LR_bicubic/X{}", "LRbicx{}")
_LOW_NAMES = ("{}.png", "{}x{}.png")


def test_set(name: str, root: Path | None) -> Path:
    """The folder of a known test set, or the folder that ``name`` is.

    Raises: MissingDataError where a known set, or a named folder, is nowhere; UserError for any other name.
    """
    found = _first(TEST_SETS.get(name, (name,)), root)
    if found:
        return found
    if name in TEST_SETS:
        looked = f"{root} has no {', '.join(TEST_SETS[name])} with images" if root else "BENCH_DATA is not set"
        raise MissingDataError(f"The test set {name!r} is missing ({looked}): fetch it, or leave it out of test_sets.")
    raise UserError(
        f"The test set {name!r} is neither a folder with images nor known{suggestion(name, TEST_SETS)}: give a folder, "
        f"also below BENCH_DATA, or one of {', '.join(TEST_SETS)}."
    )


def folder(name: str, root: Path | None, task: str) -> Path:
    """A folder of images, absolute or below BENCH_DATA. Raises: MissingDataError."""
    if found := _first((name,), root):
        return found
    looked = f"no images in {name} below {root}" if root else "BENCH_DATA is not set"
    raise MissingDataError(f"The data of {task} are missing ({looked}): give the folder that holds the images.")


def unusual(places: Mapping[str, Path]) -> str:
    """How many images each known set has that usually has more or fewer; "" where there is none."""
    counts = {name: len(images(place)) for name, place in places.items() if name in USUAL}
    said = (f"{name}: {n} images, {USUAL[name]} are usual" for name, n in counts.items() if n != USUAL[name])
    return "; ".join(said)


def images(place: Path) -> list[Path]:
    """Image files directly in a folder, by name; none where there is no folder."""
    return sorted(path for path in place.glob("*") if path.suffix.lower() in _SUFFIXES)


def low_folder(place: Path, scale: int) -> Path | None:
    """The folder of low-resolution images that belongs to a test set's folder, if any."""
    if place.name not in {"HR", "GTmod12"}:
        return None
    candidates = (place.parent / name.format(scale) for name in _LOW_FOLDERS)
    return next((path for path in candidates if images(path)), None)


def low(path: Path, among: Path, scale: int) -> Path:
    """The low-resolution file of an image. Raises: UserError where it is missing."""
    candidates = [among / name.format(path.stem, scale) for name in _LOW_NAMES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    names = " or ".join(candidate.name for candidate in candidates)
    raise UserError(f"{among} has no {names} for {path}: fetch the images again, or take that folder away.")


def _first(names: Sequence[str], root: Path | None) -> Path | None:
    return next((path for path in _candidates(names, root) if images(path)), None)


def _candidates(names: Sequence[str], root: Path | None) -> Iterator[Path]:
    from pathlib import Path

    for name in names:
        if root is not None:
            yield from (root / above / name for above in _ABOVE)  # of an absolute name, the name itself
        elif Path(name).is_absolute():
            yield Path(name)
