"""Bicubic enlargement as MATLAB's ``imresize`` does it: Keys' kernel with a = -0.5, edges mirrored.

PyTorch's own has a = -0.75. Written without convolutions: nothing here is to be pruned or trained, and under bf16
autocast products would be rounded to eight bits, sums of float32 are not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_REACH = 2  # pixels on either side of the nearest


class Bicubic(nn.Module):
    """(N, C, h, w) to (N, C, h * scale, w * scale); h and w at least 2."""

    kernel: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _kernel(scale), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows, then columns."""
        return self._enlarge_columns(self._enlarge_columns(x.transpose(2, 3)).transpose(2, 3))

    def _enlarge_columns(self, x: Tensor) -> Tensor:
        left, right = x[..., :_REACH].flip(-1), x[..., -_REACH:].flip(-1)
        windows = torch.cat([left, x, right], -1).unfold(-1, 2 * _REACH + 1, 1)  # (N, C, h, w, 5)
        return (windows.unsqueeze(-2) * self.kernel).sum(-1).flatten(-2)  # (N, C, h, w, scale), the new pixels last


def _kernel(scale: int) -> Tensor:
    """Weights (scale, 5) of the five nearest pixels for each of the ``scale`` pixels that one becomes."""
    centre = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    d = (centre[:, None] - torch.arange(-_REACH, _REACH + 1)).abs()
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d <= 2, far, 0.0)).float()
