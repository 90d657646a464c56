"""A function and a layer's maps go in; a score for each of its channels comes out, (channels,); the lowest go.

    score(k) = sum over classes of  function(P, Q, N, X, mX, mP, mQ, WI, W)

All channels are scored at once, class by class. What a function asks of P, Q and X is mostly sums, which are kept while
the data pass by (``Moments``): then little more than classes x channels numbers are held. Functions that work on the
maps themselves are given those of a subset (``maps``), and get channels in pieces that fit into memory, and on a CPU
into its cache. Two rules save most of the work there, and change a result by rounding alone:

* what is done to every sample by itself is done once for all classes: ``sum(abs(P - mX))`` is a class's part of the sum
  of ``abs(X - mX)``;
* the trace of a product takes no product: tr(AB) is the sum of A * B^T.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slimbench.methods.etpf import algebra
from slimbench.methods.etpf.algebra import InvalidExpressionError, OneClassError
from slimbench.methods.etpf.space import operands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.methods.etpf.space import Expression

PIECE_BYTES = 64 * 2**20  # at most, of the largest array of a piece of channels or of samples
CACHE_BYTES = 2 * 2**20  # at most, on a CPU: larger pieces leave its cache, and their memory is mapped anew each time
_SUMMED = {"g_mean", "sum", "std", "var", "num", "mean"}  # what moments tell of P, Q and X
_SAMPLE_BY_SAMPLE = {"abs", "pow2", "sqrt", "rho1", "rho5", "add", "sub", "div"}  # on maps, mean maps and numbers
_BY_CLASS = "X, class after class"


def _piece_bytes(values: Tensor) -> int:
    return min(PIECE_BYTES, CACHE_BYTES) if values.device.type == "cpu" else PIECE_BYTES


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
        self._grow(int(labels.max()) + 1 - len(self.numbers))
        samples = max(1, _piece_bytes(maps) // (8 * maps[0].numel()))
        for part, theirs in zip(maps.split(samples), labels.split(samples), strict=True):
            self._add(part.double(), theirs)

    def _add(self, maps: Tensor, labels: Tensor) -> None:
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
        if bool((labels < 0).any()):
            maps, labels = maps[labels >= 0], labels[labels >= 0]
        return cls(maps.transpose(0, 1).contiguous(), labels)

    @functools.cached_property
    def order(self) -> Tensor:
        """Class after class, each in the samples' order."""
        return self.labels.argsort(stable=True)


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
    if parts := _sum_with_mean_map(expression):
        return needs_classes(parts[0])
    name, *arguments = expression
    return (name == "mean" and arguments[0] in {"P", "Q"}) or any(needs_classes(argument) for argument in arguments)


@functools.lru_cache(4096)
def _has_class(expression: Expression) -> bool:
    return bool(operands(expression) & {"P", "Q", "N", "mP", "mQ"})


@functools.lru_cache(4096)
def _each_sample(expression: Expression, which: str) -> Expression | None:
    """The same of all samples, class after class, if it does the same to every sample of P or Q by itself."""
    if isinstance(expression, str):
        return {which: _BY_CLASS, "mX": "mX"}.get(expression)
    name, *arguments = expression
    if name in {"sum", "g_mean", "std", "var"} and not _has_class(expression):
        return expression  # a number
    changed = [_each_sample(argument, which) for argument in arguments]
    return (name, *changed) if name in _SAMPLE_BY_SAMPLE and None not in changed else None  # type: ignore[return-value]


def _sum_with_mean_map(expression: Expression) -> tuple[Expression, str] | None:
    """A number and a mean map whose sum over pixels a function takes: D * number + sum(Q) / num(Q) needs no map."""
    match expression:
        case ("sum", ("add", number, ("mP" | "mQ" | "mX") as mean)) if _is_number(number):
            return number, mean
        case ("sum", ("add", ("mP" | "mQ" | "mX") as mean, number)) if _is_number(number):
            return number, mean
    return None


