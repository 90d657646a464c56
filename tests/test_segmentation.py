"""Segmentation: windows that keep labels in place, losses over what is labelled, and mmsegmentation's metric."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from slimbench import artifact, seeding
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Recipe, Settings, Split, unpack
from slimbench.cost import count
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.magnitude_weights import MagnitudeWeights
from slimbench.methods.resconv import ResConv
from slimbench.methods.uniform_width import UniformWidth
from slimbench.tasks import _scenes
from slimbench.tasks._scenes import IGNORED, Scenes
from slimbench.tasks._segmentation import Segmentation
from slimbench.train import Loop, fine_tuning


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


# --------------------------------------------------------------------------------------------------------- the windows


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


# -------------------------------------------------------------------------------------------------- losses and classes


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


# ----------------------------------------------------------------------------------------------------- auxiliary heads


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


# ---------------------------------------------------------------------------------------------------------- the metric


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
    rng = np.random.RandomState(0)
    labels = [rng.choice([0, 1, 2, IGNORED], size).astype(np.uint8) for size in sizes]
    images = [rng.randint(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]
    source = _scenes.scenes(images, labels)
    logits = [torch.from_numpy(rng.randn(4, *size)).float() for size in sizes]
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
