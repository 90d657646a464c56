"""Data of super resolution: found where they usually lie, always held out alike, and named where they are no use."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from images import fill, noise
from slimbench import checking, environment
from slimbench.core import MissingDataError, UserError
from slimbench.tasks import _image_folders, _images, _pairs, div2k, photos
from slimbench.tasks._super_resolution import SuperResolution
from slimbench.tasks.div2k import DIV2K, T91
from slimbench.tasks.photos import Photos

if TYPE_CHECKING:
    from pathlib import Path

LOADERS = (div2k._load, div2k._read, photos._splits)


# -------------------------------------------------------------------------------------------------------------- layouts


def test_held_out_images_are_fixed(root):
    """Those of ``split_off``, over all folders in their order."""
    fill(root / "super_resolution" / "T91", 8)
    fill(root / "other", 5)
    fill(root / "Set5", 1)
    task = T91(folders=("T91", str(root / "other")), test_sets=("set5",), patch=8)
    paths = [*_image_folders.images(root / "super_resolution" / "T91"), *_image_folders.images(root / "other")]
    rest, held = _images.split_off(13, 10)
    assert [file.hr for file in task.files("train", root)] == [paths[i] for i in rest]
    assert [file.hr for file in task.files("val", root)] == [paths[i] for i in held]


@pytest.mark.parametrize("below", ["", "super_resolution", "benchmark"])
@pytest.mark.parametrize(("name", "place"), [(n, p) for n, places in _image_folders.TEST_SETS.items() for p in places])
def test_known_test_sets_are_found(root, below, name, place):
    """In each place that they usually lie in."""
    folder = fill(root / below / place, 1, 8, 8)
    assert _image_folders.test_set(name, root) == folder


@pytest.mark.parametrize(
    ("hr", "low", "name"),
    [("HR", "LR_bicubic_x2", "{}.png"), ("HR", "LR_bicubic/X2", "{}x2.png"), ("GTmod12", "LRbicx2", "{}.png")],
)
def test_given_low_resolution_is_used(root, task, hr, low, name):
    """And decides the checksum; a file of it that is missing, of another size or another image, is named."""
    made = task.data_checksum()
    given = root / "Set5" / low
    given.mkdir(parents=True)
    (root / "Set5" / "HR").rename(root / "Set5" / hr)
    for path in _image_folders.images(root / "Set5" / hr):
        Image.fromarray(shrunk(path) ^ 1).save(given / name.format(path.stem))
    div2k._load.cache_clear()
    source = task.load("test")
    first = given / name.format("00")
    assert torch.equal(source.lr.image(0), torch.from_numpy(_pairs.decode(first)).permute(2, 0, 1))
    assert task.data_checksum() != made
    right = _pairs.decode(first)
    for wrong in (255 - right, _pairs.decode(given / name.format("01"))):
        Image.fromarray(wrong).save(first)
        div2k._load.cache_clear()
        div2k._read.cache_clear()
        with pytest.raises(UserError, match=f"{first} is not .*00.png made smaller .their pixels differ by"):
            task.load("test")
    Image.fromarray(noise(20, 20)).save(first)
    div2k._load.cache_clear()
    div2k._read.cache_clear()
    with pytest.raises(UserError, match=f"{first} is not .*00.png at 1/2 of its size"):
        task.load("test")
    first.unlink()
    div2k._load.cache_clear()
    with pytest.raises(UserError, match=rf"{given} has no 00.png or 00x2.png"):
        task.load("test")


def shrunk(path: Path) -> np.ndarray:
    return _pairs._shrunk(_pairs.crop(_pairs.decode(path), 2), 2)


def test_the_middle_of_large_images_is_compared(tmp_path, monkeypatch):
    """With that of the given low resolution: where it is right, nothing differs but the cut edges."""
    path = fill(tmp_path / "one", 1, 90, 110) / "00.png"
    high, low = _pairs.decode(path), shrunk(path)
    assert _pairs._difference(high, low, 2) == 0
    monkeypatch.setattr(_pairs, "_COMPARED_PX", 30)
    assert 0 < _pairs._difference(high, low, 2) < 4
    assert _pairs._difference(high, np.roll(low, 1, 0), 2) > 20


def test_the_checksum_is_of_the_content(root, task):
    """Another folder and another file format, the same pixels: the same. One pixel: another."""
    before = task.data_checksum()
    (root / "super_resolution").mkdir()
    (root / "T91").rename(root / "super_resolution" / "T91")
    first = root / "super_resolution" / "T91" / "00.png"
    pixels = _pairs.decode(first)
    first.unlink()
    Image.fromarray(pixels).save(first.with_suffix(".webp"), lossless=True)
    div2k._load.cache_clear()
    assert task.data_checksum() == before
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(first.with_suffix(".webp"), lossless=True)
    div2k._load.cache_clear()
    div2k._read.cache_clear()
    assert task.data_checksum() != before


@pytest.mark.parametrize("below", ["DIV2K", "super_resolution/DIV2K", ""])
@pytest.mark.parametrize("low", [True, False])
def test_div2k(root, monkeypatch, below, low):
    """All of the official training set, the first ten of the validation set, with official low resolution if there."""
    assert DIV2K.images == {"train": 800, "valid": 100}
    monkeypatch.setattr(DIV2K, "images", {"train": 2, "valid": 12})
    for official, count, width in (("train", 2, 40), ("valid", 12, 42)):
        folder = fill(root / below / f"DIV2K_{official}_HR", count, 40, width)
        small = root / below / f"DIV2K_{official}_LR_bicubic" / "X2"
        if low:
            small.mkdir(parents=True)
            for path in _image_folders.images(folder):
                Image.fromarray(shrunk(path) ^ 1).save(small / f"{path.stem}x2.png")
    fill(root / "Set5", 1, 40, 44)
    task = DIV2K(test_sets=("set5",), patch=10)
    task.check()
    assert {split: len(task.load(split).groups) for split in ("train", "val", "test")} == {
        "train": 2,
        "val": 10,
        "test": 1,
    }
    first = shrunk(root / below / "DIV2K_valid_HR/00.png") ^ low
    assert np.array_equal(task.load("val").lr.image(0).permute(1, 2, 0).numpy(), first)
    assert (task.size("train"), task.size("val")) == (8, 40)
    (root / below / "DIV2K_valid_HR/11.png").unlink()
    div2k._load.cache_clear()
    with pytest.raises(UserError, match="DIV2K_valid_HR holds 11 images, not 12"):
        task.load("val")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Photos(scale=5), "scale=5 is impossible: use 2, 3 or 4"),
        (lambda: Photos(patch=0), "patch=0 is impossible"),
        (lambda: T91(network="rlfn", patch=14), "patch=14 is too small for rlfn: give at least 15"),
        (lambda: T91(test_sets=()), "test_sets=.* is impossible: name at least one"),
        (lambda: T91(test_sets=("set5", "set5")), "none twice"),
        (lambda: T91(folders=()), "folders=.* is impossible"),
        (lambda: T91(folders=("a", "a")), "none twice"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    """One sentence each."""
    with pytest.raises(UserError, match=message):
        make()


def test_lists_are_taken_for_tuples():
    """As they come from the command line."""
    assert hash(T91(test_sets=["set5"], folders=["T91"])) == hash(T91(test_sets=("set5",), folders=("T91",)))


def saved(mode: str, **options: object):
    return lambda path: Image.fromarray(noise(40, 48)).convert(mode).save(path, "PNG", **options)


def deep(path: Path) -> None:
    """A 16-bit colour PNG, which PIL would cut to 8 bits."""
    import cv2

    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 65536, (40, 48, 3)).astype(np.uint16))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (saved("RGBA"), "has an alpha channel"),
        (saved("LA"), "has an alpha channel"),
        (saved("P", transparency=0), "has an alpha channel"),
        (lambda path: Image.fromarray(np.zeros((40, 48), np.uint16)).save(path), "is not 8-bit RGB"),
        (deep, "is not 8-bit RGB .RGB;16B"),
        (saved("1"), "is not 8-bit RGB"),
        (saved("L"), "is not 8-bit RGB .L."),
        (lambda path: path.write_bytes(b"no image"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "cannot be read"),
        (lambda path: Image.fromarray(noise(15, 48)).save(path), "has 48 x 14 pixels, but 16 each way"),
    ],
    ids=[
        "rgba",
        "la",
        "transparent palette",
        "16 bits",
        "16-bit colour",
        "bilevel",
        "grey",
        "no image",
        "cut",
        "small",
    ],
)
def test_images_that_cannot_be_used_are_named(root, task, harm, message):
    """The file and what to do."""
    (path,) = [file.hr for file in task.files("train", root)][:1]
    harm(path)
    with pytest.raises(UserError, match=f"{path} .*{message}"):
        task.load("train")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palettes_become_rgb(tmp_path, mode):
    """Grey is repeated where it is welcome: Set14, which is only tested on, holds such images."""
    path = tmp_path / "image.png"
    saved(mode)(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(_pairs.decode(path, grey=True), expected)
    assert mode == "P" or (expected[..., 0] == expected[..., 2]).all()


def test_images_too_small_to_be_scored_are_named(root, task):
    """SSIM's window has 11 pixels, between borders of two."""
    fill(root / "tiny", 1, 15, 40)
    with pytest.raises(UserError, match="has 40 x 14 pixels, but 16 each way"):
        replace(task, test_sets=("tiny",)).load("test")


