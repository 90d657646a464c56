"""DIV2K and folders of images to learn super resolution from; tested on Set5, Set14, B100 and any other folders."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import MissingDataError, Recipe, Split, UserError
from slimbench.environment import data_root
from slimbench.tasks._super_resolution import RECIPE, SuperResolution

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._pairs import File, Pairs

_HELD = 10
_TWINS = {"t36", "t65"}  # one picture of T91, which its authors have twice: docs/tasks.md
_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/{}.zip"


@dataclass(frozen=True)
class Folders(SuperResolution):
    """What both tasks share: test sets by name or folder.

    Attributes:
        test_sets: "set5", "set14", "b100", "urban100", or folders of images, absolute or below BENCH_DATA.

    """

    test_sets: tuple[str, ...] = ("set5", "set14", "b100")

    def __post_init__(self) -> None:
        """Refuse no test set, and one twice."""
        super().__post_init__()
        object.__setattr__(self, "test_sets", tuple(self.test_sets))  # a list would have no hash
        if not self.test_sets or len(set(self.test_sets)) < len(self.test_sets):
            raise UserError(f"test_sets={list(self.test_sets)} is impossible: name at least one, and none twice.")

    @property
    def sets(self) -> tuple[str, ...]:
        """The test sets as they were named."""
        return self.test_sets

    def load(self, split: Split) -> Pairs:
        """The split's images."""
        return _load(self, data_root(), split)

    def unusual(self) -> str:
        """Which known sets have more or fewer images than usual: means over them are not those of papers."""
        from slimbench.tasks import _image_folders

        return _image_folders.unusual({name: _image_folders.test_set(name, data_root()) for name in self.test_sets})

    def files(self, split: Split, root: Path | None) -> tuple[File, ...]:
        """The files of train or val."""
        raise TypeError(f"{type(self).__name__} must say where its images lie")


@dataclass(frozen=True)
class DIV2K(Folders):
    """800 images to train on, the first ten of the official validation set to validate.

    The official low resolution is used where it is there. The images take about 9 GB of memory.
    """

    name: ClassVar[str] = "div2k"
    version: ClassVar[int] = 1
    places: ClassVar[tuple[str, ...]] = ("DIV2K", "super_resolution/DIV2K", "")
    images: ClassVar[dict[str, int]] = {"train": 800, "valid": 100}

    def files(self, split: Split, root: Path | None) -> tuple[File, ...]:
        """The files of train or val."""
        from slimbench.tasks import _image_folders

        official = "train" if split == "train" else "valid"
        place = next((p for p in self.places if root and (root / p / f"DIV2K_{official}_HR").is_dir()), None)
        if root is None or place is None:
            where = f"{root} has no DIV2K_{official}_HR" if root else "BENCH_DATA is not set"
            fetch = f"run `bench download {self.name} --data FOLDER`, or name the folder that holds them"
            raise MissingDataError(f"The data of {self.name} are missing ({where}): {fetch}.")
        folder, count = root / place / f"DIV2K_{official}_HR", self.images[official]
        found = _image_folders.images(folder)
        if len(found) != count:
            raise UserError(f"{folder} holds {len(found)} images, not {count}: fetch them again.")
        small = root / place / f"DIV2K_{official}_LR_bicubic" / f"X{self.scale}"
        return _with_low(found if split == "train" else found[:_HELD], small, self.scale, "")

    def download(self, root: Path) -> None:
        """Fetch the official archives, both sets at high resolution and at this task's scale, with torchvision."""
        from slimbench.tasks._torchvision import torchvision

        fetch = torchvision().datasets.utils.download_and_extract_archive
        for official in ("train", "valid"):
            for part in ("HR", f"LR_bicubic_X{self.scale}"):
                fetch(_URL.format(f"DIV2K_{official}_{part}"), str(root), str(root / "DIV2K"), remove_finished=True)


