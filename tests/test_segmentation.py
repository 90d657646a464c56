"""Segmentation: mmsegmentation's networks, data and metric through one adapter; windows that keep labels in place."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import fresh
from slimbench import artifact, seeding
from slimbench.compress import compress
from slimbench.core import Budget, Cell, MissingDataError, Recipe, Settings, Split, UserError, unpack
from slimbench.cost import count
from slimbench.methods import _choice, _surgery
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.magnitude_weights import MagnitudeWeights
from slimbench.methods.resconv import ResConv
from slimbench.methods.uniform_width import UniformWidth
from slimbench.tasks import _scenes, camvid, cityscapes, texture_digits, voc
from slimbench.tasks._networks import segmentation
from slimbench.tasks._scenes import IGNORED, Scenes
from slimbench.tasks._segmentation import Segmentation
from slimbench.tasks.camvid import CamVid
from slimbench.tasks.cityscapes import Cityscapes
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.tasks.voc import VOC2012
from slimbench.train import Loop, fine_tuning
from zoo import relative

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = ("fcn-resnet14", "pspnet-resnet14", "deeplabv3-resnet14", "fast-scnn", "bisenetv2", "unet-8", "unet-deconv-8")
RNG = np.random.RandomState(0)


@dataclass(frozen=True)
class Squares(Segmentation):
    """Images of 24 x 32 pixels in two colours, which are the labels."""

    network: str = "fcn-resnet14"
    recipe: Recipe = Recipe(epochs=1, batch_size=4, lr=0.01)

    name: ClassVar[str] = "squares"
    version: ClassVar[int] = 1
    class_names: ClassVar[tuple[str, ...]] = ("dark", "light", "never")
    size_px: ClassVar[tuple[int, int]] = (24, 32)
    crop: ClassVar[tuple[int, int]] = (16, 16)

    def data_checksum(self) -> str:
        """Of nothing."""
        return "squares"

    def load(self, split: Split) -> Scenes:
        """The same eight images."""
        labels = [np.kron(cells(i), np.ones((8, 8), np.uint8)) for i in range(8)]
        return _scenes.scenes([np.repeat(label[:, :, None] * 200, 3, 2) for label in labels], labels)


def cells(seed: int) -> np.ndarray[Any, Any]:
    return np.random.RandomState(seed).randint(0, 2, (3, 4)).astype(np.uint8)


class Answers(nn.Module):
    """Puts out the logits it was given, image by image."""

    def __init__(self, logits: list[torch.Tensor]) -> None:
        super().__init__()
        self.logits, self.at = logits, 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.logits[self.at : self.at + len(x)]
        self.at += len(x)
        return torch.stack(parts)


# ------------------------------------------------------------------------------------------------- the adapter


def test_mmsegmentation_imports_in_a_fresh_process():
    """Also beside mmcv-lite, which lacks compiled operators; they say so when they are called."""
    code = """
from slimbench.tasks._mmseg import mmseg, base_config
mmseg("models"), mmseg("datasets"), mmseg("evaluation")
assert "SyncBN" not in str(base_config("fast_scnn")) and "pretrained" not in str(base_config("pspnet_r50-d8"))
from mmcv.ops import nms_rotated
import mmcv, torch
if "lite" in (mmcv.__file__ or "") or type(__import__("sys").modules["mmcv._ext"]).__name__ == "_Operators":
    try:
        nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)
    except NotImplementedError as error:
        assert "full mmcv" in str(error)
    else:
        raise SystemExit("an operator that is not there answered")
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(("adapter", "package"), [("_mmseg", "mmsegmentation"), ("_basicsr", "basicsr")])
def test_a_missing_system_library_is_one_sentence(adapter, package):
    """OpenCV without libGL, as on a bare server: what to install, and no traceback of imports."""
    code = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from slimbench.core import UserError
from slimbench.tasks import {adapter} as adapter
try:
    adapter.mmseg("models") if hasattr(adapter, "mmseg") else adapter.basicsr()
