"""Images per second of our training loop and of the plain one, ResNet-20 on CIFAR-10's shape, in one session.

The plain loop is what a tutorial writes: float32, NCHW, a DataLoader with two workers that augments image by image.
Blocks of both alternate, so that a busy machine slows both; the ratio of their medians is in ``extra_info``, printed.
The pixels are random: the speed does not depend on them.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from slimbench.core import Recipe, Split
from slimbench.environment import has_fast_bf16, physical_cores, resolve
from slimbench.tasks import _images
from slimbench.tasks._torchvision import torchvision
from slimbench.tasks.cifar import CIFAR10
from slimbench.train import Loop

IMAGES = 128 * 16
BLOCKS = 5


def pixels() -> _images.Images:
    rng = torch.Generator().manual_seed(0)
    return _images.Images(
        torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=rng),
        torch.randint(0, 10, (IMAGES,), generator=rng),
    )


SOURCE = pixels()


@dataclass(frozen=True)
class Noise(CIFAR10):
    """CIFAR-10 in shape only."""

    name: ClassVar[str] = "noise"

    def load(self, split: Split) -> _images.Images:
        return SOURCE


class Plain(Dataset[Any]):
    """One image at a time through torchvision's transforms."""

    def __init__(self) -> None:
        t = torchvision().transforms
        self.transform = t.Compose(
            [
                t.RandomHorizontalFlip(),
                t.RandomCrop(32, 4),
                t.ToTensor(),
                t.Normalize(CIFAR10.mean, CIFAR10.std),
            ]
        )
        self.images = [t.ToPILImage()(image) for image in SOURCE.pixels]

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index]), int(SOURCE.labels[index])


def plain_epoch(model: Any, optimizer: Any, loader: Any) -> None:
    model.train()
    for inputs, targets in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def test_training_throughput(benchmark) -> None:
    torch.set_num_threads(physical_cores())
    task = Noise("resnet20", Recipe(epochs=1))
    loop = Loop(task, 0, resolve("auto", "cpu", physical_cores()), allowance=100)
    ours, theirs = task.build(), task.build()
    loader = DataLoader(Plain(), 128, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}

    def block() -> None:
        for name, epoch in (
            ("ours", lambda: loop.fit(ours, 1, name="ours")),
            ("plain", lambda: plain_epoch(theirs, optimizer, loader)),
        ):
            started = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(block, rounds=BLOCKS, warmup_rounds=1)
    rate = {name: IMAGES / statistics.median(taken[1:]) for name, taken in seconds.items()}
    benchmark.extra_info |= {f"{name}_images_per_second": round(r) for name, r in rate.items()}
    benchmark.extra_info |= {"ratio": round(rate["ours"] / rate["plain"], 2), "fast_bf16": has_fast_bf16()}
    benchmark.extra_info["load"] = os.getloadavg()[0]
    print(f"\n{benchmark.extra_info}")
