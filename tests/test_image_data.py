"""MNIST, CIFAR and ImageNet: few images in the official layouts, and the real ones; what was altered is refused."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from images import noise
from slimbench.core import UserError
from slimbench.tasks import _files, cifar, mnist
from slimbench.tasks._torchvision import torchvision
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.mnist import MNIST, FashionMNIST

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.tasks._classification import Classification

LOADERS = (mnist._load, mnist._read, cifar._load, cifar._read, _files.split)


# --------------------------------------------------------------------------------------------- MNIST and Fashion-MNIST

PIXELS = np.random.RandomState(0).randint(0, 256, (14, 28, 28)).astype(np.uint8)
LABELS = np.arange(14, dtype=np.uint8) % 10


def make_mnist(task: type[MNIST], folder: Path, monkeypatch) -> None:
    """Ten images to train on, four to test; three are held out. The checksums are declared accordingly."""
    folder.mkdir(parents=True)
    for name, part in (("train", slice(0, 10)), ("t10k", slice(10, 14))):
        count = len(LABELS[part])
        images = struct.pack(">4I", 2051, count, 28, 28) + PIXELS[part].tobytes()
        labels = struct.pack(">2I", 2049, count) + LABELS[part].tobytes()
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    declare_md5(task, folder, monkeypatch)
    monkeypatch.setattr(mnist, "_HELD", 3)


def declare_md5(task: type[MNIST], folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(task, "md5", {path.name: md5(path) for path in folder.glob("*.gz")})


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("task", "below"),
    [(MNIST, below) for below in ("classification/mnist", "MNIST/raw", "mnist")]
    + [(FashionMNIST, below) for below in ("classification/fashion_mnist", "FashionMNIST/raw", "fashion_mnist")],
)
def test_mnist_from_each_layout(root, monkeypatch, task, below):
    """Pixels and labels as the files have them; the held-out images are those of ``split_off``."""
    make_mnist(task, root / below, monkeypatch)
    task().check()
    for split, chosen in {"train": [0, 1, 3, 5, 6, 7, 9], "val": [2, 4, 8], "test": [10, 11, 12, 13]}.items():
        part = task().load(split)
        assert torch.equal(part.pixels, torch.from_numpy(PIXELS[chosen])[:, None])
        assert part.labels.tolist() == LABELS[chosen].tolist()
        assert task().size(split) == len(chosen)


@pytest.mark.parametrize(
    ("harm", "declared", "message"),
    [
        (lambda data: data[:-1] + b"x", False, "damaged or altered"),
        (lambda data: data[:-9], False, "damaged or altered"),
        (lambda data: data[:-9], True, "cannot be read"),
        (lambda data: b"not gzip", True, "cannot be read"),
        (None, False, "cannot be read"),
    ],
    ids=["altered", "truncated", "truncated by the publisher", "not gzip", "missing"],
)
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_harmed_mnist_files_are_named(root, monkeypatch, harm, declared, message, name):
    """Images or labels; a file that is as declared and yet unreadable too."""
    make_mnist(MNIST, root / "mnist", monkeypatch)
    path = root / "mnist" / name
    path.write_bytes(harm(path.read_bytes())) if harm else path.unlink()
    if declared:
        declare_md5(MNIST, path.parent, monkeypatch)
    with pytest.raises(UserError, match=f"{path} .*{message}"):
        MNIST().load("test")


@pytest.mark.parametrize(("task", "dataset"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_mnist_checksums_are_torchvisions(task, dataset):
    """The four files of each, and the content that goes into the ids."""
    assert dict(getattr(torchvision().datasets, dataset).resources) == task.md5
    assert task.content == f"md5:{task.md5['train-images-idx3-ubyte.gz']}"


# --------------------------------------------------------------------------------------------------------------- CIFAR

CHW = np.random.RandomState(0).randint(0, 256, (12, 3, 32, 32)).astype(np.uint8)
FINE = list(range(12))


def make_cifar(task: type[CIFAR10], root: Path, monkeypatch) -> Path:
    """Ten images to train on and two to test, in torchvision's layout, with checksums to match."""
    dataset = getattr(torchvision().datasets, task.torchvision_name)
    folder = root / dataset.base_folder
    folder.mkdir()
    files = {name: range(2 * i, 2 * i + 2) for i, (name, _) in enumerate(dataset.train_list)}
    if len(files) == 1:
        files = dict.fromkeys(files, range(10))
    (test,) = (name for name, _ in dataset.test_list)
    labels = "labels" if task is CIFAR10 else "fine_labels"
    for name, part in (files | {test: range(10, 12)}).items():
        content = {"data": CHW[list(part)].reshape(len(part), -1), labels: [FINE[i] for i in part]}
        (folder / name).write_bytes(pickle.dumps(content))
    meta = dataset.meta
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: [str(i) for i in FINE]}))
    monkeypatch.setattr(dataset, "train_list", [[name, md5(folder / name)] for name in files])
    monkeypatch.setattr(dataset, "test_list", [[test, md5(folder / test)]])
    monkeypatch.setattr(dataset, "meta", meta | {"md5": md5(folder / meta["filename"])})
    monkeypatch.setattr(task, "digests", {"train": None, "test": None})
    monkeypatch.setattr(cifar, "_HELD", 3)
    return folder


