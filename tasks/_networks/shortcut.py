"""The parameter-free shortcut of CIFAR ResNets (option A), with an explicit map of channels.

``F.pad`` hides which input channel becomes which output channel, and dependency tracers get it wrong. Here the map is
data: ``source[k]`` is the input channel that output channel k copies, or -1 where it is zero. Removing channels on
either side is then an edit of the map, and the result is exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)): every stride-th pixel, new channels zero."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        before = (width - width_in) // 2
        after = width - width_in - before
        self.stride = stride
        self.set_map([-1] * before + list(range(width_in)) + [-1] * after, width_in)

    def set_map(self, source: list[int], width_in: int) -> None:
        """Choose the input channel of each output channel; -1: zero."""
        self.source, self.width_in = source, width_in
        zeros = [i for i, s in enumerate(source) if s >= 0]
        before = zeros[0] if zeros else 0
        block = [-1] * before + list(range(width_in))
        # one contiguous copy of all inputs: F.pad, which is the fastest
        self.pads = (before, len(source) - len(block)) if source == block + [-1] * (len(source) - len(block)) else None

    def forward(self, x: Tensor) -> Tensor:
        """Copy, zero and subsample."""
        x = x[:, :, :: self.stride, :: self.stride]
        if self.pads is not None:
            return F.pad(x, (0, 0, 0, 0, *self.pads))
        rows = torch.tensor([self.width_in if s < 0 else s for s in self.source], device=x.device)
        return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, rows)  # one more channel, of zeros

    def extra_repr(self) -> str:
        """The map."""
        return f"source={self.source}, stride={self.stride}"
