"""Scores and a budget go in; the channels to remove from each width come out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Literal, get_args

import torch

from slimbench.core import UserError
from slimbench.cost import layers
from slimbench.methods._surgery import Width, widths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from slimbench.core import Budget, Resource
    from slimbench.cost import Layer

Ranking = Literal["layer", "global", "as scored"]


@dataclass(frozen=True)
class How:
    """How scores become an order.

    Attributes:
        ranking: "layer" empties all widths at the same pace; "global" ranks scores across widths, each divided by
            its width's mean; "as scored" ranks them across widths as they are.
        round_to: channels go in blocks, so that this many, or a multiple, are left.

    """

    ranking: Ranking = "layer"
    round_to: int = 1

    def __post_init__(self) -> None:
        """Refuse what no order can be made by."""
        if self.ranking not in get_args(Ranking) or self.round_to < 1:
            raise UserError(f"ranking={self.ranking!r}, round_to={self.round_to}: use layer or global, and at least 1.")


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
    overshooting step is taken where that comes nearer. So the result is the budget to within the smallest steps; where
    those are too coarse for its tolerance, steps of one width are traded for steps of another.

    Args:
        scores: one tensor a width, (channels,); low means dispensable.
        how: how the order is made of them.

    """
    ledger = Ledger(model, example, every)
    target = budget.keep * ledger.left(budget.resource)
    skipped: list[tuple[int, list[int]]] = []
    order = _order(every, scores, how)
    for width, block in order:
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
    if abs(ledger.left(budget.resource) - target) > budget.tolerance * target:
        _trade(ledger, order, target, budget)
    return ledger.removed


def _trade(ledger: Ledger, order: Sequence[tuple[int, list[int]]], target: float, budget: Budget) -> None:
    """Put back the last one or two steps of a width for the next one or two of another, where that meets the budget."""
    resource = budget.resource
    gone: list[list[list[int]]] = [[] for _ in ledger.every]
    stay: list[list[list[int]]] = [[] for _ in ledger.every]
    for width, block in order:
        (gone if ledger.removed[width].issuperset(block) else stay)[width].append(block)

    def change(trade: tuple[int, int, int, int], sign: Literal[-1, 1]) -> None:
        put_back, backs, taken, takes = trade
        ledger.change(put_back, [c for block in gone[put_back][-backs:] for c in block], sign)
        ledger.change(taken, [c for block in stay[taken][:takes] for c in block], -1 if sign > 0 else 1)

    best, nearest = budget.tolerance * target, None
    for (put_back, taken), (backs, takes) in product(permutations(range(len(gone)), 2), product((1, 2), repeat=2)):
        if backs <= len(gone[put_back]) and takes <= len(stay[taken]):
            trade = put_back, backs, taken, takes
            change(trade, +1)
            miss = abs(ledger.left(resource) - target)
            change(trade, -1)
            if miss < best or (nearest is None and miss == best):
                best, nearest = miss, trade
    if nearest:
        change(nearest, +1)


def reachable(
    model: nn.Module, example: Tensor, every: Sequence[Width], resource: Resource, round_to: int = 1
) -> float:
    """The smallest keep: one channel (or one block) left in every width."""
    ledger = Ledger(model, example, every)
    dense = ledger.left(resource)
    for width, block in _order(every, [torch.zeros(w.channels) for w in every], How(round_to=round_to)):
        ledger.change(width, block, -1)
    return ledger.left(resource) / dense


def why_not(
    model: nn.Module, example: Tensor, budget: Budget, round_to: int = 1, every: Sequence[Width] | None = None
) -> str | None:
    """Why removing channels of ``every`` width (None: of all that there are) cannot meet a budget, or None."""
    if budget.params_keep is not None:
        return "removing channels to one budget moves MACs and params together: ask for one of them"
    least = reachable(model, example, widths(model, example) if every is None else every, budget.resource, round_to)
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
        mean = (float(score.double().mean()) or 1.0) if how.ranking == "global" else 1.0
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
        self._rows = layers(model, example)
        self._total: dict[Resource, int] = dict.fromkeys(("macs", "params", "prunable_nonzero"), 0)
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

    def _book(self, row: Layer, sign: int) -> None:
        for resource in self._total:
            self._total[resource] += sign * row.of(resource)
