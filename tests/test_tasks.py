"""Tasks: data that are what they claim or are refused, splits that stay apart, scores with the answer written out.

The made data sets are a few images in the official layouts; the real ones are looked at where BENCH_DATA has them.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import types
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from conftest import fresh
from slimbench import discover
from slimbench.core import Metric, Recipe, UserError, unpack
from slimbench.tasks import _files, _images, _networks, _published, cifar, digits, mnist
from slimbench.tasks._classification import Classification
from slimbench.tasks._networks.shortcut import PaddedShortcut
from slimbench.tasks._torchvision import torchvision
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.digits import Digits
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.mnist import MNIST, FashionMNIST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASKS = [cls for cls in discover.found("tasks").values() if cls.__module__.startswith("slimbench.tasks")]
RNG = np.random.RandomState(0)


@pytest.fixture(autouse=True)
def forgets() -> Iterator[None]:
    """No data of other tests, nor of other files' tests in this process."""
    with fresh(mnist._load, mnist._read, cifar._load, cifar._read, _files.split, digits._splits):
        yield


# ------------------------------------------------------------------------------------- every task in the folder


@pytest.mark.parametrize("cls", TASKS)
def test_specs_are_frozen_and_declared(cls):
    """A value that cannot change, with a name, a version, metrics and a digest of its own."""
    task = cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.network = "other"
    assert hash(task) == hash(cls())
    assert vars(cls)["name"]
    assert task.version >= 1
    assert task.metrics
    assert all(isinstance(metric, Metric) for metric in task.metrics)
    declared = [content for other in TASKS if (content := getattr(other, "content", None))]
    assert declared.count(getattr(cls, "content", None)) <= 1


@pytest.mark.parametrize("cls", TASKS)
def test_the_example_feeds_the_network(cls):
    """One input, the same every time; what comes out is finite and of the family's shape, deployed or not."""
    task = cls()
    example = task.example()
    assert example.shape[:1] == (1,)
    assert torch.equal(example, task.example())
    model = task.build().eval()
    with torch.no_grad():
        outputs = model(example)
        assert torch.equal(task.deploy(model)(example), outputs)
    height, width = example.shape[2:]
    assert (
        tuple(outputs.shape[1:])
        == {
            "classification": lambda: (task.n_classes,),
            "segmentation": lambda: (len(task.class_names), height, width),
            "super resolution": lambda: (3, task.scale * height, task.scale * width),
        }[task.family]()
    )
    assert outputs.isfinite().all()
    if task.family == "super resolution":
        assert 0 <= example.min() < example.max() <= 1


def test_metrics_of_each_task():
    """Top-5 where there are a hundred classes or more; each test set of super resolution by itself."""
    names = {cls.name: tuple(metric.name for metric in cls().metrics) for cls in TASKS}
    both = {"cifar100": ("top1", "top5"), "imagenet": ("top1", "top5")}
    small = dict.fromkeys(("cifar10", "digits", "fashion_mnist", "mnist"), ("top1",))
    seg = dict.fromkeys(("camvid", "cityscapes", "texture_digits", "voc2012"), ("mIoU", "pixel_accuracy"))
    three = ("psnr_y", "ssim_y", "psnr_rgb")
    benchmarks = tuple(f"{metric} {where}" for where in ("set5", "set14", "b100") for metric in three)
    sr = dict.fromkeys(("div2k", "t91"), benchmarks) | {"photos": tuple(f"{metric} photos" for metric in three)}
    assert names == small | both | seg | sr


def test_the_loss_is_smoothed_as_the_recipe_says():
    """-log p of the label; with smoothing 0.2 over two classes, 0.9 and 0.1 of both."""
    outputs, targets = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    own, other = torch.log1p(torch.tensor(-1.0).exp()), torch.log1p(torch.tensor(1.0).exp())
    assert Digits().loss(outputs, targets) == pytest.approx(own.item())
    smooth = replace(Digits(), recipe=Recipe(label_smoothing=0.2)).loss(outputs, targets)
    assert smooth.item() == pytest.approx((0.9 * own + 0.1 * other).item())


