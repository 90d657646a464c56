"""A super-resolution network's name and a scale go in; the network, with fresh weights, comes out.

All take low-resolution RGB (N, 3, h, w) in [0, 1] of any size and give (N, 3, h * scale, w * scale).
"""

from __future__ import annotations

from torch import nn

from slimbench.tasks import _networks

_RESIDUAL = _networks.EDSR | {"msrresnet": (16, 64)}
NAMES = (*_RESIDUAL, "vdsr", "rlfn")


def build(name: str, scale: int) -> nn.Module:
    """The network ``name`` for a scale of 2, 3 or 4.

    ``module:function`` names a user's own: ``function(scale)`` or ``function()``.
    Raises: UserError for an unknown name.
    """
    if ":" in name:
        return _networks.own(name, scale)
    if name not in NAMES:
        raise _networks.unknown(name, NAMES)
    model = _known(name, scale)
    initialise(model)
    return model


def _known(name: str, scale: int) -> nn.Module:
    from slimbench.tasks._networks import residual_sr, rlfn, vdsr

    if name in _RESIDUAL:
        blocks, features = _RESIDUAL[name]
        kind = residual_sr.MSRResNet if name == "msrresnet" else residual_sr.EDSR
        return kind(blocks, features, scale)
    return vdsr.VDSR(scale) if name == "vdsr" else rlfn.RLFN(scale)


def initialise(model: nn.Module) -> None:
    """Draw fresh weights in place, for any network made from one of these.

    Convolutions draw as they reset themselves, which keeps EDSR's sums of blocks small. Networks that declare
    ``he_gain`` draw He's normal times that: 0.1 in MSRResNet, as basicsr does; 1 in VDSR, whose twenty layers without
    shortcuts would fade otherwise.

    Raises: ValueError for parameters that no layer can draw anew.
    """
    gain = getattr(model, "he_gain", None)
    for name, module in model.named_modules():
        if gain is not None and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.weight.data *= gain
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"the parameters of {name or 'the network'!r} cannot be drawn anew")
