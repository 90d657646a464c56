"""Scenes and their label maps: each data set in its layouts, and in one sentence what is wrong with it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimbench.core import MissingDataError, UserError
from slimbench.tasks import camvid, cityscapes, texture_digits, voc
from slimbench.tasks._scenes import IGNORED
from slimbench.tasks.camvid import CamVid
from slimbench.tasks.cityscapes import Cityscapes
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.tasks.voc import VOC2012

if TYPE_CHECKING:
    from pathlib import Path

LOADERS = (camvid._load, camvid._checksum, voc._load, voc._checksum, cityscapes._load, cityscapes._checksum)
LOADERS += (texture_digits._splits,)


# -------------------------------------------------------------------------------------------------------------- CamVid


def put(folder: Path, name: str, array: np.ndarray[Any, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name, **({"lossless": True} if "webp" in name else {}))


def made_camvid(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images, and their number declared accordingly."""
    monkeypatch.setattr(CamVid, "images", {"train": 3, "val": 1, "test": 2})
    rng = np.random.RandomState(0)
    for split, number in (("train", 3), ("val", 1), ("test", 2)):
        for index in range(number):
            put(root / f"CamVid/{split}", f"{split}{index}.png", rng.randint(0, 255, (6, 8, 3)).astype(np.uint8))
            put(root / f"CamVid/{split}annot", f"{split}{index}.png", rng.randint(0, 12, (6, 8)).astype(np.uint8))


def test_camvid_in_both_layouts(root, monkeypatch):
    """SegNet's folders, and one folder with both; 11 is "unlabelled"; colours stay red, green, blue."""
    made_camvid(root, monkeypatch)
    task = CamVid()
    assert [task.size(split) for split in ("train", "val", "test")] == [3, 1, 2]
    source = task.load("train")
    raw = np.array(Image.open(root / "CamVid/train/train1.png"))
    assert np.array_equal(source.images.image(1).permute(1, 2, 0).numpy(), raw)
    label = np.array(Image.open(root / "CamVid/trainannot/train1.png"))
    assert np.array_equal(source.labels.image(1)[0].numpy(), np.where(label == 11, IGNORED, label))
    first = task.data_checksum()
    task.check()

    (root / "segmentation/camvid").mkdir(parents=True)
    for split in ("train", "val", "test"):
        for path in sorted((root / f"CamVid/{split}").glob("*.png")):
            put(root / f"segmentation/camvid/{split}", f"{path.stem}.webp", np.array(Image.open(path)))
            label = np.array(Image.open(root / f"CamVid/{split}annot/{path.name}"))
            put(root / f"segmentation/camvid/{split}", f"{path.stem}.png", label)
    (root / "CamVid").rename(root / "gone")
    camvid._load.cache_clear()
    camvid._checksum.cache_clear()
    assert torch.equal(task.load("train").images.values, source.images.values)
    assert task.data_checksum() != first  # other files


def test_missing_camvid_is_one_sentence(root, monkeypatch):
    """What is missing, where it was looked for, what to do."""
    with pytest.raises(MissingDataError, match="CamVid/train with CamVid/trainannot"):
        CamVid().check()
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(MissingDataError, match="BENCH_DATA is not set"):
        CamVid().check()


def _smaller(root: Path) -> None:
    put(root / "CamVid/trainannot", "train1.png", np.zeros((6, 7), np.uint8))


def _out_of_range(root: Path) -> None:
    put(root / "CamVid/trainannot", "train1.png", np.full((6, 8), 12, np.uint8))


def _deep_label(root: Path) -> None:
    """Modulo 256 it is class 3."""
    put(root / "CamVid/trainannot", "train1.png", np.full((6, 8), 259, np.uint16))


def _coloured_label(root: Path) -> None:
    put(root / "CamVid/trainannot", "train1.png", np.zeros((6, 8, 3), np.uint8))


def _grey(root: Path) -> None:
    put(root / "CamVid/train", "train1.png", np.zeros((6, 8), np.uint8))


def _sixteen_bits(root: Path) -> None:
    put(root / "CamVid/train", "train1.png", np.zeros((6, 8), np.uint16))


def _with_alpha(root: Path) -> None:
    put(root / "CamVid/train", "train1.png", np.zeros((6, 8, 4), np.uint8))


def _unreadable(root: Path) -> None:
    (root / "CamVid/train/train1.png").write_bytes(b"no image")


def _without_label(root: Path) -> None:
    (root / "CamVid/trainannot/train1.png").unlink()


