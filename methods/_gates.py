"""A network and its widths go in; the same network comes out with a gate on every width (DCSS).

A gate is a distribution ``p`` over prefixes of a width's channels, and channel k counts by the share of the prefixes
that reach it:

    p    = softmax((alpha + g) / tau)               g: Gumbel noise, or 0
    m_k  = sum of p_j over the prefixes with c_j >= k        m_1 = 1 >= m_2 >= ...,  sum_k m_k = E[c]

The mask costs no memory, since it is folded into what makes the channels: into the gain and bias of the batch norm
behind a convolution (a mask before it would be divided out again), else into the convolution's own filters and bias.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils import parametrize

from slimbench.cost import NORMS, PRODUCTS, evaluating
from slimbench.methods import _fx, _surgery
from slimbench.tasks._networks.shortcut import PaddedShortcut
from slimbench.train import main

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from slimbench.core import Resource
    from slimbench.cost import Layer
    from slimbench.methods._graph import Side, Width

_PASSABLE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.modules.dropout._DropoutNd, nn.Identity)
_PASSABLE_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.dropout)
_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")


def candidates(channels: int, count: int) -> list[int]:
    """The widths c_1 < ... < c_n = channels that a gate chooses from: n segments, the longer ones first.

    Segments are z = ceil(channels / n) or z - 1 long; there are no more of them than channels.
    """
    n = min(count, channels)
    z = -(-channels // n)
    longer = channels + n - n * z
    return [min(j, longer) * z + max(0, j - longer) * (z - 1) for j in range(1, n + 1)]


class Gates(nn.Module):
    """One gate a width. Kept in float64 on the CPU: a few numbers, whose sums over whole networks are exact there.

    Attributes:
        alpha: (widths, candidates), zeros at first: every prefix is as likely.
        reached: (channels of all widths, candidates), whether a prefix reaches a channel.

    """

    reached: Tensor
    gate_of: Tensor
    real: Tensor
    widths: Tensor

    def __init__(self, every: Sequence[Width], count: int) -> None:
        """Gates over at most ``count`` prefixes of each width's channels."""
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(len(every), count, dtype=torch.float64))
        widths = torch.zeros(len(every), count, dtype=torch.float64)
        reached, gate_of = [], []
        for gate, width in enumerate(every):
            choices = torch.tensor(candidates(width.channels, count), dtype=torch.float64)
            widths[gate, : len(choices)] = choices
            reached.append(widths[gate] >= torch.arange(1, width.channels + 1)[:, None])
            gate_of += [gate] * width.channels
        self.register_buffer("widths", widths)
        self.register_buffer("real", widths > 0)  # a width of fewer channels has fewer candidates
        self.register_buffer("reached", torch.cat(reached).double())
        self.register_buffer("gate_of", torch.tensor(gate_of))

    def probabilities(self, temperature: float, *, noise: bool = False) -> Tensor:
        """p, (widths, candidates)."""
        logits: Tensor = self.alpha
        if noise:
            tiny = torch.finfo(torch.float64).tiny
            logits = logits - (-torch.rand_like(logits).clamp(min=tiny).log()).clamp(min=tiny).log()
        return (logits / temperature).masked_fill(~self.real, -torch.inf).softmax(1)

    def masks(self, p: Tensor) -> Tensor:
        """m of every channel, (channels of all widths,) in [0, 1]: width by width, in the width's own order."""
        return (self.reached * p[self.gate_of]).sum(1)

    def expected(self, p: Tensor) -> Tensor:
        """E[c] of every width, (widths,)."""
        return (p * self.widths).sum(1)


Channels = dict[tuple[str, "Side"], Tensor]  # of each side of each layer: where its channels' masks stand


def channels(model: nn.Module, every: Sequence[Width]) -> Channels:
    """Where each channel's mask stands among those of all widths; one place further for channels without a gate."""
    free = sum(width.channels for width in every)
    found: Channels = {}
    first = 0
    for width in every:
        for member in width.members:
            layer = model.get_submodule(member.layer)
            side: Side = "out" if _surgery.passes(layer) else member.side
            size = _size(layer, side)
            places = found.setdefault((member.layer, side), torch.full((size,), free))
            for channel, indices in enumerate(member.indices):
                places[list(indices)] = first + channel
        first += width.channels
    return found


def _size(layer: nn.Module, side: Side) -> int:
    if isinstance(layer, PaddedShortcut):
        return layer.width_in if side == "in" else len(layer.source)
    if isinstance(layer, NORMS):
        return int(layer.num_features)
    return int(getattr(layer, f"{side}_features" if isinstance(layer, nn.Linear) else f"{side}_channels"))


