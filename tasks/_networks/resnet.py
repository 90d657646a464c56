"""CIFAR ResNets (He et al. 2016, section 4.2): depth 6n + 2, widths 16-32-64, shortcut option A or B, or none."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.core import UserError
from slimbench.tasks._networks.shortcut import PaddedShortcut

Option = Literal["A", "B", "plain"]


class CifarResNet(nn.Module):
    """(N, C, H, W) -> (N, classes). Layer names are those of the published weights. "plain" has no shortcuts."""

    def __init__(self, depth: int, channels: int, classes: int, option: Option = "A") -> None:
        super().__init__()
        blocks = blocks_a_stage(depth)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1, option)
        self.layer2 = _stage(16, 32, blocks, 2, option)
        self.layer3 = _stage(32, 64, blocks, 2, option)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, or none."""

    def __init__(self, width_in: int, width: int, stride: int, option: Option) -> None:
        super().__init__()
        self.is_plain = option == "plain"
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Sequential()
        if (stride != 1 or width_in != width) and not self.is_plain:
            self.shortcut = (
                PaddedShortcut(width_in, width, stride)
                if option == "A"
                else nn.Sequential(nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, H, W) -> (N, width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y) if self.is_plain else F.relu(y + self.shortcut(x))


def blocks_a_stage(depth: int) -> int:
    """n of a network of 6n + 2 layers. Raises: UserError for another depth."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise UserError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, 32, 44, 56, 110, ...), not {depth}.")
    return blocks


def _stage(width_in: int, width: int, blocks: int, stride: int, option: Option) -> nn.Sequential:
    first = BasicBlock(width_in, width, stride, option)
    return nn.Sequential(first, *(BasicBlock(width, width, 1, option) for _ in range(blocks - 1)))
