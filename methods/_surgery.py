"""A network goes in; its independent widths come out, and channels are removed from it exactly.

torch-pruning's dependency graph says which layers' channels belong together. What it gets wrong, the zero-padded
shortcut, is shown to it as a 1x1 convolution, and then edited as the explicit channel map that it is.

    widths(model, example)          every independent width: which layers make, pass and read its channels
    remove(model, widths, removed)  the smaller network, in place; it computes what the masked one did
    mask(model, widths, removed)    the same channels zeroed, nothing removed

Which channels go is chosen in ``_choice``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from slimbench.cost import NORMS, PRODUCTS
from slimbench.tasks._networks.shortcut import PaddedShortcut

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Member:
    """One side of one layer: the indices that each channel of the width takes there."""

    layer: str
    side: Literal["in", "out"]
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Width:
    """Channels that must go together wherever they appear."""

    channels: int
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The first layer that makes these channels."""
        return self.makers[0].layer

    @property
    def makers(self) -> tuple[Member, ...]:
        """The sides that put the channels out."""
        return tuple(member for member in self.members if member.side == "out")


# -------------------------------------------------------------------------------------------------- the graph


def widths(model: nn.Module, example: Tensor) -> list[Width]:
    """Every independent width whose channels may go: not the network's outputs, nothing in a grouped convolution.

    Raises: ValueError for a layer that surgery does not know.
    """
    traced = copy.deepcopy(model).cpu().float().eval()
    for name, module in list(traced.named_modules()):
        if isinstance(module, PaddedShortcut):
            put(traced, name, nn.Conv2d(module.width_in, len(module.source), 1, module.stride, bias=False))
    for parameter in traced.parameters():
        parameter.requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(traced, example.cpu().float(), verbose=False)
    names = {module: name for name, module in traced.named_modules()}
    real = dict(model.named_modules())
    found = []
    for group in graph.get_all_groups(root_module_types=list(PRODUCTS)):
        width = _width(group, names)
        kinds = {member.layer: real[member.layer] for member in width.members}
        read = any(m.side == "in" and not _passes(kinds[m.layer]) for m in width.members)
        if read and not any(_is_grouped(kind) for kind in kinds.values()):
            for name, kind in kinds.items():
                if not isinstance(kind, (*PRODUCTS, NORMS, PaddedShortcut)):
                    raise ValueError(f"surgery does not know the layer {name!r} ({type(kind).__name__})")
            found.append(width)
    return sorted(found, key=lambda width: list(real).index(width.name))


def _width(group: tp.dependency.Group, names: dict[nn.Module, str]) -> Width:
    channels = len(group.items[0].root_idxs)
    members: dict[tuple[str, Literal["in", "out"]], list[list[int]]] = {}
    for item in group.items:
        module = item.dep.target.module
        if module not in names or not any(True for _ in module.parameters(recurse=False)):
            continue  # an operator without a layer
        side: Literal["in", "out"] = "in" if "in_channels" in item.dep.handler.__name__ else "out"
        indices = members.setdefault((names[module], side), [[] for _ in range(channels)])
        for index, root in zip(item.idxs, item.root_idxs, strict=True):
            if index not in indices[root]:
                indices[root].append(index)
    return Width(
        channels,
        tuple(Member(layer, side, tuple(tuple(i) for i in indices)) for (layer, side), indices in members.items()),
    )


def is_depthwise(layer: nn.Module) -> bool:
    """One filter a channel: its channels out are its channels in."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and not is_depthwise(layer)


def _passes(layer: nn.Module) -> bool:
    """Whether a layer's channels out are its channels in."""
    return isinstance(layer, NORMS) or is_depthwise(layer)


# ------------------------------------------------------------------------------------------------- the removal


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
                for parameter in layer.parameters(recurse=False):
                    parameter[sorted(indices)] = 0.0
    return model


def _indices(
    model: nn.Module, every: Sequence[Width], removed: Sequence[set[int]]
) -> dict[tuple[str, Literal["in", "out"]], set[int]]:
    """What goes from each side of each layer; a layer whose sides are one is listed once."""
    gone: dict[tuple[str, Literal["in", "out"]], set[int]] = {}
    for width, channels in zip(every, removed, strict=True):
        for member in width.members:
            side = "out" if _passes(model.get_submodule(member.layer)) else member.side
            gone.setdefault((member.layer, side), set()).update(i for c in channels for i in member.indices[c])
    return {key: indices for key, indices in gone.items() if indices}


def _shrink_map(shortcut: PaddedShortcut, side: Literal["in", "out"], gone: set[int]) -> None:
    if side == "out":
        shortcut.set_map([s for k, s in enumerate(shortcut.source) if k not in gone], shortcut.width_in)
        return
    new = {old: new for new, old in enumerate(i for i in range(shortcut.width_in) if i not in gone)}
    shortcut.set_map([new.get(s, -1) for s in shortcut.source], len(new))


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Set the submodule ``name`` to ``layer``."""
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent)._modules[last] = layer