def _without_image(root: Path) -> None:
    (root / "CamVid/test/test1.png").unlink()


def _one_fewer(root: Path) -> None:
    for folder in ("test", "testannot"):
        (root / f"CamVid/{folder}/test1.png").unlink()


def _one_more(root: Path) -> None:
    put(root / "CamVid/val", "val1.png", np.zeros((6, 8, 3), np.uint8))
    put(root / "CamVid/valannot", "val1.png", np.zeros((6, 8), np.uint8))


def _in_two_splits(root: Path) -> None:
    for folder in ("", "annot"):
        (root / f"CamVid/val{folder}/val0.png").rename(root / f"CamVid/val{folder}/train2.png")


def _empty(root: Path) -> None:
    for path in (root / "CamVid/train").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_smaller, r"train1.png and its label map .*train1.png differ in size \(6 x 8 and 6 x 7 pixels\)"),
        (_out_of_range, r"trainannot/train1.png holds label 12, and the classes are 0 to 10"),
        (_deep_label, r"trainannot/train1.png is not an 8-bit label map \(I;16\)"),
        (_coloured_label, r"trainannot/train1.png is not an 8-bit label map \(RGB\)"),
        (_grey, r"train/train1.png is not an 8-bit colour image"),
        (_sixteen_bits, r"train/train1.png is not an 8-bit colour image"),
        (_with_alpha, r"train/train1.png is not an 8-bit colour image"),
        (_unreadable, r"train/train1.png or its label map .* cannot be read"),
        (_without_label, r"trainannot/train1.png of camvid is missing"),
        (_without_image, r"label map .*testannot/test1.png of camvid has no image"),
        (_one_fewer, r"CamVid/test holds 1 images of camvid, not 2: fetch"),
        (_one_more, r"CamVid/val holds 2 images of camvid, not 1: fetch"),
        (_in_two_splits, r"The image train2 is in both train and val"),
        (_empty, r"CamVid/train holds no image"),
    ],
)
def test_bad_files_are_named_in_one_sentence(root, monkeypatch, spoil, said):
    """And no task is made of them."""
    made_camvid(root, monkeypatch)
    spoil(root)
    with pytest.raises(UserError, match=said) as caught:
        CamVid().check()
    assert "\n" not in str(caught.value)


def test_the_real_camvid_is_seg_nets_split(real_data):
    """367, 101 and 233 images of 360 x 480; all eleven classes."""
    task = CamVid()
    assert [task.size(split) for split in ("train", "val", "test")] == [367, 101, 233]
    source = task.load("test")
    assert set(source.images.heights.tolist()) == {360}
    assert set(source.images.widths.tolist()) == {480}
    assert source.labels.values.unique().tolist() == [*range(11), IGNORED]


# -------------------------------------------------------------------------------------------------- VOC and Cityscapes


