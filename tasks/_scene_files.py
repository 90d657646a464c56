"""Folders go in; a dataset of mmsegmentation's over them comes out, which lists and decodes and does nothing else."""

from __future__ import annotations

import hashlib
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench.artifact import sha256
from slimbench.core import MissingDataError, UserError
from slimbench.tasks._images import split_off
from slimbench.tasks._mmseg import mmseg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PIPELINE = (
    {"type": "LoadImageFromFile", "color_type": "unchanged", "imdecode_backend": "pillow"},
    {"type": "LoadAnnotations", "imdecode_backend": "pillow"},
)


@dataclass(frozen=True)
class Layout:
    """Where the images and label maps of a split lie below ``base``, and how their names end.

    ``listing``: a file that names the samples, one a line; "": every image in the folder.
    """

    base: str
    images: str
    labels: str
    image_suffix: str
    label_suffix: str = ".png"
    listing: str = ""


@dataclass(frozen=True)
class Source:
    """Data that a task reads: mmsegmentation's class for them, where they may lie, and where they are to be had.

    ``images``: how many there are officially; None: as many as the listing names.
    """

    task: str
    kind: str
    layouts: Sequence[Layout]
    class_names: Sequence[str]
    where: str
    images: int | None = None


def dataset(source: Source, root: Path | None) -> Any:
    """The dataset over the first layout whose folders are there.

    Raises: MissingDataError where none is; UserError where it is empty, or a file is missing or too many.
    """
    task, layout = source.task, _present(source, root)
    assert root is not None
    base = root / layout.base
    if not any((base / layout.images).rglob(f"*{layout.image_suffix}")):
        raise UserError(f"The folder {base / layout.images} holds no image of {task}: fetch the data again.")
    silent = logging.getLogger("mmengine")
    level, silent.level = silent.level, logging.ERROR
    try:
        made = getattr(mmseg("datasets"), source.kind)(
            data_root=str(base),
            data_prefix={"img_path": layout.images, "seg_map_path": layout.labels},
            ann_file=layout.listing,
            img_suffix=layout.image_suffix,
            seg_map_suffix=layout.label_suffix,
            metainfo={"classes": tuple(source.class_names)},
            pipeline=list(_PIPELINE),
            reduce_zero_label=False,
        )
    except (OSError, ValueError, AssertionError) as error:  # mmsegmentation asserts that the listing is there
        what = f"its listing {layout.listing}" if layout.listing else "its folders"
        why = str(error) or "missing"
        raise UserError(f"The {task} data in {base} cannot be listed ({what}: {why}): fetch them again.") from error
    finally:
        silent.level = level
    for path in (path for pair in paths(made) for path in pair):
        if not path.is_file():
            raise UserError(f"The data file {path} of {task} is missing: fetch the data again.")
    if not layout.listing:
        alone = set((base / layout.labels).rglob(f"*{layout.label_suffix}")) - {label for _, label in paths(made)}
        if alone:
            raise UserError(f"The label map {min(alone)} of {task} has no image: fetch the data again.")
    if source.images is not None and len(made) != source.images:
        folder = base / layout.images
        raise UserError(f"{folder} holds {len(made):,} images of {task}, not {source.images:,}: fetch the data again.")
    return made


def _present(source: Source, root: Path | None) -> Layout:
    missing = f"The data of {source.task} are missing"
    if root is None:
        raise MissingDataError(f"{missing} (BENCH_DATA is not set): {source.where}.")
    for layout in source.layouts:
        base = root / layout.base
        if (base / layout.images).is_dir() and (base / layout.labels).is_dir():
            return layout
    first = source.layouts[0]
    raise MissingDataError(
        f"{missing} ({root} has no {first.base}/{first.images} with {first.base}/{first.labels}): {source.where}."
    )


def paths(made: Any) -> list[tuple[Path, Path]]:
    """Image and label map of each sample."""
    infos = (made.get_data_info(index) for index in range(len(made)))
    return [(Path(info["img_path"]), Path(info["seg_map_path"])) for info in infos]


def apart(splits: Mapping[str, Any]) -> None:
    """Raises: UserError where two splits hold an image of one name."""
    for (one, these), (other, those) in itertools.combinations(splits.items(), 2):
        both = {image.stem for image, _ in paths(these)} & {image.stem for image, _ in paths(those)}
        if both:
            raise UserError(f"The image {min(both)} is in both {one} and {other}: take it out of the former.")


def part(split: str, made: Any, test: Any, held: int) -> list[int]:
    """Which samples of the official training list are train and which, ``held`` of them, val.

    Raises: UserError where the list shares an image with ``test``, or is too short.
    """
    apart({"train": made, "test": test})
    if len(made) <= held:
        raise UserError(f"The training list has {len(made)} images: give more than the {held} that validate.")
    rest, kept = split_off(len(made), held)
    return (rest if split == "train" else kept).tolist()


def digest(splits: Mapping[str, Any]) -> str:
    """sha256 over split, name and content of every file: the same whatever folder they lie in."""
    found = hashlib.sha256()
    for split, made in splits.items():
        for image, label in paths(made):
            found.update(f"{split} {image.stem} {sha256(image)} {sha256(label)}\n".encode())
    return found.hexdigest()