def make_shards(root: Path, monkeypatch) -> Path:
    """The same images as lossless WebP shards of five and two, with digests to match."""
    folder = root / CIFAR10.shards
    folder.mkdir(parents=True)
    monkeypatch.setattr(cifar, "_HELD", 3)
    parts = {"train": slice(0, 10), "test": slice(10, 12)}
    hwc = np.ascontiguousarray(CHW.transpose(0, 2, 3, 1))
    for name, shard in (("train_000", slice(0, 5)), ("train_001", slice(5, 10)), ("test_000", slice(10, 12))):
        Image.fromarray(hwc[shard].reshape(-1, 32, 3)).save(folder / f"{name}.webp", lossless=True, exact=True)
    digests = {}
    for name, part in parts.items():
        labels = np.asarray(FINE[part], np.int64)
        np.save(folder / f"{name}_labels.npy", labels.astype(np.uint8))
        digests[name] = tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in (hwc[part], labels))
    monkeypatch.setattr(CIFAR10, "digests", digests)
    return folder


def expect_cifar(task: Classification) -> None:
    for split, chosen in {"train": [0, 1, 3, 5, 6, 7, 9], "val": [2, 4, 8], "test": [10, 11]}.items():
        part = task.load(split)
        assert torch.equal(part.pixels, torch.from_numpy(CHW[chosen]))
        assert part.labels.tolist() == chosen


@pytest.mark.parametrize("task", [CIFAR10, CIFAR100])
def test_cifar_from_torchvisions_layout(root, monkeypatch, task):
    """Channels first in the files, and so they stay; CIFAR-100's labels are the fine ones."""
    make_cifar(task, root, monkeypatch)
    expect_cifar(task())


def test_cifar_from_shards(root, monkeypatch):
    """Shards in the order of their names give the same images."""
    make_shards(root, monkeypatch)
    expect_cifar(CIFAR10())


def test_altered_cifar_batches_are_refused(root, monkeypatch):
    """torchvision finds the checksum wrong; the task says what to do."""
    folder = make_cifar(CIFAR10, root, monkeypatch)
    (folder / "test_batch").write_bytes((folder / "test_batch").read_bytes() + b"x")
    with pytest.raises(UserError, match=r"cifar-10-batches-py are altered.*bench download cifar10"):
        CIFAR10().load("test")


