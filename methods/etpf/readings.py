"""A network goes in; what may be removed from it comes out, and which layer's input shows what each channel puts out.

The authors score a channel by the tensor that the next layer reads, after activation and pooling. Channels that several
layers make together (a residual stream) are spared by their rule: what a block's first convolution reads of them goes
instead, behind a sampler, and the stream stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.cost import CONVOLUTIONS, NORMS, PRODUCTS, evaluating, watching
from slimbench.methods import _surgery
from slimbench.methods._graph import Member, Width

if TYPE_CHECKING:
    from collections.abc import Sequence

Places = tuple[tuple[int, ...], ...]  # of each channel in a layer: none, one, or several


@dataclass(frozen=True)
class Sampled(Width):
    """What one convolution reads of channels that stay: its own sampler chooses among them."""

    @property
    def name(self) -> str:
        """The convolution, and that it is its input."""
        return f"{self.members[0].layer} (input)"


@dataclass(frozen=True)
class Reading:
    """One place where a width's channels are read.

    Attributes:
        layer, places: whose input is looked at, and where each channel is in it.
        maker, made: the layer that made them last, and where each channel is in its output.
        norm, normed: the batch norm between both, and where each channel is in it.

    """

    layer: str
    places: Places
    maker: str
    made: Places
    norm: str | None
    normed: Places


class SampledConv2d(nn.Conv2d):
    """A convolution that reads a choice of its input's channels."""

    kept: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d, kept: Sequence[int]) -> SampledConv2d:
        """What ``conv`` computes of the channels ``kept``."""
        made = _surgery.conv_like(cls, conv, len(kept))
        made.weight = nn.Parameter(conv.weight.detach()[:, list(kept)].clone())
        made.bias = conv.bias
        made.register_buffer("kept", torch.tensor(kept, device=conv.weight.device))
        return made.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H', W')."""
        return super().forward(x.index_select(1, self.kept))


# ---------------------------------------------------------------------------------------------------- what may go


def sparing_streams(model: nn.Module, every: Sequence[Width]) -> list[Width]:
    """Widths that one layer makes, and of those that several make the inputs of convolutions into the former."""
    single = [width for width in every if len(_products(model, width)) == 1]
    inner = {name for width in single for name in _products(model, width)}
    sampled = [
        Sampled(len(places), (Member(member.layer, "in", places),))
        for width in every
        if width not in single
        for member in width.members
        if member.side == "in" and member.layer in inner and _can_sample(model.get_submodule(member.layer), member)
        if (places := tuple(p for p in member.indices if p))
    ]
    order = [name for name, _ in model.named_modules()]
    return sorted([*single, *sampled], key=lambda width: order.index(width.members[0].layer))


def _products(model: nn.Module, width: Width) -> list[str]:
    """The convolutions and linear layers that make a width's channels."""
    layers = [(maker.layer, model.get_submodule(maker.layer)) for maker in width.makers]
    return [name for name, layer in layers if isinstance(layer, PRODUCTS) and not _surgery.passes(layer)]


def _can_sample(layer: nn.Module, member: Member) -> bool:
    """Whether the stream is all that a convolution reads: not where it is concatenated with other channels."""
    if type(layer) is not nn.Conv2d or layer.groups > 1:
        return False
    return all(len(places) < 2 for places in member.indices) and sum(map(len, member.indices)) == layer.in_channels


def remove(model: nn.Module, every: Sequence[Width], removed: Sequence[set[int]]) -> nn.Module:
    """Remove channels from ``model`` in place, by surgery or by samplers."""
    whole = [(w, gone) for w, gone in zip(every, removed, strict=True) if not isinstance(w, Sampled)]
    for width, gone in zip(every, removed, strict=True):
        if isinstance(width, Sampled) and gone:
            conv = model.get_submodule(width.members[0].layer)
            assert isinstance(conv, nn.Conv2d)
            kept = sorted(p[0] for channel, p in enumerate(width.members[0].indices) if channel not in gone)
            _surgery.put(model, width.members[0].layer, SampledConv2d.of(conv, kept))
    return _surgery.remove(model, [w for w, _ in whole], [gone for _, gone in whole])


def mask(model: nn.Module, width: Width, gone: set[int]) -> nn.Module:
    """Hide channels of one width in ``model``, in place: what their removal computes, every layer keeping its size.

    Their readers lose the weights on them, so that functions of filters see what is left.
    """
    if not isinstance(width, Sampled):
        _surgery.mask(model, [width], [gone])
    with torch.no_grad():
        for member in width.members:
            layer = model.get_submodule(member.layer)
            if member.side == "in" and isinstance(layer, PRODUCTS) and not _surgery.passes(layer):
                places = [place for channel in gone for place in member.indices[channel]]
                weight = layer.get_parameter("weight")
                weight.transpose(0, 1 - _surgery.filter_dim(layer))[places] = 0.0
    return model


