"""BT.601 luma, which super resolution is judged on: an RGB image goes in, its brightness comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SPAN = 219 / 255  # from black to white; the rest of the levels is headroom


def luma(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W) of RGB images (N, 3, H, W) in [0, 1]; black is 16 / 255, white 235 / 255."""
    return (65.481 * images[:, 0:1] + 128.553 * images[:, 1:2] + 24.966 * images[:, 2:3] + 16) / 255
