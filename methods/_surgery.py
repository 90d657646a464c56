"""A network goes in; its independent widths come out, and channels are removed from it exactly.

torch-pruning's dependency graph says which layers' channels belong together. What it gets wrong, the zero-padded
shortcut, is shown to it as a 1x1 convolution, and then edited as the explicit channel map that it is.

    widths(model, example)               every independent width: which layers make, pass and read its channels
    choose(model, example, widths, ...)  which channels go, so that the budget is met
    remove(model, widths, removed)       the smaller network, in place; it computes what the masked one did
    mask(model, widths, removed)         the same channels zeroed, nothing removed
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from slimbench.core import UserError
from slimbench.cost import NORMS, PRODUCTS, evaluating, watching
from slimbench.tasks._networks.shortcut import PaddedShortcut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.core import Budget, Resource

Ranking = Literal["layer", "global"]


@dataclass(frozen=True)
class How:
    """How scores become an order.

    Attributes:
        ranking: "layer" empties all widths at the same pace; "global" ranks scores across widths, each divided by
            its width's mean.
        round_to: channels go in blocks, so that this many, or a multiple, are left.

    """

    ranking: Ranking = "layer"
    round_to: int = 1

    def __post_init__(self) -> None:
        """Refuse what no order can be made by."""
        if self.ranking not in {"layer", "global"} or self.round_to < 1:
            raise UserError(f"ranking={self.ranking!r}, round_to={self.round_to}: use layer or global, and at least 1.")


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


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and not _is_depthwise(layer)


def _passes(layer: nn.Module) -> bool:
    """Whether a layer's channels out are its channels in."""
    return isinstance(layer, NORMS) or _is_depthwise(layer)


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


# -------------------------------------------------------------------------------------------------- the choice


def choose(
    model: nn.Module,
    example: Tensor,
    every: Sequence[Width],
    scores: Sequence[Tensor],
    *,
    budget: Budget,
    how: How,
) -> list[set[int]]:
    """Channels to remove from each width, lowest scores first, until the budget's resource is met.

    Channels go in one order, and a step that would overshoot is skipped for a smaller one further on; at the end one
    overshooting step is taken where that comes nearer. So the result is the budget to within the smallest steps.

    Args:
        scores: one tensor a width, (channels,); low means dispensable.
        how: how the order is made of them.

    """
    ledger = Ledger(model, example, every)
    target = budget.keep * ledger.left(budget.resource)
    skipped: list[tuple[int, list[int]]] = []
    for width, block in _order(every, scores, how):
        ledger.change(width, block, -1)
        if ledger.left(budget.resource) < target:
            ledger.change(width, block, +1)
            skipped.append((width, block))
    over = ledger.left(budget.resource) - target
    misses: list[tuple[float, int]] = []
    for index, (width, block) in enumerate(skipped):
        ledger.change(width, block, -1)
        misses.append((target - ledger.left(budget.resource), index))
        ledger.change(width, block, +1)
    if misses and min(misses)[0] < over:
        ledger.change(*skipped[min(misses)[1]], -1)
    return ledger.removed


def reachable(model: nn.Module, example: Tensor, resource: Resource, round_to: int = 1) -> float:
    """The smallest keep: one channel (or one block) left in every width."""
    every = widths(model, example)
    ledger = Ledger(model, example, every)
    dense = ledger.left(resource)
    for width, block in _order(every, [torch.zeros(w.channels) for w in every], How(round_to=round_to)):
        ledger.change(width, block, -1)
    return ledger.left(resource) / dense


def why_not(model: nn.Module, example: Tensor, budget: Budget, round_to: int = 1) -> str | None:
    """Why removing channels cannot meet a budget, or None."""
    if budget.params_keep is not None:
        return "removing channels to one budget moves MACs and params together: ask for one of them"
    least = reachable(model, example, budget.resource, round_to)
    if budget.keep < least:
        return (
            f"keep {budget.keep:g} of {budget.resource} is below the least that one channel a width leaves, {least:.4f}"
        )
    return None


def _order(every: Sequence[Width], scores: Sequence[Tensor], how: How) -> list[tuple[int, list[int]]]:
    """Blocks of channels (width, channels) in the order in which they go; the last block of a width never goes."""
    events: list[tuple[float, int, list[int]]] = []
    for index, (width, score) in enumerate(zip(every, scores, strict=True)):
        ascending = score.double().argsort(stable=True).tolist()
        odd = width.channels % how.round_to
        starts = [0, *range(odd or how.round_to, width.channels, how.round_to)]
        blocks = [ascending[a:b] for a, b in zip(starts, [*starts[1:], width.channels], strict=True)]
        mean = float(score.double().mean()) or 1.0
        gone = 0
        for block in blocks[:-1]:
            gone += len(block)
            key = gone / width.channels if how.ranking == "layer" else float(score[block].double().mean()) / mean
            events.append((key, index, block))
    return [(index, block) for _, index, block in sorted(events)]


class Ledger:
    """Counts what is left while channels go, without touching the network: exactly what ``cost.count`` then says."""

    def __init__(self, model: nn.Module, example: Tensor, every: Sequence[Width]) -> None:
        self.every = every
        self.removed: list[set[int]] = [set() for _ in every]
        self._rows = _rows(model, example)
        self._total: dict[str, int] = {"macs": 0, "params": 0, "prunable_nonzero": 0}
        for row in self._rows.values():
            self._book(row, +1)

    def left(self, resource: Resource) -> int:
        """MACs, params or weights of convolutions and linear layers."""
        return self._total[resource]

    def change(self, width: int, channels: Sequence[int], sign: Literal[-1, 1]) -> None:
        """Remove channels of a width (-1) or put them back (+1)."""
        (self.removed[width].update if sign < 0 else self.removed[width].difference_update)(channels)
        for member in self.every[width].members:
            row = self._rows.get(member.layer)
            if row is None:
                continue
            count = sign * len({i for c in channels for i in member.indices[c]})
            self._book(row, -1)
            if member.side == "out" or row.passes:
                row.outs += count
            if member.side == "in" and not row.passes:
                row.ins += count
            self._book(row, +1)

    def _book(self, row: _Row, sign: int) -> None:
        weights = row.kernel * row.outs * (1 if row.passes else row.ins)
        self._total["macs"] += sign * weights * row.positions
        self._total["prunable_nonzero"] += sign * (weights if row.positions else 0)
        self._total["params"] += sign * (weights + row.outs * row.vectors)


@dataclass
class _Row:
    """What a layer costs: ``kernel`` weights for each pair of channels, at ``positions``; ``vectors`` biases."""

    ins: int
    outs: int
    kernel: int
    positions: int
    vectors: int
    passes: bool


def _rows(model: nn.Module, example: Tensor) -> dict[str, _Row]:
    """A row for every convolution, linear layer and batch norm, from one forward pass."""
    rows: dict[str, _Row] = {}

    def see(name: str, layer: nn.Module, output: Tensor) -> None:
        if isinstance(layer, NORMS):
            rows[name] = _Row(0, layer.num_features, 0, 0, 2 if layer.affine else 0, True)
            return
        assert isinstance(layer, PRODUCTS)
        outs, ins = layer.weight.shape[0], layer.weight.shape[1]
        bias = int(layer.bias is not None)
        rows[name] = _Row(ins, outs, layer.weight[0, 0].numel(), output.numel() // outs, bias, _is_depthwise(layer))

    with watching(model, (*PRODUCTS, NORMS), see), evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters()).device))
    return rows
