"""A function and a layer's maps go in; a score for each of its channels comes out, (channels,); the lowest go.

    score(k) = sum over classes of  function(P, Q, N, X, mX, mP, mQ, WI, W)

All channels are scored at once, class by class. What a function asks of P, Q and X is mostly sums, which are kept while
the data pass by (``Moments``): then nothing but classes x channels numbers are held. Functions that work on the maps
themselves are given those of a subset (``maps``), and get channels in pieces that fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slimbench.methods.etpf import algebra
from slimbench.methods.etpf.algebra import InvalidExpressionError
from slimbench.methods.etpf.space import operands

if TYPE_CHECKING:
    from slimbench.methods.etpf.space import Expression

PIECE_BYTES = 64 * 2**20  # of the largest array of a piece of channels
_SUMMED = {"g_mean", "sum", "std", "var", "num", "mean"}  # what moments tell of P, Q and X


@dataclass
class Moments:
    """Sums by class: samples (classes,), their maps (classes, channels, D), all squares (classes, channels)."""

    numbers: Tensor
    maps: Tensor
    squares: Tensor

    @classmethod
    def none(cls, classes: int, channels: int, pixels: int, device: torch.device | None = None) -> Moments:
        """Of no samples yet."""
        zeros = (torch.zeros(s, dtype=torch.float64, device=device) for s in ((), (channels, pixels), (channels,)))
        numbers, maps, squares = (z.expand(classes, *z.shape).clone() for z in zeros)
        return cls(numbers, maps, squares)

    def add(self, maps: Tensor, labels: Tensor) -> None:
        """Take samples (n, channels, D) with their classes (n,); those of class -1 are left out."""
        kept = labels >= 0
        maps, labels = maps[kept].double(), labels[kept]
        one_hot = torch.nn.functional.one_hot(labels, len(self.numbers)).double()
        self.numbers += one_hot.sum(0)
        self.maps += torch.einsum("nk,ncd->kcd", one_hot, maps)
        self.squares += torch.einsum("nk,nc->kc", one_hot, maps.square().sum(2))


@dataclass
class Maps:
    """Samples (channels, n, D) in their order, on which traces and inverses depend, with their classes (n,)."""

    values: Tensor
    labels: Tensor

    @classmethod
    def of(cls, maps: Tensor, labels: Tensor) -> Maps:
        """Of samples (n, channels, D); those of class -1 are left out."""
        return cls(maps[labels >= 0].transpose(0, 1).contiguous(), labels[labels >= 0])


@dataclass
class Layer:
    """Moments of a layer's maps, its filters (channels, ...), and the maps of the same samples where asked for."""

    moments: Moments
    filters: Tensor
    maps: Maps | None = None

    @property
    def all_filters(self) -> Tensor:
        """W: (1, kh, kw, C_in, C_out), or (1, C_in, C_out) of a linear layer."""
        return self.each_filter.movedim(0, -1)[None]

    @property
    def each_filter(self) -> Tensor:
        """WI: (C_out, kh, kw, C_in), or (C_out, C_in)."""
        return (self.filters.permute(0, 2, 3, 1) if self.filters.ndim == 4 else self.filters).double()


def needs_maps(expression: Expression) -> bool:
    """Whether a function works on P, Q or X themselves, not on their sums alone."""
    if isinstance(expression, str):
        return expression in {"P", "Q", "X"}
    name, *arguments = expression
    if name in _SUMMED and arguments[0] in {"P", "Q", "X"}:
        return False
    return any(needs_maps(argument) for argument in arguments)


