"""torchvision's ImageNet networks, with torchvision's own initialisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimbench.core import UserError
from slimbench.discover import suggestion
from slimbench.tasks._torchvision import torchvision

if TYPE_CHECKING:
    from torch import nn

_NAMES = {"imagenet-resnet18": "resnet18", "imagenet-resnet50": "resnet50", "imagenet-mobilenetv2": "mobilenet_v2"}


def build(name: str, classes: int) -> nn.Module:
    """The network with fresh weights, (N, 3, H, W) -> (N, classes). Raises: UserError for an unknown name."""
    if name not in _NAMES:
        raise UserError(f"Unknown network {name!r}{suggestion(name, _NAMES)}; known: {', '.join(_NAMES)}.")
    model: nn.Module = getattr(torchvision().models, _NAMES[name])(weights=None, num_classes=classes)
    return model