except UserError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"{package} cannot be imported (libGL.so.1: cannot open shared object file): on Debian")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", SMALL)
def test_networks_put_out_logits_of_the_images_size(name):
    """Auxiliary heads speak in training alone, and are gone from the deployed network; the original keeps them."""
    model = segmentation.build(name, 5)
    inputs = torch.randn(2, 3, 40, 56)  # no multiple of anything that the networks divide by
    with torch.no_grad():
        outputs = model.train()(inputs)
        assert len(outputs) == 1 + len(model.auxiliary_head) > 1
        assert all(out.shape == (2, 5, 40, 56) for out in outputs)
        deployed = segmentation.without_auxiliary_heads(model.eval())
        assert torch.equal(deployed(inputs), model(inputs))
    assert len(model.auxiliary_head) > 0
    assert not any("auxiliary" in key for key in deployed.state_dict())
    assert segmentation.without_auxiliary_heads(deployed) is deployed


def test_fresh_logits_are_small():
    """As mmsegmentation's heads start: He's variance would start with a loss of tens."""
    torch.manual_seed(0)
    with torch.no_grad():
        logits = segmentation.build("fcn-resnet14", 5).eval()(torch.randn(1, 3, 64, 64))
    assert float(logits.std()) < 3


@pytest.mark.parametrize("name", SMALL)
def test_programs_take_any_size(name, tmp_path):
    """Exported at one size, run at another and another batch: the same outputs."""
    torch.manual_seed(0)
    model = segmentation.without_auxiliary_heads(segmentation.build(name, 5)).eval()
    artifact.save(model, torch.randn(1, 3, 48, 64), tmp_path / "a", dynamic_size=True)
    inputs = torch.randn(3, 3, 72, 40)
    with torch.no_grad():
        assert torch.allclose(artifact.load(tmp_path / "a").module()(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_channels_are_removed_exactly(name):
    """What is left computes what was masked, in training mode too; counts are the ledger's, auxiliary heads apart."""
    torch.manual_seed(0)
    model = segmentation.build(name, 5).double().eval()
    example = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.4), how=_choice.How())
    assert not any("auxiliary" in width.name or "conv_seg" in width.name for width in every)
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    with torch.no_grad():
        expected, got = masked(example), smaller(example)
        assert relative(got, expected) < 1e-10
    deployed = segmentation.without_auxiliary_heads(smaller)
    dense = count(segmentation.without_auxiliary_heads(model), example)
    assert count(deployed, example).macs / dense.macs == pytest.approx(0.4, rel=0.01)
    with torch.no_grad():  # heads read what is left
        assert len(smaller.train()(torch.cat([example, example]))) == 1 + len(model.auxiliary_head)


def test_an_unknown_network_is_refused():
    """With the nearest name."""
    with pytest.raises(UserError, match="did you mean 'fast-scnn'"):
        segmentation.build("fast-scn", 5)


@pytest.mark.parametrize("name", [n for n in segmentation.NAMES if "resnet18" in n or n == "unet"])
def test_larger_networks_are_those_of_the_configs(name):
    """Widths and heads fit."""
    model = segmentation.without_auxiliary_heads(segmentation.build(name, 3)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)


# -------------------------------------------------------------------------------------------------- the windows


def test_labels_stay_in_place():
    """However a window is moved, scaled and mirrored: where labels are alike around, the colour is the label's."""
    task = Squares()
    seen = set()
    for seed in range(20):
        inputs, labels = task.batch("train", torch.arange(8), seeding.generator(seed, "windows"))
        assert inputs.shape == (8, 3, 16, 16)
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        level = inputs[:, 0] * 0.229 + 0.485
        same = nn.functional.max_pool2d(labels.float()[:, None], 5, 1, 2) == -nn.functional.max_pool2d(
            -labels.float()[:, None], 5, 1, 2
        )
        outside = level[labels == IGNORED]
        seen |= {IGNORED} if len(outside) else set()
        assert torch.allclose(outside, torch.tensor(0.485), atol=1e-4)
        for label, expected in ((0, 0.0), (1, 200 / 255)):
            inner = ((labels == label) & same[:, 0])[:, 2:-2, 2:-2]  # what lies beyond a window's edge is not seen
            chosen = level[:, 2:-2, 2:-2][inner]
            seen |= {label} if len(chosen) else set()
            assert torch.allclose(chosen, torch.tensor(expected), atol=1e-4)
    assert seen == {0, 1, IGNORED}


