"""basicsr's EDSR (Lim et al. 2017) and MSRResNet, by number of blocks, features and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

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


class MSRResNet(_basicsr.architecture("MSRResNet")):  # type: ignore[misc]
    """MSRResNet: learns what bilinear interpolation leaves out."""

    he_gain: ClassVar[float] = 0.1  # see ``super_resolution.initialise``

    def __init__(self, blocks: int, features: int, scale: int) -> None:
        super().__init__(num_feat=features, num_block=blocks, upscale=scale)