def _is_number(expression: Expression) -> bool:
    """Whether a function can be seen to give a number."""
    if isinstance(expression, str):
        return expression == "N"
    name, *arguments = expression
    if name in {"g_mean", "sum", "std", "var", "num"}:
        return True
    elementwise = {"add", "sub", "mul", "div", "abs", "pow2", "sqrt", "rho1", "rho5", "mmul"}
    return name in elementwise and all(map(_is_number, arguments))


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
        terms = _Terms(layer, chosen, expression)
        total[chosen] = terms.sum_over_classes(expression)
        first += piece
        piece = max(1, _piece_bytes(total) // terms.most_bytes_a_channel)
    if not bool(torch.isfinite(total).all()):
        raise InvalidExpressionError("a score is not finite")
    return total


def _subexpressions(expression: Expression) -> Iterator[Expression]:
    """A function and all its parts, as often as they occur."""
    yield expression
    for argument in expression[1:] if isinstance(expression, tuple) else ():
        yield from _subexpressions(argument)


class _Terms:
    """Evaluates a function for some channels, each subexpression once: those without the class once for all classes."""

    def __init__(self, layer: Layer, channels: slice, expression: Expression) -> None:
        self.layer, self.channels = layer, channels
        self._uses = Counter(_subexpressions(expression))
        self.most_bytes_a_channel = 1
        self._shared: dict[Expression, Tensor] = {}
        self._sums: dict[Expression, Tensor] = {}  # by class
        self._own: dict[Expression, Tensor] = {}

    def sum_over_classes(self, expression: Expression) -> Tensor:
        """Of the classes that have samples. Raises: OneClassError where a function compares them and there is one."""
        seen = [label for label, number in enumerate(self.layer.moments.numbers.tolist()) if number > 0]
        channels = len(self.layer.moments.total[self.channels])
        if not _has_class(expression):  # the same for all classes; of filters alone, without any data
            return max(1, len(seen)) * self._checked(self._value(expression, 0)).expand(channels)
        if len(seen) < 2:
            raise OneClassError
        total = torch.zeros((), dtype=torch.float64, device=self.layer.moments.total.device)
        for label in seen:
            self._own = {}
            total = total + self._checked(self._value(expression, label))
        return total.expand(channels)

    @staticmethod
    def _checked(term: Tensor) -> Tensor:
        if term.ndim > 1:
            raise InvalidExpressionError(f"the function gives no number but an array of {term.ndim - 1} dimensions")
        return term

    def _value(self, expression: Expression, label: int) -> Tensor:
        known = self._own if _has_class(expression) else self._shared
        if expression not in known:
            value = self._computed(expression, label)
            self.most_bytes_a_channel = max(self.most_bytes_a_channel, 8 * value.numel() // len(value))
            known[expression] = value
            for argument in expression[1:] if isinstance(expression, tuple) else ():
                if isinstance(argument, tuple) and self._uses[argument] == 1:  # nobody asks for it again
                    (self._own if _has_class(argument) else self._shared).pop(argument, None)
        return known[expression]

    def _computed(self, expression: Expression, label: int) -> Tensor:
        if isinstance(expression, str):
            return self._operand(expression, label)
        name, *arguments = expression
        if name in _SUMMED and isinstance(arguments[0], str) and arguments[0] in {"P", "Q", "X"}:
            return self._summed(name, arguments[0], label)
        if parts := _sum_with_mean_map(expression):
            number, which = self._value(parts[0], label), parts[1][1]
            pixels = self.layer.moments.total.shape[1]
            return pixels * number + self._summed("sum", which, label) / self._summed("num", which, label)
        if name == "sum" and _has_class(expression) and self._all_samples_fit():
            for which in ("P", "Q"):
                if each := _each_sample(arguments[0], which):
                    return self._summed_by_sample(which, each, label)
        if name == "m_trace" and arguments[0][0] == "mmul":
            return _trace_of_product(*(self._value(argument, label) for argument in arguments[0][1:]))
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

    def _all_samples_fit(self) -> bool:
        """Whether what is valid of the samples of a class is valid of all."""
        maps = self.layer.maps
        return maps is not None and 8 * maps.values[0].numel() <= algebra.LARGEST_BYTES

    def _summed_by_sample(self, which: str, expression: Expression, label: int) -> Tensor:
        """Of P or Q; ``expression`` is of all samples, class after class."""
        if expression not in self._sums:
            parts = self._value(expression, label).split(self._counts(), 1)
            self._sums[expression] = torch.stack([part.flatten(1).sum(1) for part in parts])
        sums = self._sums[expression]
        if which == "P":
            return sums[label]
        return sums[:label].sum(0) + sums[label + 1 :].sum(0)  # a difference would lose digits

    def _counts(self) -> list[int]:
        """Samples among the maps by class."""
        assert self.layer.maps is not None
        return torch.bincount(self.layer.maps.labels, minlength=len(self.layer.moments.numbers)).tolist()

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
        if name == "X":
            return self.layer.maps.values[self.channels].double()
        if name == _BY_CLASS:
            return self._value("X", label).index_select(1, self.layer.maps.order)
        own = self.layer.maps.labels == label
        # one index of rows, which is faster than a mask
        return self._value("X", label).index_select(1, (own if name == "P" else ~own).nonzero()[:, 0])


def _trace_of_product(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == b.ndim == 3 and 8 * a.shape[1] * b.shape[2] <= algebra.LARGEST_BYTES:
        rows, inner = min(a.shape[1], b.shape[2]), min(a.shape[2], b.shape[1])
        return (a[:, :rows, :inner] * b[:, :inner, :rows].transpose(1, 2)).sum((1, 2))
    return algebra.apply("m_trace", algebra.apply("mmul", a, b))