def test_cifar_content_is_checked_in_every_layout(root, monkeypatch):
    """Batches that torchvision accepts but that hold other images have another digest."""
    make_cifar(CIFAR10, root, monkeypatch)
    monkeypatch.setattr(CIFAR10, "digests", {"train": None, "test": ("0" * 64, "0" * 64)})
    with pytest.raises(UserError, match=r"The test images of cifar10 .* is not the data that was declared"):
        CIFAR10().load("test")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: Image.new("RGB", (32, 160)).save(folder / "train_001.webp"), "The train images of cifar10"),
        (lambda folder: (folder / "train_001.webp").unlink(), "The train images of cifar10"),
        (lambda folder: np.save(folder / "train_labels.npy", np.zeros(10, np.uint8)), "The train labels of cifar10"),
        (lambda folder: shorten(folder / "train_001.webp"), r"train_001\.webp cannot be read"),
        (lambda folder: shorten(folder / "train_labels.npy"), r"train_labels\.npy cannot be read"),
        (lambda folder: (folder / "train_labels.npy").unlink(), r"train_labels\.npy cannot be read"),
    ],
    ids=["altered shard", "missing shard", "altered labels", "short shard", "short labels", "missing labels"],
)
def test_harmed_shards_are_named(root, monkeypatch, harm, message):
    """What is wrong, and where."""
    harm(make_shards(root, monkeypatch))
    with pytest.raises(UserError, match=message):
        CIFAR10().load("train")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


# ------------------------------------------------------------------------------------------------------------ ImageNet


@dataclass(frozen=True)
class TwoClasses(ImageNet):
    """Two classes at 14 pixels: the shorter side is resized to 16."""

    n_classes: ClassVar[int] = 2
    size_px: ClassVar[int] = 14
    held_a_class: ClassVar[int] = 1
    images: ClassVar[dict[str, int]] = {"train": 8, "val": 8, "test": 2}


def make_imagenet(root: Path) -> Path:
    """Four images a class to train on and one to test, of different sizes, one grey; image k has grey level 20 k."""
    k = 0
    for split, count in (("train", 4), ("val", 1)):
        for wnid in ("n02", "n01"):
            folder = root / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                size, mode = (20 + 5 * index, 40 - 5 * index), "L" if index == 1 else "RGB"
                grey = 20 * k if mode == "L" else (20 * k,) * 3
                Image.new(mode, size, grey).save(folder / f"{wnid}_{index}.JPEG", quality=100)
                k += 1
    return root / "imagenet"


def levels(split: str, rng: torch.Generator | None = None) -> tuple[list[int], list[int]]:
    """The grey level of each image's red channel / 20, and its label."""
    task = TwoClasses()
    inputs, labels = task.batch(split, torch.arange(task.size(split)), rng)
    assert inputs.shape[1:] == (3, 14, 14)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    red = (inputs[:, 0] * task.std[0] + task.mean[0]) * 255 / 20
    assert (red - red.round()).abs().max() < 0.1
    return red.mean((1, 2)).round().int().tolist(), labels.tolist()


def test_imagenet_splits_by_folder(root):
    """Classes in the order of their folders' names; one fixed image a class is val, the official val set is test."""
    make_imagenet(root)
    TwoClasses().check()
    assert levels("train") == ([4, 5, 7, 0, 1, 2], [0, 0, 0, 1, 1, 1])
    assert levels("val") == ([6, 3], [0, 1])
    assert levels("test") == ([9, 8], [0, 1])


def test_imagenet_draws_are_the_generators(root):
    """The same seed gives the same crops, another gives others; labels stay."""
    folder = make_imagenet(root)
    Image.fromarray(noise(32, 32)).save(folder / "train/n01/n01_0.JPEG")
    task = TwoClasses()
    one, two, other, middle = (
        task.batch("train", torch.tensor([0]), rng and torch.Generator().manual_seed(rng))[0] for rng in (1, 1, 2, None)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one, middle)