def test_what_is_learnt_from_is_not_tested_on(task):
    """A folder in both places."""
    with pytest.raises(UserError, match="would be learnt from and tested on"):
        replace(task, test_sets=("T91",)).load("train")


def copied(path: Path, to: Path) -> None:
    """The same pixels in another format."""
    to.parent.mkdir(exist_ok=True)
    with Image.open(path) as image:
        image.save(to, **({"lossless": True} if to.suffix == ".webp" else {}))


def test_copies_are_not_tested_on(root, task):
    """Whatever they are called: of a training image in a test set, of a test image among those of T91."""
    (path, _) = task.files("train", root)
    copied(path.hr, root / "copies" / "photo.webp")
    with pytest.raises(UserError, match=rf"{path.hr} would be learnt from and tested on .*photo\.webp has the same"):
        replace(task, test_sets=("set5", "copies")).load("train")
    copied(root / "Set5/HR/01.png", root / "T91" / "99.webp")
    with pytest.raises(UserError, match=r"99\.webp would be learnt from and tested on .*Set5/HR/01\.png has the same"):
        task.check()


def test_copies_do_not_validate(root, task, monkeypatch):
    """Of a training image; the picture that T91 has twice is known."""
    (path, _) = task.files("train", root)
    (held, *_) = task.files("val", root)
    held.hr.unlink()
    copied(path.hr, held.hr)
    with pytest.raises(UserError, match=rf"{path.hr} would be learnt from and validated on .*{held.hr} has the same"):
        task.load("train")
    monkeypatch.setattr(div2k, "_TWINS", {path.hr.stem, held.hr.stem})
    task.load("train")