def test_a_label_is_one_window():
    """Whatever the size of the feature map: (N, 1, 1)."""
    assert Digits().classes(torch.tensor([3, 1]), (4, 4)).tolist() == [[[3]], [[1]]]


# ------------------------------------------------------------------------------------------------------- digits


def test_digits_splits():
    """1,200, 197 and 400 images of ten digits, no image twice; the first labels are pinned."""
    splits = {split: Digits().load(split) for split in ("train", "val", "test")}
    assert {split: part.pixels.shape for split, part in splits.items()} == {
        "train": (1200, 1, 8, 8),
        "val": (197, 1, 8, 8),
        "test": (400, 1, 8, 8),
    }
    keys = {image.numpy().tobytes() for part in splits.values() for image in part.pixels}
    assert len(keys) == 1797
    assert all(set(part.labels.tolist()) == set(range(10)) for part in splits.values())
    assert splits["test"].labels[:8].tolist() == [4, 5, 6, 9, 4, 7, 8, 9]
    assert {int(part.pixels.max()) for part in splits.values()} == {255}


def test_digits_load_the_same_again():
    """Bit for bit, in another process as well as here."""
    before = Digits().load("train")
    digits._splits.cache_clear()
    assert torch.equal(before.pixels, Digits().load("train").pixels)
    assert torch.equal(before.labels, Digits().load("train").labels)


@pytest.mark.parametrize("part", ["images", "target"])
def test_altered_digits_are_refused(monkeypatch, part):
    """One grey level, or one label, of another copy of scikit-learn."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    bunch[part].flat[0] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: bunch)
    with pytest.raises(UserError, match="scikit-learn's digits is not the published data"):
        Digits().load("train")


# ---------------------------------------------------------------------------------------------- images in memory


def test_split_off_is_fixed():
    """By numpy's promise for RandomState; a changed split would change every number."""
    rest, held = _images.split_off(10, 3)
    assert (rest.tolist(), held.tolist()) == ([0, 1, 3, 5, 6, 7, 9], [2, 4, 8])
    assert _images.split_off(50_000, 5000)[1][:6].tolist() == [14, 22, 24, 28, 64, 76]


def test_images_from_pixels():
    """Grey images gain a channel; the colour comes first."""
    assert _images.images(np.zeros((2, 4, 5), np.uint8), np.array([1, 2])).pixels.shape == (2, 1, 4, 5)
    colour = _images.images(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), np.array([7], np.uint8))
    assert colour.pixels[0, 1].tolist() == [[1, 4], [7, 10]]
    assert colour.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("rows", "columns", "mirrored", "expected"),
    [
        (1, 1, False, [[1, 2], [3, 4]]),
        (0, 0, False, [[0, 0], [0, 1]]),
        (2, 1, False, [[3, 4], [0, 0]]),
        (1, 0, False, [[0, 1], [0, 3]]),
        (0, 2, False, [[0, 0], [2, 0]]),
        (1, 1, True, [[2, 1], [4, 3]]),
        (1, 0, True, [[1, 0], [3, 0]]),
    ],
)
def test_shifted_and_mirrored(monkeypatch, rows, columns, mirrored, expected):
    """A window of the zero-padded image, then its mirror image; each image of a batch has its own draws."""
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([[[1], [rows]], [[1], [columns]]]))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([[0.9], [0.4 if mirrored else 0.6]]))
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    pixels = torch.stack([image, image * 10]).expand(2, 2, 2, 2)
    out = _images.shifted(pixels, torch.Generator(), 1, flip=True)
    assert out[0].tolist() == pixels[0].tolist()
    assert out[1].tolist() == [expected, (torch.tensor(expected) * 10).tolist()]


@pytest.mark.parametrize(("flip", "variants"), [(True, 18), (False, 9)])
def test_shifts_and_mirrors_all_occur(flip, variants):
    """Nine shifts by up to one pixel, each mirrored or not; no mirrors where the task forbids them."""
    pixels = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(600, 1, 3, 3)
    out = _images.shifted(pixels, torch.Generator().manual_seed(0), 1, flip=flip)
    kinds, counts = out.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == variants
    assert counts.min() > 600 / variants / 2


