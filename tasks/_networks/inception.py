"""Inception with each 5x5 convolution replaced by two 3x3, and batch norm: GPP's base networks, and deeper ones.

A network deepens by copies of the last module of each stage, which keep its widths. Its longest path has three
convolutions in the stem, three a module, and a linear layer: 28 modules make 88 layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

# channels of a module: 1x1; 1x1 before the 3x3, 3x3; 1x1 before the two 3x3, those; 1x1 behind the pooling
Widths = tuple[int, int, int, int, int, int]

# GoogLeNet (Szegedy et al. 2015, table 1), whose two middle 3x3 have the widths of its 5x5
GOOGLENET: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
CIFAR: Widths = (16, 20, 32, 4, 8, 8)  # doubled from stage to stage: 3n modules have the MACs of ResNet-(12n + 8)


class Module(nn.Module):
    """Four branches side by side, (N, C, H, W) -> (N, sum of their widths, H, W)."""

    def __init__(self, width_in: int, widths: Widths) -> None:
        super().__init__()
        one, before_three, three, before_five, five, pooled = widths
        self.one = convolution(width_in, one, 1)
        self.three = nn.Sequential(convolution(width_in, before_three, 1), convolution(before_three, three, 3))
        self.five = nn.Sequential(
            convolution(width_in, before_five, 1),
            convolution(before_five, before_five, 3),
            convolution(before_five, five, 3),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(width_in, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The branches' maps, one behind the other."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


class Inception(nn.Module):
    """(N, C, H, W) -> (N, classes). ``stages`` are sequences of modules, with pooling between them."""

    def __init__(self, stem: nn.Sequential, width: int, stages: Sequence[Sequence[Widths]], classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList()
        for stage in stages:
            ins = [width, *map(_width, stage)]
            self.stages.append(nn.Sequential(*map(Module, ins, stage)))
            width = ins[-1]
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 3, 2, 1) if index else x)
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def convolution(ins: int, outs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    conv = nn.Conv2d(ins, outs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), nn.ReLU())


def cifar(modules: int, channels: int, classes: int) -> Inception:
    """For small images: three stages of as many modules. Raises: UserError for a number not divisible by three."""
    if modules < 3 or modules % 3:
        raise UserError(f"An Inception for small images has 3, 6, 9, 12, ... modules, not {modules}.")
    widths = [_times(CIFAR, 2**stage) for stage in range(3)]
    stem = nn.Sequential(convolution(channels, 24, 3), convolution(24, 24, 1), convolution(24, 64, 3))
    return Inception(stem, 64, [[stage] * (modules // 3) for stage in widths], classes)


def imagenet(modules: int, classes: int) -> Inception:
    """For images of 224 pixels: GoogLeNet's nine modules, and copies, as many of each stage as it has modules.

    Raises: UserError for fewer than nine.
    """
    if modules < 9:
        raise UserError(f"An Inception for ImageNet has at least 9 modules, not {modules}.")
    pool = nn.MaxPool2d(3, 2, 1)
    stem = nn.Sequential(convolution(3, 64, 7, 2), pool, convolution(64, 64, 1), convolution(64, 192, 3), pool)
    side = round(modules * 2 / 9)  # of the first and of the last stage
    counts = (side, modules - 2 * side, side)
    stages = [(*stage, *[stage[-1]] * (n - len(stage))) for stage, n in zip(GOOGLENET, counts, strict=True)]
    return Inception(stem, 192, stages, classes)


def _width(widths: Widths) -> int:
    """Channels that a module puts out."""
    return widths[0] + widths[2] + widths[4] + widths[5]


def _times(widths: Widths, factor: int) -> Widths:
    one, before_three, three, before_five, five, pooled = (width * factor for width in widths)
    return one, before_three, three, before_five, five, pooled