def test_one_folder_by_two_names_is_refused(root, task):
    """Else an image could be in train and in val, or in test."""
    with pytest.raises(UserError, match="names one folder twice"):
        replace(task, folders=("T91", str(root / "T91"))).load("train")
    (root / "alias").symlink_to(root / "T91")
    with pytest.raises(UserError, match="would be learnt from and tested on"):
        replace(task, test_sets=("alias",)).load("train")


def test_missing_data_are_named(root, task, monkeypatch):
    """Test sets, folders and DIV2K: where they were looked for, and what to do."""
    with pytest.raises(MissingDataError, match=f"'urban100' is missing .{root} has no .*leave it out of test_sets"):
        replace(task, test_sets=("urban100",)).check()
    with pytest.raises(UserError, match=r"'urban10' is neither .*did you mean 'urban100'"):
        replace(task, test_sets=("urban10",)).check()
    with pytest.raises(MissingDataError, match=f"no images in nowhere below {root}"):
        replace(task, folders=("nowhere",)).check()
    with pytest.raises(MissingDataError, match=f"{root} has no DIV2K_train_HR.*bench download div2k"):
        DIV2K(test_sets=("set5",)).check()
    fill(root / "DIV2K_train_HR", 0)
    with pytest.raises(UserError, match="DIV2K_train_HR holds 0 images, not 800"):
        DIV2K(test_sets=("set5",)).check()
    fill(root / "few", 10)
    with pytest.raises(UserError, match="hold 10 images: give more than the 10"):
        replace(task, folders=("few",)).check()
    monkeypatch.delenv("BENCH_DATA")
    for missing in (task, DIV2K(test_sets=(str(root / "few"),)), replace(task, test_sets=(str(root / "few"),))):
        with pytest.raises(MissingDataError, match="BENCH_DATA is not set"):
            missing.check()


