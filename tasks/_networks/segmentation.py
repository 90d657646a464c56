"""A name goes in; a segmentation network, built from mmsegmentation's configs with fresh weights, comes out.

``HEAD-BACKBONE`` joins a head (fcn, pspnet, deeplabv3) to a dilated ResNet whose features are an eighth of the image;
the others are networks of their own. Widths that differ from the config are in the names: ``resnet14`` has CIFAR
widths (16, 32, 64), ``unet-8`` starts with 8 channels.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.tasks import _networks
from slimbench.tasks._mmseg import base_config, mmseg
from slimbench.tasks._mmseg import build as build_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.core import Outputs

_Upsample: Any = mmseg("models").utils.Upsample
_HEADS = {"fcn": "fcn_r50-d8", "pspnet": "pspnet_r50-d8", "deeplabv3": "deeplabv3_r50-d8"}

# depth in mmsegmentation's count, stages, channels of the first stage, of the last two, and of both heads
_BACKBONES: dict[str, tuple[int, int, int, tuple[int, int], tuple[int, int]]] = {
    "resnet14": (18, 3, 16, (32, 64), (64, 32)),
    "resnet18": (18, 4, 64, (256, 512), (128, 64)),
    "resnet50": (50, 4, 64, (1024, 2048), (512, 256)),
}
NAMES = (
    *(f"{head}-{backbone}" for head in _HEADS for backbone in _BACKBONES),
    "fast-scnn", "bisenetv2", "unet", "unet-8", "unet-16", "unet-deconv", "unet-deconv-8",
)  # fmt: skip


class Segmenter(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W); while it trains, a tuple with the auxiliary heads' logits behind."""

    def __init__(
        self, backbone: nn.Module, decode_head: nn.Module, auxiliary: Sequence[nn.Module], multiple: int = 1
    ) -> None:
        super().__init__()
        self.backbone, self.decode_head = backbone, decode_head
        self.auxiliary_head = nn.ModuleList(auxiliary)
        self.multiple = multiple  # of pixels that the backbone takes: others are padded by zeros, and cut off again

    def forward(self, x: Tensor) -> Outputs:
        """Features, logits, enlarged to the image."""
        height, width = x.shape[2:]
        if self.multiple > 1:
            x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        features = self.backbone(x)
        logits = _enlarged(self.decode_head(features), x)[:, :, :height, :width]
        if not self.training or not len(self.auxiliary_head):
            return logits
        return (logits, *(_enlarged(head(features), x)[:, :, :height, :width] for head in self.auxiliary_head))


def _enlarged(logits: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)


def build(name: str, classes: int) -> nn.Module:
    """The network ``name`` with fresh weights. ``module:function`` names a user's own: see ``_networks.own``.

    Raises: UserError for an unknown name.
    """
    if ":" in name:
        return _networks.own(name, 3, classes)
    settings = _settings(name)
    auxiliary = settings.get("auxiliary_head", [])
    auxiliary = auxiliary if isinstance(auxiliary, list) else [auxiliary]
    heads = [build_part(head | {"num_classes": classes}) for head in (settings["decode_head"], *auxiliary)]
    for head in heads:
        del head.loss_decode  # the task's loss
    model = Segmenter(_traceable(build_part(settings["backbone"])), heads[0], heads[1:], _multiple(name))
    initialise(model)
    return model


def initialise(model: nn.Module) -> None:
    """Draw fresh weights in place: as for classification, but the layers that make logits from N(0, 0.01^2).

    mmsegmentation's heads start so; He's variance would make logits of tens.
    """
    _networks.initialise(model)
    for name, layer in model.named_modules():
        if name.endswith("conv_seg"):
            nn.init.normal_(layer.weight, std=0.01)


def _settings(name: str) -> dict[str, Any]:
    if name not in NAMES:
        raise _networks.unknown(name, NAMES)
    if name == "fast-scnn":
        return base_config("fast_scnn")  # type: ignore[no-any-return]
    if name == "bisenetv2":
        return base_config("bisenetv2")  # type: ignore[no-any-return]
    if found := re.fullmatch(r"unet(-deconv)?(?:-(\d+))?", name):
        return _unet(int(found[2] or 64), deconvolve=bool(found[1]))
    head, _, backbone = name.partition("-")
    return _dilated(base_config(_HEADS[head]), backbone)


def _dilated(settings: dict[str, Any], backbone: str) -> dict[str, Any]:
    """One of the configs for ResNet-50 at another depth and width."""
    depth, stages, base, widths, channels = _BACKBONES[backbone]
    settings["backbone"] |= {
        "depth": depth,
        "num_stages": stages,
        "base_channels": base,
        "stem_channels": base,
        "out_indices": tuple(range(stages)),
        "strides": (1, 2, 1, 1)[:stages],
        "dilations": (1, 1, 2, 4)[:stages],
    }
    for key, index, width, inner in zip(
        ("auxiliary_head", "decode_head"), (stages - 2, stages - 1), widths, reversed(channels), strict=True
    ):
        settings[key] |= {"in_index": index, "in_channels": width, "channels": inner}
    return settings


def _unet(base: int, *, deconvolve: bool) -> dict[str, Any]:
    """U-Net from ``base`` channels on, upsampling by interpolation or by transposed convolutions."""
    settings: dict[str, Any] = base_config("fcn_unet_s5-d16")
    settings["backbone"] |= {"base_channels": base}
    if deconvolve:
        settings["backbone"]["upsample_cfg"] = {"type": "DeconvModule"}
    settings["decode_head"] |= {"in_channels": base, "channels": base}
    settings["auxiliary_head"] |= {"in_channels": 2 * base, "channels": base}
    return settings


def _multiple(name: str) -> int:
    return 16 if name.startswith("unet") else 1


def _traceable(backbone: nn.Module) -> nn.Module:
    """The same network, whose graph can be taken for any size.

    mmsegmentation's upsampling turns sizes into Python numbers, and its U-Net asks whether they are multiples of 16,
    which ``Segmenter`` sees to: either would bind a traced graph to one size.
    """
    for module in list(backbone.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, _Upsample):
                setattr(module, name, nn.Upsample(None, layer.scale_factor, layer.mode, layer.align_corners))
    if hasattr(backbone, "_check_input_divisible"):
        backbone._check_input_divisible = _nothing  # type: ignore[assignment]
    return backbone


def _nothing(x: Tensor) -> None:
    pass


def without_auxiliary_heads(model: nn.Module) -> nn.Module:
    """A copy of the network as it is used; a network without such heads is returned as it is."""
    heads = getattr(model, "auxiliary_head", None)
    if not isinstance(heads, nn.ModuleList) or not len(heads):
        return model
    deployed = copy.deepcopy(model)
    deployed.auxiliary_head = nn.ModuleList()
    return deployed
