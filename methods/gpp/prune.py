"""Traced maps go in; the worth of each channel of each width comes out, and the channels that go.

The utility of channel c of layer i is the maximum over its map of what was traced back to it, the mean over images U:

    u_{i,c} = max over (h, k) of U_{i,c}(h, k)                    goes where u_{i,c} < t_i
    t_i     = eta * sqrt(1 / (P_i - 1) * sum_j (x_j - mean)^2)    x: all P_i values of U_i that are not 0

One eta serves all layers, so channels are ordered across them by u / (t / eta): to raise eta until a budget is met is
to remove them in that order (Tian, Arbel and Clark 2021).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.cost import PRODUCTS
from slimbench.methods import _choice, _surgery
from slimbench.methods.gpp import trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import Budget, Scores, Task
    from slimbench.methods._graph import Member, Width


def inner(model: nn.Module, every: Sequence[Width]) -> list[Width]:
    """The widths that one layer alone makes: no residual stream, whose channels several make together."""
    return [
        width
        for width in every
        if sum(not _surgery.passes(model.get_submodule(maker.layer)) for maker in width.makers) == 1
    ]


def enough(model: nn.Module, decision: str, utilities: Tensor, task: Task, loss: float) -> Tensor:
    """(M,) bool: the fewest best neurons with which the validation score is comparable, all weights as they are.

    The fewest are found by bisection, as if more neurons never scored worse.

    Args:
        loss: the largest relative loss that is comparable.

    """
    order = utilities.argsort(descending=True, stable=True)
    kept = torch.ones_like(utilities, dtype=torch.bool)

    def mask(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = given[0]
        return x * kept.to(x).reshape([1, -1] + [1] * (x.ndim - 2)), *given[1:]

    handle = model.get_submodule(decision).register_forward_pre_hook(mask)
    try:
        whole = score(model, task)
        too_few, count = 0, int((utilities > 0).sum()) or 1
        while count - too_few > 1:
            middle = (count + too_few) // 2
            kept = torch.zeros_like(kept).index_fill(0, order[:middle], True)
            too_few, count = (too_few, middle) if comparable(score(model, task), whole, task, loss) else (middle, count)
    finally:
        handle.remove()
    return torch.zeros_like(kept).index_fill(0, order[:count], True)


def score(model: nn.Module, task: Task) -> Scores:
    """The headline on validation."""
    return next(iter(task.evaluate(model, "val").values()))


def comparable(found: Scores, whole: Scores, task: Task, loss: float) -> bool:
    """Whether a score is at most a share ``loss`` worse than another."""
    return _gain(whole, found, task) <= loss * abs(whole.value)


def better(found: Scores, before: Scores, task: Task, gain: float) -> bool:
    """Whether a score is more than a share ``gain`` better than another."""
    return _gain(found, before, task) > gain * abs(before.value)


def _gain(found: Scores, before: Scores, task: Task) -> float:
    return (found.value - before.value) * (1 if task.metrics[0].higher_is_better else -1)


def readers(model: nn.Module, width: Width) -> list[Member]:
    """The sides of convolutions and linear layers that read a width's channels."""
    every = [member for member in width.members if member.side == "in"]
    layers = [model.get_submodule(member.layer) for member in every]
    return [
        member
        for member, layer in zip(every, layers, strict=True)
        if isinstance(layer, PRODUCTS) and not _surgery.passes(layer)
    ]


def worth(
    model: nn.Module, every: Sequence[Width], decision: str, parts: Iterable[Tensor], kept: Tensor
) -> list[Tensor]:
    """u / (t / eta) of each width's channels, (channels,) float64: the eta at which each one goes.

    Where a width is read several times, a channel is worth what it is where it is worth most.

    Args:
        parts: images, (N, C, H, W) each. kept: (M,) bool, the pre-decision neurons that are traced.

    """
    places = [readers(model, width) for width in every]
    names = {member.layer for each in places for member in each}
    sums: dict[str, list[Tensor]] = {}
    images = 0
    for inputs in parts:
        images += len(inputs)
        for name, maps in trace.trace(model, sorted(names), decision, inputs, kept).items():
            new = [values.sum(0).double().cpu() for values in maps]
            sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new
    relative = {name: [_relative(total / images) for total in totals] for name, totals in sums.items()}
    return [_of_width(width, each, relative) for width, each in zip(every, places, strict=True)]


def _relative(U: Tensor) -> Tensor:
    """u / (t / eta) of the channels of one traced map (C, ...), (C,); where t is 0, a response lies above any eta."""
    x, u = U[U != 0], U.reshape(len(U), -1).amax(1)
    deviation = float(x.std()) if len(x) > 1 else 0.0
    return u / deviation if deviation else torch.where(u > 0, math.inf, 0.0).to(u)


def _of_width(width: Width, places: Sequence[Member], relative: dict[str, list[Tensor]]) -> Tensor:
    best = torch.zeros(width.channels, dtype=torch.float64)
    for member in places:
        for values in relative[member.layer]:
            found = [float(values[list(indices)].max()) if indices else -math.inf for indices in member.indices]
            best = torch.maximum(best, torch.tensor(found, dtype=torch.float64))
    return best


def floors(
    model: nn.Module, every: Sequence[Width], scores: Sequence[Tensor], decision: str, share: float
) -> list[int]:
    """How many channels of each width go last: a share, and the best pre-decision neurons, at most as many as outputs.

    Outputs that fewer neurons feed depend on each other: of three colours, one neuron makes shades of one. Neurons of
    no worth, as those that were not enough to be traced, are none of them.
    """
    outputs = len(_surgery.filters(model.get_submodule(decision)))
    worths = [each.tolist() if _feeds(width, decision) else [] for width, each in zip(every, scores, strict=True)]
    best = sorted(((worth, place) for place, each in enumerate(worths) for worth in each if worth > 0), reverse=True)
    needed = Counter(place for _, place in best[:outputs])
    return [max(int(share * width.channels), needed[place]) for place, width in enumerate(every)]


def _feeds(width: Width, decision: str) -> bool:
    return any((member.layer, member.side) == (decision, "in") for member in width.members)


def to_budget(
    model: nn.Module,
    example: Tensor,
    every: Sequence[Width],
    scores: Sequence[Tensor],
    *,
    budget: Budget,
    floors: Sequence[int],
) -> list[set[int]]:
    """The channels that go for a budget: the eta that meets it. The best of each width, as many as ``floors`` says, go
    last, unless others would miss the budget.
    """
    guarded = [_guarded(each, count) for each, count in zip(scores, floors, strict=True)]
    how = _choice.How("as scored")
    return _choice.choose(model, example, every, guarded, budget=budget, how=how)


def below(scores: Sequence[Tensor], eta: float, floors: Sequence[int]) -> list[set[int]]:
    """The channels that go for a given eta; the best of each width stay: ``floors``, and one at least."""
    removed = []
    for each, count in zip(scores, floors, strict=True):
        guarded = _guarded(each, max(1, count))
        removed.append(set((guarded < eta).nonzero().flatten().tolist()))
    return removed


def reached(scores: Sequence[Tensor], removed: Sequence[set[int]]) -> float:
    """The largest eta of a channel that went; 0 where none did."""
    return max((float(each[sorted(gone)].max()) for each, gone in zip(scores, removed, strict=True) if gone), default=0)


def _guarded(scores: Tensor, count: int) -> Tensor:
    """The same, the best ``count`` of the channels beyond all others, in their order."""
    best = scores.argsort(stable=True)[len(scores) - count :]
    guarded = scores.clone()
    guarded[best] += 1e12
    return guarded
