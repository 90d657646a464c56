"""Operators on many channels at once: arrays (channels, *shape) go in and come out, float64.

An array of one channel, (1, *shape), holds for all of them. Each operator does to every channel what the authors' code
does to one with numpy: it cuts operands to fitting sizes where theirs does, and refuses what theirs raises on.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slimbench.methods.etpf.space import RHO

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_BYTES = 64 * 2**20  # of one operator's result for one channel and class
LARGEST_INVERSE = 512  # rows of a matrix: inverses take their cube


class InvalidExpressionError(ValueError):
    """An operator's operands do not fit, or its result is too large."""


class OneClassError(InvalidExpressionError):
    """All samples are of one class, so that classes cannot be compared."""

    def __init__(self) -> None:
        super().__init__("all samples are of one class")


def apply(name: str, *arguments: Tensor) -> Tensor:
    """The operator ``name``. Raises: InvalidExpressionError."""
    if name in {"add", "div", "sub", "mul"}:
        return _elementwise(name, *arguments)
    return _OPERATORS[name](*arguments)


def _elementwise(name: str, a: Tensor, b: Tensor) -> Tensor:
    """With numpy's broadcasting; ``sub`` cuts both to the shorter last dimension, ``mul`` a's last and b's first."""
    if name == "sub" and a.ndim > 1 and b.ndim > 1:
        least = min(a.shape[-1], b.shape[-1])
        a, b = a[..., :least], b[..., :least]
    if name == "mul" and a.ndim > 1 and b.ndim > 1:
        least = min(a.shape[-1], b.shape[1])
        a, b = a[..., :least], b[:, :least]
    a, b = (x.reshape(x.shape[0], *[1] * (max(a.ndim, b.ndim) - x.ndim), *x.shape[1:]) for x in (a, b))
    try:
        _refuse_large(torch.broadcast_shapes(a.shape, b.shape)[1:])
    except RuntimeError as error:
        raise InvalidExpressionError(f"{name} of shapes {tuple(a.shape[1:])} and {tuple(b.shape[1:])}") from error
    return _SIGNS[name](a, b)


def _refuse_large(shape: tuple[int, ...]) -> None:
    if 8 * math.prod(shape) > LARGEST_BYTES:
        raise InvalidExpressionError(f"a result of shape {tuple(shape)} is larger than {LARGEST_BYTES >> 20} MB")


def _need(least: int, most: int, x: Tensor) -> None:
    """Raises: InvalidExpressionError for values of too few or too many dimensions."""
    if not least <= x.ndim - 1 <= most:
        raise InvalidExpressionError(f"an operator that takes {least} to {most} dimensions got {x.ndim - 1}")


def _square(x: Tensor) -> Tensor:
    """The leading square block of matrices."""
    least = min(x.shape[1:])
    return x[:, :least, :least]


def _m_trace(x: Tensor) -> Tensor:
    _need(0, 2, x)
    if x.ndim == 3:
        return _square(x).diagonal(dim1=1, dim2=2).sum(1)
    return x if x.ndim == 1 else x[:, 0]


def _m_inv(x: Tensor) -> Tensor:
    _need(0, 2, x)
    if x.ndim < 3:
        return 1 / (x if x.ndim == 1 else x[:, 0])
    block = _square(x)
    if block.shape[1] > LARGEST_INVERSE:
        raise InvalidExpressionError(f"an inverse of {block.shape[1]} rows is larger than {LARGEST_INVERSE}")
    shifted = block + 1e-4 * torch.eye(block.shape[1], dtype=x.dtype, device=x.device)
    try:
        return torch.linalg.pinv(shifted)
    except RuntimeError as error:  # values that are not finite
        raise InvalidExpressionError("a matrix without a pseudo-inverse") from error


def _mmul(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 1 or b.ndim == 1:
        return _scaled(a, b)
    _need(1, 2, a)
    _need(1, 2, b)
    least = min(a.shape[-1], b.shape[1])
    a, b = a[..., :least], b[:, :least]
    _refuse_large((*a.shape[1:-1], *b.shape[2:]))
    left = a if a.ndim == 3 else a[:, None]
    right = b if b.ndim == 3 else b[:, :, None]
    product = left @ right
    product = product if b.ndim == 3 else product[..., 0]
    return product if a.ndim == 3 else product[:, 0]


def _scaled(a: Tensor, b: Tensor) -> Tensor:
    """Where one of both is a number."""
    number, other = (a, b) if a.ndim == 1 else (b, a)
    return number.reshape(number.shape[0], *[1] * (other.ndim - 1)) * other


def _out_dot(a: Tensor, b: Tensor) -> Tensor:
    left, right = a.reshape(a.shape[0], -1, 1), b.reshape(b.shape[0], 1, -1)
    _refuse_large((left.shape[1], right.shape[2]))
    return left * right


def _mean(x: Tensor) -> Tensor:
    """Over the first axis, where the second has more than one place; else of all. Vectors have no second."""
    _need(2, 9, x)
    return x.mean(1) if x.shape[2] > 1 else _flat(x).mean(1)


def _num(x: Tensor) -> Tensor:
    _need(1, 9, x)
    return torch.full((1,), float(x.shape[1]), dtype=x.dtype, device=x.device)


def _geo_median(x: Tensor) -> Tensor:
    """Of a layer's filters, (1, kh, kw, C_in, C_out) or (1, C_in, C_out): the one nearest to all others."""
    if x.ndim not in {3, 5}:
        raise InvalidExpressionError(f"geo_median takes the filters of a layer, not {x.ndim - 1} dimensions")
    filters = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)
    nearest = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(2).argmin(1)
    return x[torch.arange(len(x), device=x.device), ..., nearest]


def _flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1)


def _variance(x: Tensor) -> Tensor:
    return _flat(x).var(1, correction=0)


_SIGNS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}
_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "abs": torch.abs,
    "pow2": torch.square,
    "sqrt": torch.sqrt,
    "rho1": lambda x: x + RHO["rho1"],
    "rho5": lambda x: x + RHO["rho5"],
    "m_trace": _m_trace,
    "m_inv": _m_inv,
    "mmul": _mmul,
    "out_dot": _out_dot,
    "tran": lambda x: x.permute(0, *range(x.ndim - 1, 0, -1)),
    "g_mean": lambda x: _flat(x).mean(1),
    "mean": _mean,
    "sum": lambda x: _flat(x).sum(1),
    "std": lambda x: _variance(x).sqrt(),
    "var": _variance,
    "num": _num,
    "geo_median": _geo_median,
}
