"""Channels are removed from a network exactly: what is left computes what the masked network did.

    widths(model, example)          every independent width: which layers make, pass and read its channels
    remove(model, widths, removed)  the smaller network, in place
    mask(model, widths, removed)    the same channels zeroed, nothing removed

The widths are found in ``_graph``; which channels go is chosen in ``_choice``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
import torch_pruning as tp
from torch import Tensor, nn

from slimbench.cost import NORMS, is_depthwise
from slimbench.methods._graph import Member, Side, Width, put, widths
from slimbench.tasks._networks.shortcut import PaddedShortcut

if TYPE_CHECKING:
    from collections.abc import Sequence

Convolution = TypeVar("Convolution", bound=nn.Conv2d)

__all__ = ["Member", "Width", "conv_like", "filters", "mask", "put", "remove", "widths"]


def remove(model: nn.Module, every: Sequence[Width], removed: Sequence[set[int]]) -> nn.Module:
    """Remove the channels ``removed[i]`` of each width from ``model``, in place."""
    gone = _indices(model, every, removed)
    for (name, side), indices in gone.items():
        layer = model.get_submodule(name)
        if isinstance(layer, PaddedShortcut):
            _shrink_map(layer, side, indices)
            continue
        pruner = tp.function.PrunerBox[tp.ops.module2type(layer)]
        (pruner.prune_in_channels if side == "in" else pruner.prune_out_channels)(layer, sorted(indices))
    return model


def mask(model: nn.Module, every: Sequence[Width], removed: Sequence[set[int]]) -> nn.Module:
    """Zero what makes and passes the same channels, in place: the network that removal must equal."""
    with torch.no_grad():
        for (name, side), indices in _indices(model, every, removed).items():
            layer = model.get_submodule(name)
            if side == "in":
                continue  # what is not made needs no hiding from its readers
            if isinstance(layer, PaddedShortcut):
                layer.set_map([-1 if k in indices else s for k, s in enumerate(layer.source)], layer.width_in)
            else:
                for kind, parameter in layer.named_parameters(recurse=False):
                    (filters(layer) if kind == "weight" else parameter)[sorted(indices)] = 0.0
    return model


def filters(layer: nn.Module) -> Tensor:
    """A view of a layer's weight whose first dimension is the channels out."""
    return layer.get_parameter("weight").transpose(0, filter_dim(layer))


def conv_like(kind: type[Convolution], conv: nn.Conv2d, ins: int) -> Convolution:
    """As ``conv``, which has one group, but for ``ins`` channels in; on the meta device: weights are yet to come."""
    assert conv.groups == 1
    return kind(
        ins,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device="meta",
        dtype=conv.weight.dtype,
    )


def filter_dim(layer: nn.Module) -> int:
    """The dimension of a layer's weight that is its channels out."""
    return int(isinstance(layer, nn.ConvTranspose2d) and not is_depthwise(layer))


def passes(layer: nn.Module) -> bool:
    """Whether a layer's channels out are its channels in."""
    return isinstance(layer, NORMS) or is_depthwise(layer)


def _indices(model: nn.Module, every: Sequence[Width], removed: Sequence[set[int]]) -> dict[tuple[str, Side], set[int]]:
    """What goes from each side of each layer; a layer whose sides are one is listed once."""
    gone: dict[tuple[str, Side], set[int]] = {}
    for width, channels in zip(every, removed, strict=True):
        for member in width.members:
            side = "out" if passes(model.get_submodule(member.layer)) else member.side
            gone.setdefault((member.layer, side), set()).update(i for c in channels for i in member.indices[c])
    return {key: indices for key, indices in gone.items() if indices}


def _shrink_map(shortcut: PaddedShortcut, side: Side, gone: set[int]) -> None:
    if side == "out":
        shortcut.set_map([s for k, s in enumerate(shortcut.source) if k not in gone], shortcut.width_in)
        return
    new = {old: new for new, old in enumerate(i for i in range(shortcut.width_in) if i not in gone)}
    shortcut.set_map([new.get(s, -1) for s in shortcut.source], len(new))