def test_windows_are_mirrored_and_scaled():
    """Half of the windows are mirrored; scales lie in the range."""
    task = replace(Squares())
    source = task.load("train")
    rows, columns = _scenes._window(task, source.images, torch.arange(8).repeat(50), seeding.generator(0, "w"))
    steps = columns[:, 1] - columns[:, 0]
    assert 0.4 < float((steps < 0).float().mean()) < 0.6
    assert torch.allclose(steps.abs(), rows[:, 1] - rows[:, 0])
    assert float(steps.abs().min()) > 1 / 2.01
    assert float(steps.abs().max()) < 1 / 0.49
    assert float(steps.abs().min()) < 0.6
    assert float(steps.abs().max()) > 1.8


def test_without_a_generator_the_centre_is_taken_as_it_is():
    """Rows 4 to 20, columns 8 to 24, of the image itself."""
    task = Squares()
    inputs, labels = task.batch("train", torch.tensor([3]), None)
    source = task.load("train")
    assert torch.equal(labels[0], source.labels.image(3)[0, 4:20, 8:24].long())
    pixels = (inputs[0, 1] * 0.224 + 0.456) * 255
    assert torch.allclose(pixels, source.images.image(3)[1, 4:20, 8:24].float(), atol=1e-3)


def test_label_maps_may_be_larger_than_images():
    """A label is that of the pixel in the middle of an image's pixel."""
    task = Squares()
    labels = np.kron(cells(0), np.ones((16, 16), np.uint8))  # 48 x 64
    images = np.repeat(labels[::2, ::2, None] * 200, 3, 2)
    source = _scenes.scenes([images], [labels])
    inputs, found = _scenes.batch(task, source, torch.tensor([0]), None)
    assert torch.equal(found[0] == 1, inputs[0, 0] > 0)


# ------------------------------------------------------------------------------------------ losses and classes


def test_the_loss_is_the_mean_over_labelled_pixels_and_heads():
    """Uniform logits cost ln(3) a pixel, whatever is ignored; an auxiliary head adds 0.4 of its own."""
    task = Squares()
    targets = torch.tensor([[[0, 1], [IGNORED, 2]]])
    logits = torch.zeros(1, 3, 2, 2)
    assert float(task.loss(logits, targets)) == pytest.approx(np.log(3))
    assert float(task.loss((logits, logits, logits), targets)) == pytest.approx(1.8 * np.log(3))
    sure = nn.functional.one_hot(torch.tensor([[[0, 1], [0, 2]]]), 3).permute(0, 3, 1, 2) * 100.0
    assert float(task.loss(sure, targets)) == pytest.approx(0)
    assert float(task.loss(logits, torch.full((1, 2, 2), IGNORED))) == 0


def test_balanced_classes_are_weighed_by_their_share():
    """1 / ln(1.02 + share): the rarer, the heavier, and the loss is a weighed mean."""
    task = Squares(balanced=True)
    labels = task.load("train").labels.values
    share = float((labels == 1).float().mean())
    weights = _scenes.class_weights(task)
    assert float(weights[1]) == pytest.approx(1 / np.log(1.02 + share))
    assert float(weights[2]) == pytest.approx(1 / np.log(1.02))
    targets = torch.tensor([[[0, 2]]])
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])[None, :, None]
    costs = [np.log(np.exp(2) + 2) - 2, np.log(3)]
    expected = (weights[0] * costs[0] + weights[2] * costs[1]) / (weights[0] + weights[2])
    assert float(task.loss(logits, targets)) == pytest.approx(float(expected), rel=1e-5)


def test_classes_of_windows_are_majorities():
    """Of the labelled pixels; -1 where there is none."""
    targets = torch.tensor([[[0, 0, 2, 1], [0, 1, 255, 1], [255, 255, 2, 255], [255, 255, 255, 255]]])
    assert Squares().classes(targets, (2, 2)).tolist() == [[[0, 1], [-1, 2]]]


