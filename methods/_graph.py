"""A network goes in; its independent widths come out: which layers make, pass and read each channel.

torch-pruning traces the network and says which layers' channels belong together. What it would get wrong is shown to it
as 1x1 convolutions, which it gets right: zero-padded shortcuts and pixel shuffles, whose channel maps are known, and
the image, whose channels must stay. Its groups are then joined channel by channel.

The copy that is traced has its containers in training mode and its layers in eval mode, so that heads which only
training uses are seen as well.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from slimbench.core import UnknownLayerError
from slimbench.cost import CONVOLUTIONS, NORMS, PRODUCTS, evaluating, is_depthwise, watching
from slimbench.tasks._networks.shortcut import PaddedShortcut

if TYPE_CHECKING:
    from collections.abc import Iterator

Side = Literal["in", "out"]
Atom = tuple[str, Side, int]  # one channel of one side of one layer

_SHUFFLES = (nn.PixelShuffle, nn.PixelUnshuffle)
_STAYS: Atom = ("(image)", "out", 0)  # what is coupled with it may not go
# What mixes or moves channels unseen by torch-pruning, by its name in autograd; ``_mixes`` finds more by dimension.
_MIXERS = (
    *("Pixel", "Permute", "Transpose", "Flip", "Roll", "Repeat", "Index"),
    *("Bmm", "Mm", "Addmm", "Baddbmm", "Scaled", "Convolution"),
)


@dataclass(frozen=True)
class Member:
    """One side of one layer: the indices that each channel of the width takes there, one, several or none."""

    layer: str
    side: Side
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


def widths(model: nn.Module, example: Tensor) -> list[Width]:
    """Every independent width whose channels may go.

    Not the network's inputs and outputs, nothing at grouped convolutions, frozen layers or operators that mix
    channels, and nothing that only heads of the training mode have.

    Raises: UnknownLayerError.
    """
    real = dict(model.named_modules())
    deployed = _called(model, example)
    found = []
    for channels in _joined(_Traced(model, example.cpu().float()), example.cpu().float()):
        width = _width(channels, real)
        kinds = {member.layer: real[member.layer] for member in width.members}
        if any(map(_keeps, kinds.values())) or not any(maker.layer in deployed for maker in width.makers):
            continue
        for name, kind in kinds.items():
            if not isinstance(kind, (*PRODUCTS, NORMS, PaddedShortcut)):
                raise UnknownLayerError(f"surgery does not know the layer {name!r} ({type(kind).__name__})")
        found.append(width)
    return sorted(found, key=lambda width: list(real).index(width.name))


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Set the submodule ``name`` to ``layer``."""
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent)._modules[last] = layer


def _keeps(layer: nn.Module) -> bool:
    """Whether all channels of a layer stay: it is grouped, or frozen."""
    grouped = isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer)
    parameters = list(layer.parameters())
    return grouped or (bool(parameters) and not any(p.requires_grad for p in parameters))


def _called(model: nn.Module, example: Tensor) -> set[str]:
    """Every module that a forward pass in eval mode calls."""
    names: set[str] = set()
    with watching(model, nn.Module, lambda name, *_: names.add(name)), evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters())))
    return names


# -------------------------------------------------------------------------------------------------- the tracing


class _Traced(nn.Module):
    """A copy of the network, float32 on the CPU, with convolutions in place of what rearranges channels.

    Attributes:
        names: of the layers; call n of a shuffle is named ``name(n)``.
        pairs: channels that are one across a shuffle.

    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.image = _convolution(example.shape[1], example.shape[1])
        self.network = copy.deepcopy(model).cpu().float()
        self.names: dict[nn.Module, str] = {self.image: _STAYS[0]}
        self.pairs: list[tuple[Atom, Atom]] = []
        self._replace(example)
        self.names = {module: name for name, module in self.network.named_modules()} | self.names
        self.requires_grad_(True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Every output, by way of an operator. The modes are set here, because torch-pruning calls ``eval``."""
        for module in self.network.modules():
            module.training = any(True for _ in module.children())
        with torch.random.fork_rng(devices=[]):  # a container may drop out
            return [output * 1 for output in tp.utils.flatten_as_list(self.network(self.image(x)))]

    def _replace(self, example: Tensor) -> None:
        calls: dict[str, list[int]] = {}
        with watching(self.network, _SHUFFLES, lambda name, _, out: calls.setdefault(name, []).append(out.shape[1])):
            self(example)
        for name, module in list(self.network.named_modules()):
            if isinstance(module, PaddedShortcut):
                put(self.network, name, nn.Conv2d(module.width_in, len(module.source), 1, module.stride, bias=False))
            elif name in calls:
                stand_in = _Shuffle(module, calls[name])
                put(self.network, name, stand_in)
                for turn, conv in enumerate(stand_in.calls):
                    self.names[conv] = f"{name}({turn})"
                    self.pairs += _across(self.names[conv], conv.in_channels, conv.out_channels)