@dataclass(frozen=True)
class Colours(Classification):
    """Three channels, each scaled in its own way."""

    mean: ClassVar[tuple[float, ...]] = (0.5, 0.25, 0.0)
    std: ClassVar[tuple[float, ...]] = (0.5, 0.25, 1.0)
    pad: ClassVar[int] = 1


@pytest.mark.parametrize("rng", [None, 0])
def test_batches_are_gathered_normalised_and_channels_last(rng):
    """255 is 1, 3 and 1 here, 0 is -1, -1 and 0; in the order of the indices."""
    source = _images.images(np.stack([np.full((3, 3, 3), v, np.uint8) for v in (0, 51, 255)]), np.array([5, 6, 7]))
    generator = None if rng is None else torch.Generator().manual_seed(rng)
    inputs, labels = _images.batch(Colours(), source, torch.tensor([2, 0, 1]), generator)
    assert labels.tolist() == [7, 5, 6]
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    centre = inputs[:, :, 1, 1].flatten().tolist()  # a shift by one pixel never reaches it
    assert centre == pytest.approx([1, 3, 1, -1, -1, 0, -0.6, -0.2, 0.2], abs=1e-6)


def test_a_generator_augments():
    """And nothing else does; the same seed gives the same batch."""
    source = _images.images(np.arange(144, dtype=np.uint8).reshape(4, 6, 6), np.arange(4))
    plain, one, two, other = (
        _images.batch(Digits(), source, torch.arange(4), seed and torch.Generator().manual_seed(seed))[0]
        for seed in (None, 1, 1, 2)
    )
    assert (plain * 0.376 + 0.305).mul(255).round().flatten().tolist() == list(range(144))
    assert torch.equal(one, two)
    assert not torch.equal(one, plain)
    assert not torch.equal(one, other)


class Logits:
    """A task whose inputs are the logits."""

    def __init__(self, logits: list[list[float]], labels: list[int]) -> None:
        self.logits, self.labels = torch.tensor(logits), torch.tensor(labels)

    def size(self, split: str) -> int:
        return len(self.labels)

    def batch(self, split: str, indices: torch.Tensor, rng: None):
        return self.logits[indices][:, :, None, None], self.labels[indices]

    def scores(self, **ranks: int):
        return _images.evaluate(self, nn.Sequential(nn.Flatten(), nn.Dropout(0.9)), "test", ranks)


def test_top1_over_a_short_last_batch(monkeypatch):
    """Three of five, in batches of two: 60 %, not the mean of 50, 50 and 100."""
    monkeypatch.setattr(_images, "_EVALUATION_BATCH", 2)
    scores = Logits([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]], [0, 1, 0, 1, 1]).scores(top1=1)["top1"]
    assert (scores.value, scores.numerator, scores.denominator) == (60.0, 3.0, 5.0)
    assert unpack(scores.per_sample) == (1.0, 0.0, 1.0, 0.0, 1.0)


def test_ties_go_to_the_lower_class():
    """As argmax does: a network that says nothing is right on class 0 only, or on the first five."""
    scores = Logits([[0.0] * 6] * 6, list(range(6))).scores(top1=1, top5=5)
    assert unpack(scores["top1"].per_sample) == (1, 0, 0, 0, 0, 0)
    assert unpack(scores["top5"].per_sample) == (1, 1, 1, 1, 1, 0)