def made_voc(root: Path, names: dict[str, int]) -> None:
    rng = np.random.RandomState(0)
    base = root / "VOCdevkit/VOC2012"
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    for listing, number in names.items():
        stems = [f"{listing}{index}" for index in range(number)]
        (base / f"ImageSets/Segmentation/{listing}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            put(base / "JPEGImages", f"{stem}.jpg", rng.randint(0, 255, (6, 8, 3)).astype(np.uint8))
            label = rng.randint(0, 21, (6, 8)).astype(np.uint8)
            label[0] = IGNORED
            put(base / f"SegmentationClass{'Aug' if listing == 'trainaug' else ''}", f"{stem}.png", label)


def test_voc_trains_on_the_augmented_list_where_it_is(root):
    """A hundred are held out, disjoint; the official val is the test split; borders are ignored."""
    made_voc(root, {"train": 104, "val": 3})
    task = VOC2012()
    assert [task.size(split) for split in ("train", "val", "test")] == [4, 100, 3]
    assert bool((task.load("test").labels.image(0)[0, 0] == IGNORED).all())
    first = task.data_checksum()
    (root / "VOCdevkit/VOC2012").rename(root / "gone")
    made_voc(root, {"train": 104, "val": 3, "trainaug": 110})
    voc._load.cache_clear()
    voc._checksum.cache_clear()
    assert [task.size(split) for split in ("train", "val", "test")] == [10, 100, 3]
    assert task.data_checksum() != first


def test_lists_that_overlap_or_are_short_are_refused(root):
    """A hand-made trainaug.txt may hold images of val; a subset may be smaller than what is held out."""
    made_voc(root, {"train": 100, "val": 3, "trainaug": 110})
    listing = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt"
    listing.write_text(listing.read_text() + "val1\n")
    put(root / "VOCdevkit/VOC2012/SegmentationClassAug", "val1.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match="val1 is in both train and test"):
        VOC2012().load("train")
    listing.unlink()
    with pytest.raises(UserError, match="has 100 images: give more than the 100"):
        VOC2012().load("train")


def test_a_missing_listing_is_named(root):
    """VOC's folders without its lists."""
    made_voc(root, {"train": 104, "val": 3})
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(UserError, match=r"voc2012 data in .*VOC2012 cannot be listed .*Segmentation/val.txt"):
        VOC2012().check()


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palettes_and_two_levels_are_label_maps(root, monkeypatch, mode):
    """Their numbers are the labels."""
    made_camvid(root, monkeypatch)
    label = np.arange(48).reshape(6, 8) % 2
    made = Image.fromarray(label.astype(np.uint8))
    made.putpalette([9, 9, 9, 200, 0, 0])
    (made if mode == "P" else Image.fromarray(label.astype(bool))).save(root / "CamVid/trainannot/train1.png")
    assert np.array_equal(CamVid().load("train").labels.image(1)[0].numpy(), label)


def test_cityscapes_is_seen_at_half_size_and_scored_at_full(root, monkeypatch):
    """Images are averaged over 2 x 2 pixels; label maps keep their size; one image fewer is refused."""
    assert Cityscapes.images == {"train": 2975, "val": 2975, "test": 500}
    monkeypatch.setattr(Cityscapes, "images", {"train": 102, "val": 102, "test": 2})
    raw, rng = {}, np.random.RandomState(0)
    for split, number in (("train", 102), ("val", 2)):
        for index in range(number):
            city = "ulm" if split == "train" else "bonn"
            stem = f"{city}_{index:06d}_000019"
            raw[split, index] = rng.randint(0, 255, (8, 12, 3)).astype(np.uint8)
            put(root / f"cityscapes/leftImg8bit/{split}/{city}", f"{stem}_leftImg8bit.png", raw[split, index])
            label = rng.choice([*range(19), IGNORED], (8, 12)).astype(np.uint8)
            put(root / f"cityscapes/gtFine/{split}/{city}", f"{stem}_gtFine_labelTrainIds.png", label)
    task = Cityscapes()
    assert [task.size(split) for split in ("train", "val", "test")] == [2, 100, 2]
    source = task.load("test")
    assert (int(source.images.heights[0]), int(source.labels.heights[0])) == (4, 8)
    mean = raw["val", 0].reshape(4, 2, 6, 2, 3).mean((1, 3)).round()
    assert np.array_equal(source.images.image(0).permute(1, 2, 0).numpy(), mean)
    inputs, labels = task.batch("train", torch.tensor([0, 1]), None)
    assert inputs.shape == (2, 3, 512, 512)
    assert labels.shape == (2, 512, 512)
    task.data_checksum()
    monkeypatch.setattr(Cityscapes, "images", {"train": 102, "val": 102, "test": 500})
    cityscapes._load.cache_clear()
    with pytest.raises(UserError, match="leftImg8bit/val holds 2 images of cityscapes, not 500"):
        task.load("test")


# ------------------------------------------------------------------------------------------------------ texture digits


def test_texture_digits_are_the_same_everywhere():
    """The digest holds; splits have their sizes; every class occurs; nothing is ignored."""
    task = TextureDigits()
    assert [task.size(split) for split in ("train", "val", "test")] == [240, 60, 180]
    for split in ("train", "val", "test"):
        assert task.load(split).labels.values.unique().tolist() == list(range(11))
    assert {name for name, _ in _regions()} == {"train", "val", "test"}


def _regions() -> list[tuple[str, tuple[int, int]]]:
    """Rows of the textures by split: disjoint, and higher than a scene."""
    regions = sorted(texture_digits._ROWS.items(), key=lambda item: item[1])
    for (_, (_, end)), (_, (start, _)) in itertools.pairwise(regions):
        assert end <= start
    assert all(end - start >= 64 for _, (start, end) in regions)
    return regions


def test_texture_digits_altered_are_refused(monkeypatch):
    """Another version of the packages' files would be another task."""
    monkeypatch.setattr(texture_digits, "_textures", lambda: [np.zeros((512, 512), np.uint8)] * 3)
    with pytest.raises(UserError, match="is not the data that was declared"):
        TextureDigits().load("train")
