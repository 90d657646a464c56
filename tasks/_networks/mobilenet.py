"""MobileNetV2 for 32 x 32 images: stem and first strided stage at stride 1, 1x1 shortcuts where widths change."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# expansion, width, blocks, stride of the first block (Sandler et al. 2018, table 2, with CIFAR strides)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(nn.Module):
    """(N, C, H, W) -> (N, classes); every width is ``1 / thinned`` of the paper's."""

    def __init__(self, channels: int, classes: int, thinned: int = 1) -> None:
        super().__init__()
        width_in, last = 32 // thinned, 1280 // thinned
        self.conv1 = nn.Conv2d(channels, width_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_in)
        blocks: list[nn.Module] = []
        for expansion, full, count, stride in STAGES:
            width = full // thinned
            for index in range(count):
                blocks.append(InvertedResidual(width_in, width, expansion, stride if index == 0 else 1))
                width_in = width
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(width_in, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut at stride 1."""

    def __init__(self, width_in: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * width_in
        self.conv1 = nn.Conv2d(width_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.residual = stride == 1
        self.shortcut = nn.Sequential()
        if self.residual and width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, H, W) -> (N, width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.residual else y