# ------------------------------------------------------------------------------------------------ where it is read


def readings(model: nn.Module, example: Tensor, every: Sequence[Width], whole: Sequence[Width]) -> list[list[Reading]]:
    """For each of ``every`` width, the places where it is read, in the order of the forward pass.

    Args:
        every: what may go. whole: all widths of the network, which the inputs of ``every`` belong to.

    """
    order = _order(model, example)
    return [_of(model, width, whole, order) for width in every]


def _order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """When a forward pass first calls each layer."""
    called: list[str] = []
    with watching(model, (*PRODUCTS, NORMS), lambda name, *_: called.append(name)), evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters())))
    return {name: turn for turn, name in enumerate(dict.fromkeys(called))}


def _of(model: nn.Module, width: Width, whole: Sequence[Width], order: dict[str, int]) -> list[Reading]:
    home = _home(width, whole) if isinstance(width, Sampled) else width
    makers = [m for m in home.makers if m.layer in _products(model, home)]
    norms = [m for m in home.members if isinstance(model.get_submodule(m.layer), NORMS)]
    found = []
    for reader in width.members:
        layer = model.get_submodule(reader.layer)
        if reader.side == "in" and isinstance(layer, PRODUCTS) and not _surgery.passes(layer) and reader.layer in order:
            maker = _last(makers, order, before=order[reader.layer])
            norm = _last(norms, order, before=order[reader.layer])
            if maker and norm and order[norm.layer] < order[maker.layer]:
                norm = None  # it scales what came before
            if maker:
                scaled = (norm.layer, norm.indices) if norm else (None, ())
                found.append(Reading(reader.layer, reader.indices, maker.layer, maker.indices, *scaled))
    return sorted(found, key=lambda reading: order[reading.layer])


def _home(sampled: Sampled, whole: Sequence[Width]) -> Width:
    """The width that a sampler reads, with the channels alone that it reads."""
    layer = sampled.members[0].layer
    home, read = next(
        (width, member.indices)
        for width in whole
        for member in width.members
        if (member.layer, member.side) == (layer, "in")
    )
    chosen = [channel for channel, places in enumerate(read) if places]
    members = tuple(Member(m.layer, m.side, tuple(m.indices[k] for k in chosen)) for m in home.members)
    return Width(sampled.channels, members)


def _last(members: Sequence[Member], order: dict[str, int], *, before: int) -> Member | None:
    """The one that a forward pass calls last before a layer; it must have a channel of the width at all."""
    earlier = [m for m in members if m.layer in order and order[m.layer] < before and any(m.indices)]
    return max(earlier, key=lambda m: order[m.layer], default=None)


def filters(model: nn.Module, reading: Reading) -> Tensor:
    """The filters that make each channel, (channels, C_in, kh, kw) or (channels, C_in).

    A channel that several filters make (before a pixel shuffle) has them side by side along C_in.
    """
    weight = _surgery.filters(model.get_submodule(reading.maker)).detach()
    return weight[_rows(reading.made).to(weight.device)].flatten(1, 2)


def gains(model: nn.Module, reading: Reading) -> Tensor | None:
    """|gain| of the batch norm, (channels,); None without one."""
    norm = model.get_submodule(reading.norm) if reading.norm else None
    if norm is None or norm.weight is None:
        return None
    assert isinstance(norm.weight, Tensor)
    return norm.weight.detach().abs()[_rows(reading.normed).to(norm.weight.device)].mean(1)


def known(reading: Reading) -> Tensor:
    """Whether a channel is made and read there, (channels,) bool; what is told of the others is of no meaning."""
    return torch.tensor([bool(made and read) for made, read in zip(reading.made, reading.places, strict=True)])


def look(layer: nn.Module, inputs: Tensor, places: Places) -> Tensor:
    """What a layer reads of each channel: (N, C, H, W) -> (N, channels, h, w), or (N, F) -> (N, channels, D)."""
    rows = _rows(places).to(inputs.device)
    is_map = isinstance(layer, CONVOLUTIONS)
    if rows.flatten().tolist() == list(range(inputs.shape[1])):  # all of them, in order: nothing to copy
        return inputs if is_map and rows.shape[1] == 1 else inputs.unflatten(1, rows.shape).flatten(2)
    found = inputs[:, rows]  # (N, channels, several, ...)
    return found.flatten(2, 3) if is_map else found


def _rows(places: Places) -> Tensor:
    """(channels, several); the first place again, or 0, where a channel has fewer."""
    several = max(map(len, places))
    return torch.tensor([[*p, *(p[:1] or (0,)) * (several - len(p))] for p in places])
