"""VGG-16 with batch norm for 32 x 32 images: 13 convolutions and one linear layer (Li et al. 2017 and after)."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """(N, C, H, W) -> (N, classes); H and W at least 32, or average pooling has nothing left."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage in WIDTHS:
            for width_in, width in itertools.pairwise((channels, *stage)):
                layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = stage[-1]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