def ramp(path: Path, width: int, height: int) -> Path:
    """An image whose pixel (x, y) is (x, y, 0)."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("width", "height", "left", "top"), [(32, 16, 9, 1), (16, 32, 1, 9), (16, 16, 1, 1)])
def test_centre_crop(tmp_path, width, height, left, top):
    """At 16 pixels nothing is resized: the 14 pixels in the middle."""
    image = _files._decode(ramp(tmp_path / "ramp.png", width, height), None, 14)
    assert image[0, :, 0].tolist() == list(range(left, left + 14))
    assert image[:, 0, 1].tolist() == list(range(top, top + 14))


def test_centre_crop_resizes_the_shorter_side(tmp_path):
    """To 8/7 of the crop: 64 x 32 becomes 32 x 16, so a step in the crop is two pixels."""
    image = _files._decode(ramp(tmp_path / "ramp.png", 64, 32), None, 14)
    assert image[5, 1:, 0].astype(int).tolist() == pytest.approx([20.5 + 2 * i for i in range(13)], abs=0.6)


def test_random_crop_mirrors_below_a_half(tmp_path):
    """A full crop of an image of the right size is the image, or its mirror image."""
    path = ramp(tmp_path / "ramp.png", 14, 14)
    assert _files._decode(path, [1.0, 0.5, 0, 0, 0.5], 14)[3, :, 0].tolist() == list(range(14))
    assert _files._decode(path, [1.0, 0.5, 0, 0, 0.49], 14)[3, :, 0].tolist() == list(range(13, -1, -1))


def test_resized_crop_by_hand():
    """All of a square; 9 % of it in the middle; a quarter at aspect 3/4 or 4/3 in a corner."""
    assert _files.resized_crop((100, 100), [1.0, 0.5, 0.3, 0.3]) == pytest.approx((0, 0, 100, 100))
    assert _files.resized_crop((100, 100), [0.01 / 0.92, 0.5, 0.5, 0.5]) == pytest.approx((35, 35, 65, 65))
    quarter = 0.17 / 0.92
    w, h = 50 * 0.75**0.5, 50 / 0.75**0.5
    assert _files.resized_crop((100, 100), [quarter, 0.0, 1.0, 0.0]) == pytest.approx((100 - w, 0, 100, h))
    assert _files.resized_crop((100, 100), [quarter, 1.0, 0.0, 1.0]) == pytest.approx((0, 100 - w, h, 100))


@pytest.mark.parametrize(("width", "height"), [(300, 40), (40, 300)])
def test_resized_crops_stay_inside(width, height):
    """Also of images that are far from square."""
    for draws in torch.rand(200, 5, generator=torch.Generator().manual_seed(0)).tolist():
        left, top, right, bottom = _files.resized_crop((width, height), draws)
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9


def test_an_unreadable_image_is_named(root):
    """A cut JPEG, or none at all."""
    path = make_imagenet(root) / "val/n01/n01_0.JPEG"
    for content in (path.read_bytes()[:200], b"no image"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            levels("test")


def test_a_wrong_number_of_classes_is_refused(root):
    """A folder too many shifts every label after it."""
    (make_imagenet(root) / "train" / "n00").mkdir()
    with pytest.raises(UserError, match="holds 3 class folders, not 2"):
        TwoClasses().check()


def test_class_folders_without_images_are_refused(root):
    """Rather than an empty split."""
    for path in make_imagenet(root).glob("val/*/*.JPEG"):
        path.unlink()
    with pytest.raises(UserError, match="holds 0 images, not 2"):
        TwoClasses().check()


# ------------------------------------------------------------------------------------------------------- the real data


@pytest.mark.parametrize(("task", "sizes"), [(CIFAR10, (45_000, 5000, 10_000)), (MNIST, (55_000, 5000, 10_000))])
def test_the_real_splits(real_data, task, sizes):
    """The published images, verified, in the declared sizes; the mean of train is near what inputs are scaled by."""
    assert tuple(task().size(split) for split in ("train", "val", "test")) == sizes
    pixels = task().load("train").pixels[:5000].float() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(task.mean, abs=0.05)
