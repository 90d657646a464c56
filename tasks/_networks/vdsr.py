"""VDSR (Kim et al. 2016): twenty convolutions that sharpen the luma of a bicubically enlarged image.

Names as in the weights of https://github.com/twtygqyy/pytorch-vdsr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from slimbench.tasks._luma import SPAN, luma
from slimbench.tasks._networks.bicubic import Bicubic

if TYPE_CHECKING:
    from torch import Tensor

_LAYERS, _FEATURES = 18, 64  # between the first and the last


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class VDSR(nn.Module):
    """RGB in, RGB out; the convolutions see luma alone."""

    he_gain: ClassVar[float] = 1.0  # see ``super_resolution.initialise``

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.enlarge = Bicubic(scale)
        self.input = nn.Conv2d(1, _FEATURES, 3, padding=1, bias=False)
        self.residual_layer = nn.Sequential(*(_Layer() for _ in range(_LAYERS)))
        self.output = nn.Conv2d(_FEATURES, 1, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (N, 3, h, w) in [0, 1] to (N, 3, h * scale, w * scale)."""
        enlarged = self.enlarge(x)
        residual = self.output(self.residual_layer(self.relu(self.input(luma(enlarged)))))
        # with both colour differences as they were, r more luma is r / SPAN more of red, green and blue each
        return enlarged + residual / SPAN
