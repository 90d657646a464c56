"""torchvision's ImageNet networks; ``_networks`` draws their weights, as it does those of every other."""

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


def resnet18_for_small_images(channels: int, classes: int) -> nn.Module:
    """ResNet-18 whose stem is a 3 x 3 convolution at full size, as is usual on CIFAR: (N, C, H, W) -> (N, classes)."""
    from torch import nn

    model = build("imagenet-resnet18", classes)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model
