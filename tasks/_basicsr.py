"""basicsr, repaired where it must be: its networks, its bicubic kernel and its metrics.

Its ``__init__`` imports everything, ``torchvision.transforms.functional_tensor`` included, which torchvision removed.
What basicsr takes from there lives on in ``torchvision.transforms.functional``, so that module stands in under the
removed name; where it is still there, nothing is replaced.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.core import MissingLibraryError
from slimbench.tasks._torchvision import torchvision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMOVED = "torchvision.transforms.functional_tensor"


@functools.cache
def basicsr() -> Any:
    """The package, with ``archs``, ``metrics`` and ``utils`` imported."""
    torchvision()
    if importlib.util.find_spec(_REMOVED) is None:
        sys.modules.setdefault(_REMOVED, importlib.import_module("torchvision.transforms.functional"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distutils, pkg_resources: its own affair
        try:
            package = importlib.import_module("basicsr")
            importlib.import_module("basicsr.utils.matlab_functions")
        except ImportError as error:
            raise MissingLibraryError("basicsr", error) from error
    return package


def architecture(name: str) -> type[nn.Module]:
    """A network's class by the name that basicsr registered it under, e.g. "EDSR"."""
    return basicsr().utils.registry.ARCH_REGISTRY.get(name)


def imresize(image: Tensor, scale: float) -> Tensor:
    """MATLAB's bicubic resize of floats (C, H, W), antialiased where ``scale`` < 1, mirrored at edges, not rounded."""
    return basicsr().utils.matlab_functions.imresize(image, scale)


def kernel(length: int, scale: int) -> tuple[Tensor, Tensor]:
    """Which of ``length`` values make each of ``length / scale``, and their weights: both (length / scale, taps).

    MATLAB's antialiased bicubic kernel. Positions are int64 and reach beyond both ends.
    """
    weights_indices = basicsr().utils.matlab_functions.calculate_weights_indices
    weights, positions, before, _ = weights_indices(length, length // scale, 1 / scale, "cubic", 4, True)
    return weights.double(), positions.long() - before


def psnr(image: NDArray[np.uint8], other: NDArray[np.uint8], border: int, *, luma: bool) -> float:
    """PSNR in dB of two RGB images (H, W, 3), ``border`` pixels cropped; on BT.601 luma or over all channels."""
    compared = basicsr().metrics.calculate_psnr
    return float(compared(_bgr(image), _bgr(other), crop_border=border, test_y_channel=luma))


def ssim(image: NDArray[np.uint8], other: NDArray[np.uint8], border: int, *, luma: bool) -> float:
    """SSIM, at most 1, of two RGB images (H, W, 3), ``border`` pixels cropped; on BT.601 luma or mean over channels."""
    compared = basicsr().metrics.calculate_ssim
    return float(compared(_bgr(image), _bgr(other), crop_border=border, test_y_channel=luma))


def _bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """basicsr holds images as OpenCV does, and takes luma from that order."""
    return image[..., ::-1]


def shrink(pixels: Tensor, scale: int) -> Tensor:
    """MATLAB's ``imresize(image, 1 / scale)`` of uint8 pixels (H, W, C), H and W multiples of ``scale``.

    Rows first, then columns; rounded to uint8 after each, as MATLAB does for uint8 images, and the edge repeated. So
    made, the low resolution of Set5 equals the distributed files bit for bit; ``imresize`` on floats, which rounds once
    and mirrors, differs by up to 7 levels in 10 to 16 % of the values.
    """
    return _shrink_rows(_shrink_rows(pixels, scale).transpose(0, 1), scale).transpose(0, 1).contiguous()


def _shrink_rows(pixels: Tensor, scale: int) -> Tensor:
    height = pixels.shape[0]
    weights, positions = kernel(height, scale)
    # values of up to 255 times weights in float64: the sums round to the level that exact ones would
    matrix = torch.zeros(len(weights), height, dtype=torch.float64)
    matrix.scatter_add_(1, positions.clamp(0, height - 1), weights)
    levels = torch.einsum("oh,hwc->owc", matrix, pixels.double())
    return (levels + 0.5).floor().clamp(0, 255).to(torch.uint8)  # MATLAB rounds halves up
