"""RLFN (Kong et al. 2022): blocks of three convolutions with a spatial attention; names as in ByteDance's weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEATURES, _ATTENTION_FEATURES, _BLOCKS = 52, 16, 6
_LEVELS = 255.0  # the published weights were trained on levels


class _Attention(nn.Module):
    """Enhanced spatial attention: a gate of each value, from a view that is coarser by six. At least 15 x 15 pixels."""

    def __init__(self) -> None:
        super().__init__()
        f = _ATTENTION_FEATURES
        self.conv1 = nn.Conv2d(_FEATURES, f, 1)
        self.conv_f = nn.Conv2d(f, f, 1)
        self.conv2 = nn.Conv2d(f, f, 3, stride=2)
        self.conv3 = nn.Conv2d(f, f, 3, padding=1)
        self.conv4 = nn.Conv2d(f, _FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        coarse = self.conv3(F.max_pool2d(self.conv2(reduced), 7, stride=3))
        spread = F.interpolate(coarse, (x.shape[2], x.shape[3]), mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(spread + self.conv_f(reduced)))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1) for _ in range(3))
        self.c5 = nn.Conv2d(_FEATURES, _FEATURES, 1)
        self.esa = _Attention()
        self.act = nn.LeakyReLU(0.05, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        local = self.act(self.c3_r(self.act(self.c2_r(self.act(self.c1_r(x))))))
        return self.esa(self.c5(local + x))


class RLFN(nn.Module):
    """RGB in, RGB out."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, _FEATURES, 3, padding=1)
        for number in range(1, _BLOCKS + 1):
            self.add_module(f"block_{number}", _Block())
        self.conv_2 = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(_FEATURES, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """RGB (N, 3, h, w) in [0, 1] to (N, 3, h * scale, w * scale); h and w at least 15."""
        first = features = self.conv_1(x * _LEVELS)
        for number in range(1, _BLOCKS + 1):
            features = getattr(self, f"block_{number}")(features)
        return self.upsampler(self.conv_2(features) + first) / _LEVELS
