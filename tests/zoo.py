"""Networks of the zoo, small and in float64, and how far apart two of them are."""

from __future__ import annotations

import torch
from torch import nn

from conftest import lively
from slimbench.tasks import _networks
from slimbench.tasks._networks import segmentation, super_resolution


def network(text: str) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64 with batch norms that do something, and an input: "resnet20 3 32", "vdsr x2", "unet-8"."""
    torch.manual_seed(0)
    name, *rest = text.split()
    if text in segmentation.NAMES:
        model, size = segmentation.build(name, 4), (3, 64, 64)
    elif rest[0].startswith("x"):
        model, size = super_resolution.build(name, int(rest[0][1])), (3, 15, 16)
    else:
        channels, side = map(int, rest)
        model, size = _networks.build(name, channels, 10, side), (channels, side, side)
    return lively(model).double().eval(), torch.randn(1, *size, dtype=torch.float64)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value that is expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def gap(one: nn.Module, two: nn.Module, shape: tuple[int, ...]) -> float:
    """How far the outputs of the second are from those of the first."""
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        return relative(two(inputs), one(inputs))