class Expectation:
    """The budget's resource as a function of masks: sums of E[channels in] * E[channels out], layer by layer.

    At masks of zeros and ones it is what ``cost.count`` says of the network without the zeroed channels.
    """

    def __init__(self, rows: Mapping[str, Layer], places: Channels, resource: Resource) -> None:
        """``rows`` as ``cost.layers`` gives them."""
        flat: list[Tensor] = []
        ends: list[int] = []
        weights, vectors, ins, outs = [], [], [], []

        def side(name: str, which: Side, size: int) -> int:
            found = places.get((name, which))
            flat.append(torch.full((size,), -1) if found is None else found)
            ends.append(size)
            return len(ends) - 1

        for name, row in rows.items():
            outs.append(side(name, "out", row.outs))
            ins.append(side(name, "in", 1 if row.passes else row.ins))
            weights.append(row.kernel * (row.positions if resource == "macs" else row.trained))
            vectors.append(row.vectors if resource == "params" else 0)
        self._places = torch.cat(flat)
        self._side_of = torch.repeat_interleave(torch.arange(len(ends)), torch.tensor(ends))
        self._ins, self._outs, self._sides = torch.tensor(ins), torch.tensor(outs), len(ends)
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._vectors = torch.tensor(vectors, dtype=torch.float64)

    def __call__(self, masks: Tensor) -> Tensor:
        """The expected resource, a float64 scalar; ``masks`` as ``Gates.masks`` gives them."""
        known = torch.cat([masks, masks.new_ones(1)])
        sides = masks.new_zeros(self._sides).index_add(0, self._side_of, known[self._places])
        ins, outs = sides[self._ins], sides[self._outs]
        return (self._weights * ins * outs + self._vectors * outs).sum()


@dataclass
class Masks:
    """What the gated network multiplies by: filled anew before a forward pass."""

    places: Channels
    now: dict[str, Tensor] = field(default_factory=dict)

    def __deepcopy__(self, memo: object) -> Masks:
        """Itself: a copied network has the same gates."""
        return self

    def fill(self, masks: Tensor, device: torch.device | None = None) -> None:
        """Take masks as ``Gates.masks`` gives them; gradients flow back where they require them."""
        known = torch.cat([masks, masks.new_ones(1)]).float().to(device)
        self.now = {layer: known[places.to(device)] for (layer, side), places in self.places.items() if side == "out"}

    def shaped(self, layer: str, like: Tensor, dim: int) -> Tensor:
        """A layer's mask along one dimension of a tensor."""
        return self.now[layer].to(like.dtype).view([-1 if d == dim else 1 for d in range(like.ndim)])


class _Folded(nn.Module):
    """A parametrization: the parameter times the mask of the channels that it makes."""

    def __init__(self, masks: Masks, layer: str, dim: int) -> None:
        super().__init__()
        self.masks, self.layer, self.dim = masks, layer, dim

    def forward(self, parameter: Tensor) -> Tensor:
        """The same shape."""
        return parameter * self.masks.shaped(self.layer, parameter, self.dim)


class _Masked(nn.Module):
    """Multiplies what arrives by a layer's mask, (N, C, ...)."""

    def __init__(self, masks: Masks, layer: str) -> None:
        super().__init__()
        self.masks, self.layer = masks, layer

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * self.masks.shaped(self.layer, x, 1)


def gated(model: nn.Module, example: Tensor, places: Channels, masks: Masks) -> nn.Module:
    """The network with its masks, made of the layers of ``model``, in the mode that ``model`` is in.

    In a sum, what was masked before is masked again, ``(y + s) * m``, as in the authors' code: ``y`` by its layer, the
    shortcut ``s`` by a multiplication, which stores nothing that a layer had not stored.
    """
    graph = _fx.graph(model)
    network = fx.GraphModule(model, graph)
    with evaluating(network), torch.no_grad():
        ShapeProp(network).propagate(example.to(next(model.parameters())))
    layers = {name: layer for name, layer in model.named_modules() if (name, "out") in places}
    layers = {name: layer for name, layer in layers.items() if isinstance(layer, (*PRODUCTS, NORMS))}
    nodes = {name: [n for n in graph.nodes if n.op == "call_module" and n.target == name] for name in layers}
    bare = [n for n, layer in layers.items() if not isinstance(layer, NORMS) and _only_normed(nodes[n], layers)]
    for name in bare:
        del layers[name]  # masked behind its batch norm
    sums = [(node, *_masked_again(node, layers)) for node in graph.nodes if node.target in _ADDS]
    for node, layer, operands in sums:  # found before any is masked: a mask would hide what lies behind it
        for operand in operands:
            _multiply(network, operand, [node], layer, masks)
    for name, layer in layers.items():
        _mask_layer(network, name, layer, nodes[name], masks)
    graph.lint()
    network.recompile()
    return network


