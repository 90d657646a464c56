"""VGG-16 with batch norm for 32 x 32 images: 13 convolutions and one linear layer (Li et al. 2017 and after), or two.

The two with a hidden linear layer are those of ETPF's authors, whose own has batch norm behind the ReLU, and dropout.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_DROPPED = 0.15


class VGG(nn.Module):
    """(N, C, H, W) -> (N, classes); H and W at least 32, or average pooling has nothing left.

    Args:
        hidden: whether a linear layer of 512 neurons stands before the last.
        relu_first: whether batch norm follows the ReLU, and dropout it, instead of standing between both.
        divisor: of all widths.

    """

    def __init__(
        self, channels: int, classes: int, *, hidden: bool = False, relu_first: bool = False, divisor: int = 1
    ) -> None:
        super().__init__()

        def after(norm: nn.Module) -> list[nn.Module]:
            return [nn.ReLU(), norm, nn.Dropout(_DROPPED)] if relu_first else [norm, nn.ReLU()]

        layers: list[nn.Module] = []
        for stage in ([width // divisor for width in widths] for widths in WIDTHS):
            for width_in, width in itertools.pairwise((channels, *stage)):
                convolution = nn.Conv2d(width_in, width, 3, padding=1, bias=relu_first)
                layers += [convolution, *after(nn.BatchNorm2d(width))]
            layers.append(nn.MaxPool2d(2))
            channels = stage[-1]
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential()
        if hidden:
            self.hidden = nn.Sequential(
                nn.Linear(channels, channels, bias=relu_first), *after(nn.BatchNorm1d(channels))
            )
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.hidden(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)))