def score(expression: Expression, layer: Layer) -> Tensor:
    """The score of each channel, (channels,) float64.

    Raises: InvalidExpressionError where operands do not fit, a result is too large, no number comes out or none that is
    finite.
    """
    moments = layer.moments
    if needs_maps(expression) and layer.maps is None:
        raise InvalidExpressionError("the function works on maps, and none were kept")
    channels = moments.maps.shape[1]
    total = torch.zeros(channels, dtype=torch.float64, device=moments.maps.device)
    piece, first = 1 if needs_maps(expression) else channels, 0
    while first < channels:
        chosen = slice(first, min(first + piece, channels))
        terms = _Terms(layer, chosen)
        total[chosen] = terms.sum_over_classes(expression)
        first += piece
        piece = max(1, PIECE_BYTES // terms.most_bytes_a_channel)
    if not bool(torch.isfinite(total).all()):
        raise InvalidExpressionError("a score is not finite")
    return total


class _Terms:
    """Evaluates a function for some channels, each subexpression once: those without the class once for all classes."""

    def __init__(self, layer: Layer, channels: slice) -> None:
        self.layer, self.channels = layer, channels
        self.most_bytes_a_channel = 1
        self._shared: dict[Expression, Tensor] = {}
        self._own: dict[Expression, Tensor] = {}
        moments = layer.moments
        self._maps, self._squares = moments.maps[:, channels], moments.squares[:, channels]

    def sum_over_classes(self, expression: Expression) -> Tensor:
        """Of the classes that have samples, and others beside them."""
        total = torch.zeros((), dtype=torch.float64, device=self._maps.device)
        everyone = self.layer.moments.numbers.sum()
        for label, number in enumerate(self.layer.moments.numbers.tolist()):
            if 0 < number < everyone:
                self._own = {}
                term = self._value(expression, label)
                if term.ndim > 1:
                    raise InvalidExpressionError(
                        f"the function gives no number but an array of {term.ndim - 1} dimensions"
                    )
                total = total + term
        return total.expand(self._maps.shape[1])

    def _value(self, expression: Expression, label: int) -> Tensor:
        known = self._own if operands(expression) & {"P", "Q", "N", "mP", "mQ"} else self._shared
        if expression not in known:
            value = self._computed(expression, label)
            self.most_bytes_a_channel = max(self.most_bytes_a_channel, 8 * value[0].numel())
            known[expression] = value
        return known[expression]

    def _computed(self, expression: Expression, label: int) -> Tensor:
        if isinstance(expression, str):
            return self._operand(expression, label)
        name, *arguments = expression
        if name in _SUMMED and isinstance(arguments[0], str) and arguments[0] in {"P", "Q", "X"}:
            return self._summed(name, arguments[0], label)
        return algebra.apply(name, *(self._value(argument, label) for argument in arguments))

    def _sums(self, which: str, label: int) -> tuple[Tensor, Tensor, Tensor]:
        """Number, sum of maps (channels, D), sum of squares (channels,) of P, Q or X."""
        numbers = self.layer.moments.numbers
        every = numbers.sum(), self._maps.sum(0), self._squares.sum(0)
        own = numbers[label], self._maps[label], self._squares[label]
        if which == "Q":
            return tuple(a - b for a, b in zip(every, own, strict=True))  # type: ignore[return-value]
        return own if which == "P" else every

    def _summed(self, name: str, which: str, label: int) -> Tensor:
        number, maps, squares = self._sums(which, label)
        if name == "num":
            return number[None]
        if name == "mean" and maps.shape[1] > 1:
            return maps / number
        total, count = maps.sum(1), number * maps.shape[1]
        if name == "sum":
            return total
        if name in {"g_mean", "mean"}:
            return total / count
        variance = (squares / count - (total / count).square()).clamp(min=0)
        return variance if name == "var" else variance.sqrt()

    def _operand(self, name: str, label: int) -> Tensor:
        if name == "N":
            return self.layer.moments.numbers[label][None]
        if name in {"mX", "mP", "mQ"}:
            number, maps, _ = self._sums(name[1], label)
            return maps / number
        if name == "WI":
            return self.layer.each_filter[self.channels]
        if name == "W":
            return self.layer.all_filters
        assert self.layer.maps is not None
        values = self.layer.maps.values[self.channels].double()
        own = self.layer.maps.labels == label
        return values if name == "X" else values[:, own if name == "P" else ~own]