def _only_normed(nodes: list[fx.Node], layers: Mapping[str, nn.Module]) -> bool:
    """Whether all results of a layer go into gated batch norms and nowhere else, pooled or not."""
    users = [user for node in nodes for user in _readers(node)]
    return bool(users) and all(
        user.op == "call_module" and isinstance(layers.get(str(user.target)), NORMS) for user in users
    )


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    """Who reads a result, looking through pooling and dropout, which the mask may pass."""
    for user in node.users:
        module = user.graph.owning_module.get_submodule(str(user.target)) if user.op == "call_module" else None  # type: ignore[union-attr]
        if isinstance(module, _PASSABLE) or user.target in _PASSABLE_FUNCTIONS:
            yield from _readers(user)
        else:
            yield user


def _mask_layer(network: fx.GraphModule, name: str, layer: nn.Module, nodes: list[fx.Node], masks: Masks) -> None:
    if layer._parameters.get("weight") is None:
        for node in nodes:
            _multiply(network, node, list(node.users), name, masks)
        return
    dim = _surgery.filter_dim(layer)  # before the parametrization changes the layer's class
    parametrize.register_parametrization(layer, "weight", _Folded(masks, name, dim))
    if layer._parameters.get("bias") is not None:
        parametrize.register_parametrization(layer, "bias", _Folded(masks, name, 0))


def _masked_again(node: fx.Node, layers: Mapping[str, nn.Module]) -> tuple[str, list[fx.Node]]:
    """The layer whose mask a sum takes, and the operands that do not come straight from their layers."""
    operands = node.all_input_nodes
    made = [_made_by(operand, layers) for operand in operands]
    layer = next((name for name, _ in made if name), None)
    if layer is None or len(operands) < 2:
        return "", []
    return layer, [operand for operand, (_, fresh) in zip(operands, made, strict=True) if not fresh]


def _made_by(node: fx.Node, layers: Mapping[str, nn.Module]) -> tuple[str | None, bool]:
    """The gated layer that made the channels of a result, and whether nothing else reads them on their way."""
    fresh = True
    while True:
        fresh = fresh and len(node.users) == 1
        if node.op == "call_module" and node.target in layers:
            return str(node.target), fresh
        before = [operand for operand in node.all_input_nodes if _channels(operand) == _channels(node)]
        if not before or (node.op == "call_module" and _is_layer(node)):
            return None, False
        fresh = fresh and len(before) == 1
        node = before[0]


def _is_layer(node: fx.Node) -> bool:
    assert isinstance(node.graph.owning_module, nn.Module)
    layer = node.graph.owning_module.get_submodule(str(node.target))
    return isinstance(layer, (*PRODUCTS, NORMS, PaddedShortcut))


def _channels(node: fx.Node) -> int | None:
    shape: Sequence[int] = getattr(node.meta.get("tensor_meta"), "shape", ())
    return shape[1] if len(shape) > 1 else None


def _multiply(network: fx.GraphModule, node: fx.Node, users: list[fx.Node], layer: str, masks: Masks) -> None:
    """Put a mask between a result and those who read it."""
    for user in users:
        name = f"mask_{len(network.graph.nodes)}"
        network.add_submodule(name, _Masked(masks, layer))
        with network.graph.inserting_before(user):  # what works in place may come in between
            user.replace_input_with(node, network.graph.call_module(name, (node,)))


def why_not(model: nn.Module, example: Tensor, name: str) -> str | None:
    """Why a network cannot be gated, or None: gates that are open must leave what it computes as it is."""
    copied = copy.deepcopy(model).train()
    try:
        every = _surgery.widths(model, example)
        masks = Masks(channels(model, every))
        masks.fill(torch.ones(sum(width.channels for width in every)), next(model.parameters()).device)
        network = gated(copied, example, masks.places, masks)
    except Exception as error:  # noqa: BLE001  tracing runs the network's code
        return f"the graph of {name} cannot be taken, so its sums cannot be masked ({error})"
    if not every:
        return f"{name} has no width that may shrink"
    with evaluating(model), evaluating(network), torch.no_grad():
        expected, got = (main(m(example.to(next(model.parameters())))) for m in (model, network))
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        return f"the graph of {name} computes something else: it works in place or asks for the mode it is in"
    return None


def held_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of one forward pass, parameters and inputs left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers(), inputs)}
    storages: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        outputs = model(inputs)
    del outputs
    return sum(storages.values())
