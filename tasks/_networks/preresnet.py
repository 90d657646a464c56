"""Pre-activation ResNets with a projection at the start of *every* stage: the networks of the DCSS authors' code.

He et al., Identity Mappings in Deep Residual Networks, 2016, in two shapes: CIFAR (depth 6n + 2, widths 16-32-64) and
ImageNet (18: basic blocks; 50: bottlenecks that expand four times, stride at the 3x3 convolution).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.tasks._networks import resnet

# blocks of each stage, convolutions of a block, width of its last over that of the others
_Stages = tuple[tuple[int, ...], int, int]
_IMAGENET: dict[int, _Stages] = {18: ((2, 2, 2, 2), 2, 1), 50: ((3, 4, 6, 3), 3, 4)}


class PreActResNet(nn.Module):
    """(N, C, H, W) -> (N, classes)."""

    def __init__(self, stem: nn.Module, width: int, stages: _Stages, classes: int) -> None:
        super().__init__()
        self.stem = stem
        blocks, convolutions, expansion = stages
        layers: list[nn.Module] = []
        width_in = width
        for stage, count in enumerate(blocks):
            inner, outer = width * 2**stage, width * 2**stage * expansion
            for index in range(count):
                stride = 2 if stage and not index else 1
                widths = [*[inner] * (convolutions - 1), outer]
                layers.append(PreActBlock(width_in, widths, stride, project=not index))
                width_in = outer
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width_in)
        self.linear = nn.Linear(width_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PreActBlock(nn.Module):
    """Norm, ReLU, convolution, two or three times; the projection reads what the first convolution reads."""

    def __init__(self, width_in: int, widths: list[int], stride: int, *, project: bool) -> None:
        super().__init__()
        sizes = [3, 3] if len(widths) == 2 else [1, 3, 1]
        strided = sizes.index(3)
        ins = [width_in, *widths]
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in ins[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, size, stride if turn == strided else 1, size // 2, bias=False)
            for turn, (i, o, size) in enumerate(zip(ins, widths, sizes, strict=False))
        )
        self.project = nn.Conv2d(width_in, widths[-1], 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, H, W) -> (N, widths[-1], H / stride, W / stride)."""
        y = F.relu(self.norms[0](x))
        shortcut = x if self.project is None else self.project(y)
        y = self.convs[0](y)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(F.relu(norm(y)))
        return y + shortcut


def cifar(depth: int, channels: int, classes: int) -> PreActResNet:
    """For small images. Raises: UserError for a depth that is not 6n + 2."""
    return PreActResNet(
        nn.Conv2d(channels, 16, 3, padding=1, bias=False), 16, ((resnet.blocks_a_stage(depth),) * 3, 2, 1), classes
    )


def imagenet(depth: int, classes: int) -> PreActResNet:
    """For images of 224 pixels, depth 18 or 50."""
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1))
    return PreActResNet(stem, 64, _IMAGENET[depth], classes)