@dataclass(frozen=True)
class T91(Folders):
    """The 91 images of Yang et al. and the training images of BSDS500, or any folders of images.

    Ten images, fixed for all seeds, are held out to validate. Low resolution is made here.

    Attributes:
        folders: absolute, or below BENCH_DATA.

    """

    recipe: Recipe = RECIPE
    patch: int = 18  # the smallest image of T91 is 78 pixels wide: 19 at scale 4
    folders: tuple[str, ...] = ("T91", "BSDS500/train")

    name: ClassVar[str] = "t91"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse no folder, and one twice."""
        super().__post_init__()
        object.__setattr__(self, "folders", tuple(self.folders))
        if not self.folders or len(set(self.folders)) < len(self.folders):
            raise UserError(f"folders={list(self.folders)} is impossible: name at least one, and none twice.")

    def download(self, root: Path) -> None:
        """Raises: UserError: nobody serves these images officially."""
        raise UserError(f"T91 and BSDS500 have no official archive: put T91/ and BSDS500/train/ into {root}.")

    def unusual(self) -> str:
        """Of the folders to learn from too."""
        from slimbench.tasks import _image_folders

        learnt = {name: _image_folders.folder(name, data_root(), self.name) for name in self.folders}
        return "; ".join(filter(None, (super().unusual(), _image_folders.unusual(learnt))))

    def files(self, split: Split, root: Path | None) -> tuple[File, ...]:
        """The files of train or val."""
        from slimbench.tasks import _image_folders, _images
        from slimbench.tasks._pairs import File

        places = [_image_folders.folder(name, root, self.name) for name in self.folders]
        if len({place.resolve() for place in places}) < len(places):
            raise UserError(f"folders={list(self.folders)} names one folder twice: its images would be in two splits.")
        every = [File(path) for place in places for path in _image_folders.images(place)]
        if len(every) <= _HELD:
            raise UserError(f"The folders of {self.name} hold {len(every)} images: give more than the {_HELD} of val.")
        rest, held = _images.split_off(len(every), _HELD)
        return tuple(every[i] for i in (rest if split == "train" else held))


@functools.cache
def _load(task: Folders, root: Path | None, split: Split) -> Pairs:
    tests = _test_files(task.test_sets, root, task.scale)
    if split == "test":
        return _read(tests, task.scale, 1, True)
    made = _read(task.files(split, root), task.scale, task.patch, split == "val")
    _apart(made, _read(tests, task.scale, 1, True), "tested on")
    if split == "train":
        _apart(made, _load(task, root, "val"), "validated on")
    return made


def _apart(learnt: Pairs, others: Pairs, what: str) -> None:
    """Raises: UserError where an image is in both, by its pixels: a copy may have another name and format."""
    both = [(learnt.files[digest], others.files[digest]) for digest in learnt.files.keys() & others.files.keys()]
    wrong = [pair for pair in both if {path.stem for path in pair} != _TWINS]
    if wrong:
        mine, theirs = min(wrong)
        raise UserError(
            f"{mine} would be learnt from and {what} ({theirs} has the same pixels): take one of them out, "
            "or its folder."
        )


def _test_files(names: tuple[str, ...], root: Path | None, scale: int) -> tuple[File, ...]:
    from slimbench.tasks import _image_folders

    found: tuple[File, ...] = ()
    for name in names:
        place = _image_folders.test_set(name, root)
        found += _with_low(_image_folders.images(place), _image_folders.low_folder(place, scale), scale, name)
    return found


def _with_low(paths: list[Path], small: Path | None, scale: int, group: str) -> tuple[File, ...]:
    """The images, each with the one of ``small`` that belongs to it; where that folder is not there, with none."""
    from slimbench.tasks import _image_folders
    from slimbench.tasks._pairs import File

    given = small if small and small.is_dir() else None
    return tuple(File(path, _image_folders.low(path, given, scale) if given else None, group) for path in paths)


@functools.cache
def _read(files: tuple[File, ...], scale: int, patch: int, is_scored: bool) -> Pairs:
    from slimbench.tasks import _pairs

    # SSIM's window must fit between the cropped borders of images that are scored
    window = -(-_pairs.SSIM_WINDOW_PX // scale) + 2 if is_scored else 1
    return _pairs.read(files, scale, max(patch, window))