def test_unusual_numbers_of_images_are_told(root, task):
    """Of sets that are known by name; a whole one is not told of."""
    assert task.unusual() == "set5: 3 images, 5 are usual; T91: 12 images, 91 are usual"
    fill(root / "Set14", 14)
    assert replace(task, folders=("Set5/HR",), test_sets=("set14",)).unusual() == ""
    (finding,) = checking._data((task,))
    assert finding.is_good
    assert finding.text == f"verified; {task.unusual()}"


def test_t91_has_no_download(tmp_path):
    """The sentence says what to put where."""
    with pytest.raises(UserError, match=f"no official archive: put .* into {tmp_path}"):
        T91().download(tmp_path)


def test_div2k_is_fetched_from_its_authors(tmp_path, monkeypatch):
    """Four archives: both sets, high and low resolution."""
    from slimbench.tasks._torchvision import torchvision

    asked: list[str] = []
    utils = torchvision().datasets.utils
    monkeypatch.setattr(utils, "download_and_extract_archive", lambda url, *_, **__: asked.append(url))
    DIV2K(scale=3).download(tmp_path)
    assert [url.rpartition("/")[2] for url in asked] == [
        f"DIV2K_{official}_{part}.zip" for official in ("train", "valid") for part in ("HR", "LR_bicubic_X3")
    ]


def test_a_task_says_where_its_images_come_from():
    """The base class has none."""
    with pytest.raises(TypeError, match="must say"):
        SuperResolution().load("train")
    with pytest.raises(TypeError, match="must say"):
        div2k.Folders().files("train", None)


# -------------------------------------------------------------------------------------------------------- the real data


def test_the_real_splits(real_data):
    """171 images to learn from, ten to validate, 5 + 13 + 100 to test."""
    task = T91()
    assert task.unusual() == "set14: 13 images, 14 are usual; BSDS500/train: 90 images, 200 are usual"
    assert [len(task.load(split).groups) for split in ("train", "val", "test")] == [171, 10, 118]
    assert T91(scale=4).load("train").lr.heights.min() >= T91().patch


def test_no_picture_of_a_test_set_is_learnt_from_under_another_name(real_data):
    """By pixels, not by names; within T91 there is one pair, which docs/tasks.md tells of."""
    task = T91()
    names: dict[str, set[tuple[str, str]]] = {}
    for split in ("train", "val"):
        for file in task.files(split, environment.data_root()):
            digest = hashlib.sha256(_pairs.decode(file.hr).tobytes()).hexdigest()
            names.setdefault(digest, set()).add((split, file.hr.stem))
    assert [sorted(same) for same in names.values() if len(same) > 1] == [[("train", "t36"), ("val", "t65")]]
    tests = div2k._test_files(task.test_sets, environment.data_root(), task.scale)
    assert not names.keys() & {
        hashlib.sha256(_pairs.decode(file.hr, grey=True).tobytes()).hexdigest() for file in tests
    }


# --------------------------------------------------------------------------------------------------------------- photos


def test_photos_are_verified(monkeypatch):
    """Another file is refused; the declared digest is the checksum."""
    assert Photos().data_checksum() == Photos.content
    monkeypatch.setattr(Photos, "content", "0" * 64)
    with pytest.raises(UserError, match="are other ones"):
        Photos().load("train")


def test_a_missing_photo_is_named(monkeypatch):
    """And the package that brings it."""
    monkeypatch.setattr(Photos, "files", {"train": ("skimage/none.png",), "val": (), "test": ()})
    with pytest.raises(UserError, match=r"none.png is missing: install skimage again"):
        Photos().load("train")


def test_photos_that_are_smaller_than_a_patch_are_named():
    """400 pixels are 100 at scale 4."""
    with pytest.raises(UserError, match=r"coffee.png has 600 x 400 pixels, but 404 each way"):
        Photos(scale=4, patch=101).load("train")