def test_top5():
    """The label's logit is the fifth highest, or the sixth."""
    scores = Logits([[1, 9, 8, 7, 6, 0], [1, 9, 8, 7, 6, 5]], [0, 0]).scores(top1=1, top5=5)
    assert (scores["top1"].value, scores["top5"].value) == (0.0, 50.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_no_score(bad):
    """Rather than wrong answers, or right ones."""
    with pytest.raises(FloatingPointError, match="not finite"):
        Logits([[0.0, 1.0], [bad, 0.0]], [1, 0]).scores(top1=1)


# -------------------------------------------------------------------------------------- MNIST and Fashion-MNIST

PIXELS = RNG.randint(0, 256, (14, 28, 28)).astype(np.uint8)
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


# --------------------------------------------------------------------------------------------------------- CIFAR

CHW = RNG.randint(0, 256, (12, 3, 32, 32)).astype(np.uint8)
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
    with pytest.raises(UserError, match=r"The test images of cifar10 .* is not the published data"):
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


# ------------------------------------------------------------------------------------------------------ ImageNet


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
    Image.fromarray(RNG.randint(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / "train/n01/n01_0.JPEG")
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


# ------------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("task", [MNIST, FashionMNIST, CIFAR10, CIFAR100, ImageNet])
def test_missing_data_are_named(task, monkeypatch, tmp_path):
    """With BENCH_DATA unset, empty, or pointing nowhere: the task's name and what to do."""
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(UserError, match=f"The data of {task.name} are missing \\(BENCH_DATA is not set\\)"):
        task().check()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}.*bench download {task.name}"):
        task().check()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere does not exist"):
        task().check()


# ------------------------------------------------------------------------------------------------ published weights


def publish(root: Path, monkeypatch, content: bytes) -> CIFAR10:
    """Declare ``content`` to be the published weights of ResNet-20."""
    key = ("cifar10", "resnet20", "akamaster")
    below = _published._FILES[key][0]
    monkeypatch.setitem(_published._FILES, key, (below, hashlib.sha256(content).hexdigest(), 91.73))
    (root / below).parent.mkdir(parents=True)
    (root / below).write_bytes(content)
    return CIFAR10(weights="akamaster")


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_unknown_published_weights_get_a_suggestion():
    """Another name, or a network that none were published for."""
    with pytest.raises(UserError, match="did you mean 'cifar10 resnet20 akamaster'"):
        CIFAR10(weights="akamastr").published()
    with pytest.raises(UserError, match=r"No published weights 'cifar10 vgg16-bn akamaster'.*known"):
        CIFAR10(network="vgg16-bn", weights="akamaster").published()
    assert CIFAR10().published() is None


def test_published_weights_are_loaded(root, monkeypatch):
    """Names lose the prefix of data-parallel training."""
    source = Colours(network="resnet20").build()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    task = publish(root, monkeypatch, saved({"state_dict": state}))
    model = task.build()
    task.load_published(model)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    assert task.published().claimed == 91.73


def test_missing_or_altered_weights_are_refused(root, monkeypatch):
    """The file and its source are named."""
    task = publish(root, monkeypatch, saved({}))
    (path,) = root.rglob("*.th")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=f"{path} is not the published one"):
        task.load_published(task.build())
    path.unlink()
    with pytest.raises(UserError, match=r"weights are missing .*resnet20-12fca82f[.]th.*https://"):
        task.load_published(task.build())
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(UserError, match=r"weights are missing \(BENCH_DATA is not set\)"):
        task.load_published(task.build())


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_weights_that_would_run_code_are_refused(root, monkeypatch):
    """And do not run it, though their checksum is the declared one."""
    task = publish(root, monkeypatch, saved({"state_dict": {"conv1.weight": Payload(root / "it ran")}}))
    with pytest.raises(UserError, match="cannot be read without running code"):
        task.load_published(task.build())
    assert not (root / "it ran").exists()


# -------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenet2", "Unknown network 'mobilenet2' .did you mean 'mobilenetv2'"),
        ("imagenet-resnet81", "did you mean 'imagenet-resnet18'"),
        ("resnet21", "6n [+] 2 layers .*not 21"),
        ("resnet2", "6n [+] 2 layers .*not 2"),
        ("lenet5", "at least 16 x 16 pixels, not 8 x 8"),
    ],
)
def test_networks_that_cannot_be_built(name, message):
    """The nearest name, or the reason."""
    with pytest.raises(UserError, match=message):
        _networks.build(name, 1, 10, 8)


