"""A function and a layer's maps go in; a score for each of its channels comes out, (channels,); the lowest go.

    score(k) = sum over classes of  function(P, Q, N, X, mX, mP, mQ, WI, W)

All channels are scored at once, class by class. What a function asks of P, Q and X is mostly sums, which are kept while
the data pass by (``Moments``): then little more than classes x channels numbers are held. Functions that work on the
maps themselves are given those of a subset (``maps``), and get channels in pieces that fit into memory.
"""

from __future__ import annotations

import functools
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
    """Sums while the data pass by, in float64: classes x channels numbers, and the sum of all maps.

    Attributes:
        numbers: samples by class, (classes,).
        sums, squares: of the values of the maps and of their squares, (classes, channels).
        total: sum of all maps, (channels, D).
        maps: sums of maps by class, (classes, channels, D), where a function asks for mean maps of classes.

    """

    numbers: Tensor
    sums: Tensor
    squares: Tensor
    total: Tensor
    maps: Tensor | None = None

    @classmethod
    def none(cls, channels: int, pixels: int, *, by_class: bool, device: torch.device | None = None) -> Moments:
        """Of no samples yet, and of no classes: they come as they are met."""
        zeros = functools.partial(torch.zeros, dtype=torch.float64, device=device)
        maps = zeros(0, channels, pixels) if by_class else None
        return cls(zeros(0), zeros(0, channels), zeros(0, channels), zeros(channels, pixels), maps)

    def add(self, maps: Tensor, labels: Tensor) -> None:
        """Take samples (n, channels, D) with their classes (n,); those of class -1 are left out."""
        if bool((labels < 0).any()):
            maps, labels = maps[labels >= 0], labels[labels >= 0]
        if not len(labels):
            return
        maps = maps.double()
        self._grow(int(labels.max()) + 1 - len(self.numbers))
        one_hot = torch.nn.functional.one_hot(labels, len(self.numbers)).double().T
        self.numbers += one_hot.sum(1)
        self.sums += one_hot @ maps.sum(2)
        self.squares += one_hot @ torch.linalg.vecdot(maps, maps)
        self.total += maps.sum(0)
        if self.maps is not None:
            self.maps += (one_hot @ maps.flatten(1)).reshape(self.maps.shape)

    def _grow(self, more: int) -> None:
        if more > 0:
            for name in ("numbers", "sums", "squares", "maps"):
                value = getattr(self, name)
                if value is not None:
                    setattr(self, name, torch.cat([value, value.new_zeros(more, *value.shape[1:])]))


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
    """What is known of the channels of one layer.

    Attributes:
        filters: that make them, (channels, C_in, kh, kw), or (channels, C_in).
        moments: of their maps.
        maps: themselves, of the same samples or of a part of them, where a function works on them.
        gains: of the batch norm that scales them, (channels,); None where there is none.

    """

    filters: Tensor
    moments: Moments
    maps: Maps | None = None
    gains: Tensor | None = None

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


def needs_classes(expression: Expression) -> bool:
    """Whether a function asks for the mean maps of classes."""
    if isinstance(expression, str):
        return expression in {"mP", "mQ"}
    name, *arguments = expression
    return (name == "mean" and arguments[0] in {"P", "Q"}) or any(needs_classes(argument) for argument in arguments)


def score(expression: Expression, layer: Layer) -> Tensor:
    """The score of each channel, (channels,) float64.

    Raises: InvalidExpressionError where operands do not fit, a result is too large, no number comes out or none that is
    finite.
    """
    moments = layer.moments
    if needs_maps(expression) and layer.maps is None:
        raise InvalidExpressionError("the function works on maps, and none were kept")
    channels = len(moments.total)
    total = torch.zeros(channels, dtype=torch.float64, device=moments.total.device)
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

    def sum_over_classes(self, expression: Expression) -> Tensor:
        """Of the classes that have samples, and others beside them; without any data once, of filters."""
        if not operands(expression) - {"W", "WI"} and not len(self.layer.moments.numbers):
            return self._checked(self._value(expression, 0)).expand(len(self.layer.filters[self.channels]))
        total = torch.zeros((), dtype=torch.float64, device=self.layer.moments.total.device)
        everyone = self.layer.moments.numbers.sum()
        for label, number in enumerate(self.layer.moments.numbers.tolist()):
            if 0 < number < everyone:
                self._own = {}
                total = total + self._checked(self._value(expression, label))
        return total.expand(len(self.layer.moments.total[self.channels]))

    @staticmethod
    def _checked(term: Tensor) -> Tensor:
        if term.ndim > 1:
            raise InvalidExpressionError(f"the function gives no number but an array of {term.ndim - 1} dimensions")
        return term

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

    def _of(self, which: str, sums: Tensor, label: int) -> Tensor:
        """Of P, Q or X: what is summed by class, (classes, ...)."""
        if which == "X":
            return sums.sum(0)
        return sums[label] if which == "P" else sums.sum(0) - sums[label]

    def _mean_map(self, which: str, label: int) -> Tensor:
        """(channels, D)."""
        moments = self.layer.moments
        if which == "X":
            return moments.total[self.channels] / moments.numbers.sum()
        assert moments.maps is not None
        own = moments.maps[label, self.channels]
        summed = own if which == "P" else moments.total[self.channels] - own
        return summed / self._of(which, moments.numbers, label)

    def _summed(self, name: str, which: str, label: int) -> Tensor:
        moments = self.layer.moments
        number, pixels = self._of(which, moments.numbers, label), moments.total.shape[1]
        if name == "num":
            return number[None]
        if name == "mean" and pixels > 1:
            return self._mean_map(which, label)
        total, count = self._of(which, moments.sums[:, self.channels], label), number * pixels
        if name == "sum":
            return total
        if name in {"g_mean", "mean"}:
            return total / count
        squares = self._of(which, moments.squares[:, self.channels], label)
        variance = (squares / count - (total / count).square()).clamp(min=0)
        return variance if name == "var" else variance.sqrt()

    def _operand(self, name: str, label: int) -> Tensor:
        if name == "N":
            return self.layer.moments.numbers[label][None]
        if name in {"mX", "mP", "mQ"}:
            return self._mean_map(name[1], label)
        if name == "WI":
            return self.layer.each_filter[self.channels]
        if name == "W":
            return self.layer.all_filters
        assert self.layer.maps is not None
        values = self.layer.maps.values[self.channels].double()
        own = self.layer.maps.labels == label
        return values if name == "X" else values[:, own if name == "P" else ~own]
