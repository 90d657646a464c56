"""basicsr's EDSR (Lim et al. 2017) and MSRResNet, by number of blocks, features and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import nn

from slimbench.tasks import _basicsr

if TYPE_CHECKING:
    from torch import Tensor


class EDSR(_basicsr.architecture("EDSR")):  # type: ignore[misc]
    """EDSR whose colour mean is a buffer: it follows ``.to`` and copies, and a forward pass assigns nothing."""

    def __init__(self, blocks: int, features: int, scale: int) -> None:
        super().__init__(3, 3, num_feat=features, num_block=blocks, upscale=scale)
        mean = self.mean
        del self.mean
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (N, 3, h, w) in [0, 1] to (N, 3, h * scale, w * scale)."""
        first = self.conv_first((x - self.mean) * self.img_range)
        features = first + self.conv_after_body(self.body(first))
        return self.conv_last(self.upsample(features)) / self.img_range + self.mean


class EDSRClassifier(nn.Module):
    """EDSR up to its upsampler, then a mean over the image and a linear layer: (N, C, H, W) -> (N, classes).

    Layers have EDSR's names, so that widths searched on a classification task can be carried over.
    """

    he_gain: ClassVar[float] = 0.1  # sums of blocks without batch norm would grow; see ``_networks.initialise``

    def __init__(self, blocks: int, features: int, channels: int, classes: int) -> None:
        super().__init__()
        edsr = EDSR(blocks, features, 2)
        self.conv_first = nn.Conv2d(channels, features, 3, padding=1)
        self.body, self.conv_after_body = edsr.body, edsr.conv_after_body
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        first = self.conv_first(x)
        return self.linear(F.relu(first + self.conv_after_body(self.body(first))).mean((2, 3)))


class MSRResNet(_basicsr.architecture("MSRResNet")):  # type: ignore[misc]
    """MSRResNet: learns what bilinear interpolation leaves out."""

    he_gain: ClassVar[float] = 0.1  # see ``super_resolution.initialise``

    def __init__(self, blocks: int, features: int, scale: int) -> None:
        super().__init__(num_feat=features, num_block=blocks, upscale=scale)