class _Shuffle(nn.Module):
    """Shapes like a pixel shuffle's; one convolution a call, since calls of one shuffle have nothing in common."""

    def __init__(self, shuffle: nn.Module, outs: list[int]) -> None:
        super().__init__()
        self.up, self.down = getattr(shuffle, "upscale_factor", 1), getattr(shuffle, "downscale_factor", 1)
        ins = [n * self.up**2 // self.down**2 for n in outs]
        self.calls = [_convolution(*sides, self.down) for sides in zip(ins, outs, strict=True)]
        self.layers, self.turns = nn.ModuleList(self.calls), iter(self.calls)

    def forward(self, x: Tensor) -> Tensor:
        """The next call."""
        return next(self.turns)(nn.functional.interpolate(x, scale_factor=self.up))


def _convolution(ins: int, outs: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution whose weights nobody reads, and which leaves the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        return nn.Conv2d(ins, outs, 1, stride, bias=False)


def _across(name: str, ins: int, outs: int) -> list[tuple[Atom, Atom]]:
    """Channel k of the wide side is channel k // r^2 of the narrow one."""
    wide = max(ins, outs)
    return [((name, "in", k * ins // wide), (name, "out", k * outs // wide)) for k in range(wide)]


class _Graph(tp.DependencyGraph):  # type: ignore[misc]
    """Asks each operator how many channels it has; torch-pruning asks its neighbours, theirs, and gives up at 500."""

    def get_out_channels(self, module_or_node: object) -> int | None:
        """Channels of a layer, or of an operator's result."""
        return super().get_out_channels(module_or_node) or _result_channels(module_or_node)

    def get_in_channels(self, module_or_node: object) -> int | None:
        """Channels that a layer reads, or an operator puts out: where these differ, ``_mixes`` keeps both."""
        return super().get_in_channels(module_or_node) or _result_channels(module_or_node)


def _result_channels(node: object) -> int | None:
    metadata = getattr(getattr(node, "grad_fn", None), "_input_metadata", ())  # of the backward pass's input
    return metadata[0].shape[1] if metadata and len(metadata[0].shape) > 1 else None


def _coupled(traced: _Traced, example: Tensor) -> Iterator[tuple[list[Atom], list[tuple[Atom, Atom]]]]:
    """Each layer that makes channels: those channels, and what they are one with."""
    graph = _Graph().build_dependency(traced, example, forward_fn=lambda model, x: model(x), verbose=False)
    for maker in [module for module in graph.module2node if isinstance(module, PRODUCTS)]:
        pruner = graph.get_pruner_of_module(maker)
        channels = range(pruner.get_out_channels(maker))
        made: list[Atom] = [(traced.names[maker], "out", channel) for channel in channels]
        pairs: list[tuple[Atom, Atom]] = []
        for item in graph.get_pruning_group(maker, pruner.prune_out_channels, channels).items:
            module = item.dep.target.module
            if _is_layer(module, traced):
                side: Side = "in" if "in_channels" in item.dep.handler.__name__ else "out"
                limit = (graph.get_in_channels if side == "in" else graph.get_out_channels)(module)
                atoms: list[Atom] = [(traced.names[module], side, index) for index in item.idxs]
                pairs += [(made[root], atom) for root, atom in zip(item.root_idxs, atoms, strict=True)]
                stays = limit is not None and max(item.idxs) >= limit  # one value, broadcast to all channels
            else:
                stays = _mixes(item.dep.target)
            if stays:
                pairs.append((made[0], _STAYS))
        yield made, pairs


def _is_layer(module: nn.Module, traced: _Traced) -> bool:
    return module in traced.names and any(True for _ in module.parameters(recurse=False))


def _mixes(node: tp.dependency.Node) -> bool:
    """Whether the channels that meet an operator must stay: outputs, parameters outside layers, and mixers."""
    if isinstance(node.module, (tp.ops._OutputOp, nn.Parameter)):
        return True
    operator, name = node.grad_fn, node.grad_fn.name()
    dims = getattr(operator, "_saved_dim", ())
    dims = {dim % 2**64 for dim in (dims if isinstance(dims, tuple) else (dims,))}
    along = bool(dims & {1, 2**64 - 3}) and not name.startswith("Cat")  # cuts, sums, softmax along the channels
    padded = name.startswith("ConstantPad") and any(operator._saved_pad[4:])
    return along or padded or bool(name.startswith(_MIXERS))


# -------------------------------------------------------------------------------------------------- the joining


class _Classes:
    """Things that are one, found through any of them."""

    def __init__(self) -> None:
        self._parent: dict[Atom, Atom] = {}

    def find(self, atom: Atom) -> Atom:
        """The one that stands for its class."""
        root = atom
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while atom != root:
            self._parent[atom], atom = root, self._parent[atom]
        return root

    def join(self, one: Atom, two: Atom) -> None:
        """Make two classes one."""
        self._parent[self.find(two)] = self.find(one)


def _joined(traced: _Traced, example: Tensor) -> list[list[list[Atom]]]:
    """Widths, each as lists of the atoms that are one channel, in the order in which they were found."""
    channels, together = _Classes(), _Classes()
    order: dict[Atom, None] = {}
    for made, pairs in [*_coupled(traced, example), ([], traced.pairs)]:
        order |= dict.fromkeys(atom for pair in pairs for atom in pair)
        for one, two in pairs:
            together.join(one, two)
            if two != _STAYS:
                channels.join(one, two)
        for other in made[1:]:
            together.join(made[0], other)
    found: dict[Atom, dict[Atom, list[Atom]]] = {}
    for atom in order:
        found.setdefault(together.find(atom), {}).setdefault(channels.find(atom), []).append(atom)
    return [list(width.values()) for root, width in found.items() if root != together.find(_STAYS)]


def _width(channels: list[list[Atom]], real: dict[str, nn.Module]) -> Width:
    """The layers of the network, without what stood in for others."""
    members: dict[tuple[str, Side], list[list[int]]] = defaultdict(lambda: [[] for _ in channels])
    for number, atoms in enumerate(channels):
        for layer, side, index in atoms:
            if layer in real:
                members[layer, side][number].append(index)
    return Width(
        len(channels),
        tuple(Member(layer, side, tuple(map(tuple, indices))) for (layer, side), indices in members.items()),
    )