def test_distillation_draws_logits_pixel_by_pixel():
    """T^2 KL, mean over pixels: twice the image, the same distance."""
    task = Squares()
    one, two = torch.randn(2, 1, 3, 4, 4)
    once = task.distance(one, two, 2.0)
    assert torch.allclose(task.distance(one.repeat(1, 1, 2, 1), two.repeat(1, 1, 2, 1), 2.0), once)
    soft, goal = (torch.log_softmax(x / 2, 1) for x in (one, two))
    assert torch.allclose(once, 4 * (goal.exp() * (goal - soft)).sum(1).mean())
    assert float(task.distance(one, one, 3.0)) == pytest.approx(0, abs=1e-6)


def test_networks_with_auxiliary_heads_train_and_are_distilled():
    """Heads learn too; hooks see the logits alone."""
    task = Squares(recipe=Recipe(epochs=1, batch_size=4, lr=0.01, distillation=0.5))
    torch.manual_seed(0)
    teacher, model = task.build(), task.build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    shapes = []
    loop = Loop(task, 0, Settings(), 1.0, teacher=teacher)  # type: ignore[arg-type]
    loop.fit(model, 1, name="t", recipe=fine_tuning(task.recipe), after_step=lambda s: shapes.append(s.outputs.shape))
    assert shapes == [(4, 3, 16, 16)] * 2
    moved = {k for k, v in model.state_dict().items() if k.endswith("weight") and not torch.equal(v, before[k])}
    assert any(k.startswith("auxiliary_head") for k in moved)


def test_a_cell_deploys_without_its_auxiliary_heads_and_the_next_starts_with_them(store):
    """Counts, program and scores are of the deployed network; stored weights are of the one that trained."""
    task: Any = Squares()
    dense = Cell(task, Dense(), Budget(1.0), 0)
    cell = Cell(task, L1Channels(), Budget(0.5, epochs=1), 0, Settings(), dense)
    first, second = compress(dense, store), compress(cell, store)
    assert (first.status, second.status) == ("ok", "ok")
    deployed = count(task.deploy(task.build()), task.example())
    assert (first.cost.macs, first.cost.params) == (deployed.macs, deployed.params)
    assert second.cost.macs / first.cost.macs == pytest.approx(0.5, rel=0.01)
    weights = artifact.load_weights(store.artifact(first.id))
    assert any(name.startswith("auxiliary_head") for name in weights)
    assert not any("auxiliary" in name for name in artifact.load(store.artifact(first.id)).state_dict)
    start = task.build()
    start.load_state_dict(weights)  # nothing is missing


@pytest.mark.parametrize(
    ("method", "budget"),
    [
        (MagnitudeWeights("global"), Budget(0.2, "prunable_nonzero", epochs=0.5)),
        (MagnitudeWeights("layer"), Budget(0.2, "prunable_nonzero", epochs=0.5)),
        (ResConv(), Budget(0.7, epochs=1)),
        (UniformWidth(), Budget(0.5, epochs=0.5)),
    ],
)
def test_budgets_are_met_by_what_is_deployed(store, method, budget):
    """Auxiliary heads are trained, and neither count nor go."""
    task: Any = Squares()
    dense = Cell(task, Dense(), Budget(1.0), 0)
    compress(dense, store)
    record = compress(Cell(task, method, budget, 0, Settings(), dense), store)
    assert record.status == "ok", record.reason
    assert any(name.startswith("auxiliary_head") for name in artifact.load_weights(store.artifact(record.id)))


# --------------------------------------------------------------------------------------------------- the metric


