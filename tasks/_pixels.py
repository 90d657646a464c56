"""Images of many sizes in one flat buffer: pixels by image, row and column come out, whole batches at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Images, row by row, one after the other; ``to`` keeps a copy on each device.

    Attributes:
        values: (pixels of all images, C) uint8.
        offsets, heights, widths: of each image, (N,) int64: where it begins in ``values``, and its sides in pixels.

    """

    values: Tensor
    offsets: Tensor
    heights: Tensor
    widths: Tensor
    _copies: dict[torch.device, Pixels] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, images: Sequence[NDArray[np.uint8]]) -> Pixels:
        """From at least one image, (H, W, C) or (H, W) each; the latter have one channel."""
        sides = torch.tensor([image.shape[:2] for image in images])
        ends = sides.prod(1).cumsum(0)
        values = np.concatenate([image.reshape(image.shape[0] * image.shape[1], -1) for image in images])
        return cls(torch.from_numpy(values), ends - sides.prod(1), sides[:, 0].clone(), sides[:, 1].clone())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.offsets)

    def at(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels (..., C) uint8 for int64 indices that broadcast to (...); they are not checked against the sides."""
        return self.values[self.offsets[images] + rows * self.widths[images] + columns]

    def image(self, index: int) -> Tensor:
        """One image, (C, H, W) uint8: a view whose channels come last in memory."""
        start, height, width = (int(part[index]) for part in (self.offsets, self.heights, self.widths))
        return self.values[start : start + height * width].view(height, width, -1).permute(2, 0, 1)

    def to(self, device: torch.device) -> Pixels:
        """The same images on ``device``."""
        if self.values.device == device:
            return self
        if device not in self._copies:
            offsets, heights, widths = (part.to(device) for part in (self.offsets, self.heights, self.widths))
            self._copies[device] = Pixels(self.values.to(device), offsets, heights, widths)
        return self._copies[device]