def test_lenet5_at_its_least():
    """16 x 16 leaves one pixel after the second pooling, 15 x 15 none."""
    with pytest.raises(UserError, match="not 15 x 15"):
        _networks.build("lenet5", 1, 10, 15)
    assert _networks.build("lenet5", 1, 10, 16)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_fresh_weights_are_hes():
    """Deviation sqrt(2 / fan in), no bias; drawing again changes every weight and resets the batch norms."""
    model = _networks.build("vgg16-bn", 3, 10, 32)
    assert model.features[-4].weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not model.classifier.bias.any()
    before, norm = model.features[0].weight.clone(), model.features[1]
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.running_mean)
    _networks.initialise(model)
    assert not (before == model.features[0].weight).any()
    assert norm.weight.all()
    assert not norm.running_mean.any()


@pytest.fixture
def nets(monkeypatch) -> str:
    """A user's module."""
    module = types.ModuleType("nets_of_a_user")
    module.sized = lambda channels, classes: nn.Conv2d(channels, classes, 1)
    module.fixed = lambda: nn.Conv2d(3, 10, 1)
    module.wrong = lambda channels, classes: "no network"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


@pytest.mark.parametrize("function", ["sized", "fixed"])
def test_a_users_own_network(nets, function):
    """With channels and classes, or without."""
    assert CIFAR10(network=f"{nets}:{function}").build().weight.shape == (10, 3, 1, 1)


@pytest.mark.parametrize(
    ("function", "message"), [("wrong", "returned a str"), ("absent", "cannot be imported .*absent")]
)
def test_a_users_network_that_is_none(nets, function, message):
    """What came instead of a module."""
    with pytest.raises(UserError, match=message):
        _networks.build(f"{nets}:{function}", 3, 10, 32)


def test_a_users_module_that_is_missing():
    """Is the user's error."""
    with pytest.raises(UserError, match=r"cannot be imported .*not_there"):
        _networks.build("not_there:network", 3, 10, 32)


@pytest.mark.parametrize("size", [6, 7])
def test_the_shortcut_of_option_a_is_a_padded_slice(size):
    """Every second pixel; eight zero channels on either side of sixteen."""
    x = torch.randn(2, 16, size, size)
    assert torch.equal(PaddedShortcut(16, 32, 2)(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)))


@pytest.mark.parametrize("source", [[2, -1, 0], [-1, 0, 1, 2], [0, 1, 2], [0, 1], [-1, -1], [1, 1, 2, -1, 0]])
def test_the_shortcut_follows_any_map(source):
    """Output channel k copies input channel source[k], or is zero."""
    shortcut, x = PaddedShortcut(3, 6, 2), torch.randn(2, 3, 4, 4)
    shortcut.set_map(source, 3)
    expected = torch.stack([x[:, s, ::2, ::2] if s >= 0 else torch.zeros(2, 2, 2) for s in source], 1)
    assert torch.equal(shortcut(x), expected)
    assert f"source={source}" in repr(shortcut)


def test_torchvision_imports_in_a_fresh_process():
    """Also where its operators were built for other libraries than torch's."""
    code = "from slimbench.tasks._torchvision import torchvision as t; t().models, t().datasets, t().transforms"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------------------- the real data


@pytest.mark.data
@pytest.mark.parametrize(("task", "sizes"), [(CIFAR10, (45_000, 5000, 10_000)), (MNIST, (55_000, 5000, 10_000))])
def test_the_real_splits(real_data, task, sizes):
    """The published images, verified, in the declared sizes; the mean of train is near what inputs are scaled by."""
    assert tuple(task().size(split) for split in ("train", "val", "test")) == sizes
    pixels = task().load("train").pixels[:5000].float() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(task.mean, abs=0.05)


@pytest.mark.data
def test_published_resnet20_classifies(real_data):
    """At least 90 % of a thousand test images: names, normalisation and shortcuts are those of its training."""
    task = CIFAR10(weights="akamaster")
    model = task.build().eval()
    task.load_published(model)
    inputs, labels = task.batch("test", torch.arange(1000), None)
    with torch.inference_mode():
        assert (model(inputs).argmax(1) == labels).float().mean() >= 0.90