def confusion_miou(predicted: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """mIoU in ten lines: over the classes that occur in labels or predictions, ignored pixels left out."""
    table = torch.zeros(classes, classes)
    for p, t in zip(predicted.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if t != IGNORED:
            table[t, p] += 1
    both = table.diag()
    union = table.sum(0) + table.sum(1) - both
    return float(100 * (both[union > 0] / union[union > 0]).mean())


def test_miou_is_that_of_a_confusion_matrix():
    """Over a split whose images differ in size, with ignored pixels, a class that never occurs, a short last batch."""
    sizes = [(6, 8)] * 5 + [(4, 4)] * 2
    labels = [RNG.choice([0, 1, 2, IGNORED], size).astype(np.uint8) for size in sizes]
    images = [RNG.randint(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]
    source = _scenes.scenes(images, labels)
    logits = [torch.from_numpy(RNG.randn(4, *size)).float() for size in sizes]
    for part in logits:
        part[3] = -100.0
    task = Squares()
    object.__setattr__(task, "class_names", ("a", "b", "c", "d"))
    scores = _scenes.evaluate(task, Answers(logits), source)
    predicted = torch.cat([part.argmax(0).flatten() for part in logits])
    flat = torch.from_numpy(np.concatenate([label.flatten() for label in labels])).long()
    assert scores["mIoU"].value == pytest.approx(confusion_miou(predicted, flat, 4))
    assert scores["mIoU"].denominator == 3
    known = flat != IGNORED
    accuracy = 100 * float((predicted == flat)[known].float().mean())
    assert scores["pixel_accuracy"].value == pytest.approx(accuracy)
    areas = np.array(unpack(scores["mIoU"].per_sample)).reshape(7, 2, 4)  # intersections, unions
    iou = areas.sum(0)[0, :3] / areas.sum(0)[1, :3]
    assert 100 * iou.mean() == pytest.approx(scores["mIoU"].value)


def test_predictions_are_enlarged_to_the_label_map():
    """Two pixels an image, scored on four."""
    source = _scenes.scenes([np.zeros((2, 2, 3), np.uint8)], [np.array([[0, 0, 1, 1]] * 4, np.uint8)])
    logits = torch.tensor([[[9.0, -9.0], [9.0, -9.0]], [[-9.0, 9.0], [-9.0, 9.0]], [[-99.0] * 2] * 2])
    assert _scenes.evaluate(Squares(), Answers([logits]), source)["mIoU"].value == 100


def test_outputs_that_are_not_finite_are_refused():
    """A NaN has no class."""
    source = _scenes.scenes([np.zeros((2, 2, 3), np.uint8)], [np.zeros((2, 2), np.uint8)])
    with pytest.raises(FloatingPointError):
        _scenes.evaluate(Squares(), Answers([torch.full((3, 2, 2), torch.nan)]), source)


# ------------------------------------------------------------------------------------------------------ the data


@pytest.fixture
def root(root) -> Iterator[Path]:
    """An empty data folder; the loaders remember nothing."""
    with fresh(camvid._load, camvid._checksum, voc._load, voc._checksum, cityscapes._load, cityscapes._checksum):
        yield root


def put(folder: Path, name: str, array: np.ndarray[Any, Any], mode: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name, **({"lossless": True} if "webp" in name else {}))
    return folder / name


def pair(images: Path, labels: Path, stem: str, *, size: tuple[int, int] = (6, 8), most: int = 11) -> None:
    put(images, f"{stem}.png", RNG.randint(0, 255, (*size, 3)).astype(np.uint8))
    put(labels, f"{stem}.png", RNG.randint(0, most + 1, size).astype(np.uint8))


def made_camvid(root: Path) -> None:
    for split, number in (("train", 3), ("val", 1), ("test", 2)):
        for index in range(number):
            pair(root / f"CamVid/{split}", root / f"CamVid/{split}annot", f"{split}{index}")


def test_camvid_in_both_layouts(root):
    """SegNet's folders, and one folder with both; 11 is "unlabelled"; colours stay red, green, blue."""
    made_camvid(root)
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


def _empty(root: Path) -> None:
    for path in (root / "CamVid/train").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_smaller, r"train1.png and its label map .*train1.png differ in size \(6 x 8 and 6 x 7 pixels\)"),
        (_out_of_range, r"trainannot/train1.png holds label 12, and the classes are 0 to 10"),
        (_grey, r"train/train1.png is not an 8-bit colour image"),
        (_sixteen_bits, r"train/train1.png is not an 8-bit colour image"),
        (_with_alpha, r"train/train1.png is not an 8-bit colour image"),
        (_unreadable, r"train/train1.png or its label map .* cannot be read"),
        (_without_label, r"trainannot/train1.png of camvid is missing"),
        (_empty, r"CamVid/train holds no image"),
    ],
)
def test_bad_files_are_named_in_one_sentence(root, spoil, said):
    """And no task is made of them."""
    made_camvid(root)
    spoil(root)
    with pytest.raises(UserError, match=said) as caught:
        CamVid().check()
    assert "\n" not in str(caught.value)


