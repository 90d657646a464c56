"""A task that trains in a second and methods that misbehave: a plug-in file, loaded as a user's would be."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from slimbench.core import Budget, Card, Recipe, Split, Task, Trainer
from slimbench.tasks import _images
from slimbench.tasks._classification import Classification
from slimbench.train import fine_tuning


@dataclass(frozen=True)
class Stripes(Classification):
    """Noisy stripes of four directions, (1, 8, 8): 96 to train on, 40 to validate, 50 to test."""

    network: str = "resnet8"
    recipe: Recipe = Recipe(epochs=2, batch_size=16, lr=0.05)

    name: ClassVar[str] = "stripes"
    version: ClassVar[int] = 1
    channels: ClassVar[int] = 1
    size_px: ClassVar[int] = 8
    n_classes: ClassVar[int] = 4
    pad: ClassVar[int] = 1
    content: ClassVar[str] = "stripes"

    def load(self, split: Split) -> _images.Images:
        """Images and labels of a split."""
        return _stripes(split)


@functools.cache
def _stripes(split: Split) -> _images.Images:
    rng = np.random.RandomState({"train": 1, "val": 2, "test": 3}[split])
    count = {"train": 96, "val": 40, "test": 50}[split]
    labels = rng.randint(0, 4, count)
    y, x = np.mgrid[:8, :8]
    patterns = np.stack([x, y, x + y, x - y]) // 2 % 2 * 150
    pixels = (patterns[labels] + rng.randint(0, 100, (count, 8, 8))).astype(np.uint8)
    return _images.images(pixels, labels)


class OneUseless(nn.Module):
    """Stripes (N, 1, 8, 8) -> (N, 4): the two layers of ``useless`` cost as much as the rest, and add nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self._layer(1, 16)
        self.useful = nn.Sequential(self._layer(16, 16), self._layer(16, 16))
        self.useless = nn.Sequential(self._layer(16, 16), self._layer(16, 16))
        self.linear = nn.Linear(16, 4)

    @staticmethod
    def _layer(ins: int, outs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1, bias=False), nn.BatchNorm2d(outs), nn.ReLU())

    def forward(self, x):
        x = self.stem(x)
        return self.linear((self.useful(x) + 0.0 * self.useless(x)).mean((2, 3)))


class InPlace(nn.Module):
    """A sum in place that is not assigned: what a traced graph with masks would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.linear = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        x = self.a(x).relu()
        y = self.b(x)
        y.add_(x)
        return self.linear(y.relu().mean((2, 3)))


class Untraceable(nn.Module):
    """Its forward pass depends on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.linear(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))


CARD = Card(title="A fake", fidelity={"all tasks": "control"}, granularity="none")


@dataclass(frozen=True)
class Fake:
    """Fine-tunes for the budget's epochs and removes nothing."""

    name: ClassVar[str] = "fake"
    card: ClassVar[Card] = CARD

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        return trainer.fit(model, budget.epochs, name="fine-tune", recipe=fine_tuning(task.recipe))


@dataclass(frozen=True)
class Misbehaves:
    """Does what ``how`` says."""

    how: str = "raises"

    name: ClassVar[str] = "misbehaves"
    card: ClassVar[Card] = CARD

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        return "it is not to be had" if self.how == "unsupported" else None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        return getattr(self, self.how)(model, task, budget, trainer)

    def raises(self, model, task, budget, trainer):
        raise ValueError("a planted error")

    def segfaults(self, model, task, budget, trainer):
        import ctypes

        ctypes.string_at(0)

    def is_killed(self, model, task, budget, trainer):
        os.kill(os.getpid(), 9)

    def exits(self, model, task, budget, trainer):
        os._exit(7)

    def hangs(self, model, task, budget, trainer):
        time.sleep(600)

    def returns_nothing(self, model, task, budget, trainer):
        pass

    def returns_two(self, model, task, budget, trainer):
        return model, model

    def puts_out_nan(self, model, task, budget, trainer):
        with torch.no_grad():
            model.linear.weight[0, 0] = float("nan")
        return model

    def changes_shape(self, model, task, budget, trainer):
        model.linear = nn.Linear(64, 3)
        return model

    def peeks(self, model, task, budget, trainer):
        task.evaluate(model, "test")
        return model

    def peeks_at_batches(self, model, task, budget, trainer):
        next(iter(trainer.batches("test")))
        return model

    def peeks_at_labels(self, model, task, budget, trainer):
        task.load(split="test")
        return model

    def overspends(self, model, task, budget, trainer):
        return trainer.fit(model, budget.epochs + 1, name="too long")

    def misses_the_budget(self, model, task, budget, trainer):
        return model

    def draws_unseeded(self, model, task, budget, trainer):
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            model.linear.weight.add_(torch.randn(model.linear.weight.shape, generator=generator))
        return model
