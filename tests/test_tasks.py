"""Tasks: specs that hold what they declare, splits that stay apart, scores with the answer written out."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from slimbench import discover
from slimbench.core import Metric, Recipe, UserError, unpack
from slimbench.tasks import _images, digits
from slimbench.tasks._classification import Classification
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.digits import Digits
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.mnist import MNIST, FashionMNIST

LOADERS = (digits._splits,)
TASKS = [cls for cls in discover.found("tasks").values() if cls.__module__.startswith("slimbench.tasks")]


# -------------------------------------------------------------------------------------------- every task in the folder


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


# -------------------------------------------------------------------------------------------------------------- digits


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


@pytest.mark.parametrize("part", ["images", "target"])
def test_altered_digits_are_refused(monkeypatch, part):
    """One grey level, or one label, of another copy of scikit-learn."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    bunch[part].flat[0] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: bunch)
    with pytest.raises(UserError, match="scikit-learn's digits is not the data that was declared"):
        Digits().load("train")


# ---------------------------------------------------------------------------------------------------- images in memory


@pytest.mark.parametrize(("declared", "said"), [("ab" * 32, "ab" * 32), ("", "empty")])
def test_other_data_are_refused_with_both_sums(declared, said):
    """Whoever writes a task copies the first one."""
    pixels, labels = np.arange(6, dtype=np.uint8), np.ones(2, np.uint8)
    found = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    _images.expect("My data", found, pixels, labels)
    with pytest.raises(UserError, match=f"its checksum is {found}, the declared one is {said}: .*mend `content`"):
        _images.expect("My data", declared, pixels, labels)


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


# ----------------------------------------------------------------------------------------------------- what is missing


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