def made_voc(root: Path, names: dict[str, int]) -> None:
    base = root / "VOCdevkit/VOC2012"
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    for listing, number in names.items():
        stems = [f"{listing}{index}" for index in range(number)]
        (base / f"ImageSets/Segmentation/{listing}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            put(base / "JPEGImages", f"{stem}.jpg", RNG.randint(0, 255, (6, 8, 3)).astype(np.uint8))
            label = RNG.randint(0, 21, (6, 8)).astype(np.uint8)
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
    with pytest.raises(UserError, match="val1 is in the lists of both train and test"):
        VOC2012().load("train")
    listing.unlink()
    with pytest.raises(UserError, match="has 100 images: give more than the 100"):
        VOC2012().load("train")


def test_a_network_of_ones_own_may_put_out_fewer_pixels_and_be_bound_to_its_size(tmp_path):
    """Its logits are enlarged, in the loss as in the scores; its program takes the size that it takes."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
            self.auxiliary_head = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y * int(y.shape[2]) * (1 if x.shape[2] == 24 else 2)

    model, task = Own(), Squares()
    inputs, targets = task.batch("train", torch.arange(4), None)
    assert task.loss(model(inputs), targets).isfinite()
    assert task.deploy(model) is model
    assert "mIoU" in task.evaluate(model, "val")
    artifact.save(model.eval(), task.example(), tmp_path / "a", dynamic_size=True)
    with torch.no_grad():
        outputs = artifact.load(tmp_path / "a").module()(torch.cat([task.example()] * 3))
        assert torch.allclose(outputs, model(torch.cat([task.example()] * 3)), rtol=1e-4, atol=1e-5)


def test_a_missing_listing_is_named(root):
    """VOC's folders without its lists."""
    made_voc(root, {"train": 104, "val": 3})
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(UserError, match=r"voc2012 data in .*VOC2012 cannot be listed .*Segmentation/val.txt"):
        VOC2012().check()


def test_cityscapes_is_seen_at_half_size_and_scored_at_full(root):
    """Images are averaged over 2 x 2 pixels; label maps keep their size."""
    raw = {}
    for split, number in (("train", 102), ("val", 2)):
        for index in range(number):
            city = "ulm" if split == "train" else "bonn"
            stem = f"{city}_{index:06d}_000019"
            raw[split, index] = RNG.randint(0, 255, (8, 12, 3)).astype(np.uint8)
            put(root / f"cityscapes/leftImg8bit/{split}/{city}", f"{stem}_leftImg8bit.png", raw[split, index])
            label = RNG.choice([*range(19), IGNORED], (8, 12)).astype(np.uint8)
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


def test_texture_digits_are_the_same_everywhere():
    """The digest holds; splits have their sizes; every class occurs; nothing is ignored."""
    texture_digits._splits.cache_clear()
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
    texture_digits._splits.cache_clear()
    monkeypatch.setattr(texture_digits, "_textures", lambda: [np.zeros((512, 512), np.uint8)] * 3)
    with pytest.raises(UserError, match="checksum differs"):
        TextureDigits().load("train")
    texture_digits._splits.cache_clear()


def test_the_real_camvid_is_seg_nets_split(real_data):
    """367, 101 and 233 images of 360 x 480; all eleven classes."""
    task = CamVid()
    assert [task.size(split) for split in ("train", "val", "test")] == [367, 101, 233]
    source = task.load("test")
    assert set(source.images.heights.tolist()) == {360}
    assert set(source.images.widths.tolist()) == {480}
    assert source.labels.values.unique().tolist() == [*range(11), IGNORED]
    for loader in (camvid._load, camvid._checksum):
        loader.cache_clear()
