"""ETPF's scores as the authors' code computes them: one channel and one class at a time, with numpy, nothing shared."""

from __future__ import annotations

import numpy as np
from numpy.linalg import norm, pinv


def sub(a, b):
    if np.ndim(a) and np.ndim(b):
        least = min(a.shape[-1], b.shape[-1])
        a, b = a[..., :least], b[..., :least]
    return a - b


def mul(a, b):
    if np.ndim(a) and np.ndim(b):
        least = min(a.shape[-1], b.shape[0])
        a, b = a[..., :least], b[:least]
    return a * b


def block(x):
    least = min(x.shape)
    return x[:least, :least]


def m_trace(x):
    if np.ndim(x) == 0:
        return x
    if x.ndim > 2:
        raise ValueError
    return x[0] if x.ndim == 1 else np.trace(block(x))


def m_inv(x):
    if np.ndim(x) == 0:
        return 1 / x
    if x.ndim > 2:
        raise ValueError
    return 1 / x[0] if x.ndim == 1 else pinv(block(x) + 1e-4 * np.eye(min(x.shape)))


def mmul(a, b):
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if a.ndim > 2 or b.ndim > 2:
        raise ValueError
    least = min(a.shape[-1], b.shape[0])
    return a[..., :least] @ b[:least]


def mean(x):
    return np.mean(x, axis=0) if x.shape[1] > 1 else np.mean(x)


def geo_median(w):
    if w.ndim not in {2, 4}:
        raise ValueError
    flat = w.reshape(-1, w.shape[-1])
    distances = [norm(flat[:, [k]] - flat, axis=0).sum() for k in range(flat.shape[1])]
    return w[..., int(np.argmin(distances))]


OPERATORS = {
    "add": lambda a, b: a + b,
    "div": lambda a, b: a / b,
    "abs": np.abs,
    "pow2": np.square,
    "sqrt": np.sqrt,
    "rho1": lambda x: x + 1e-4,
    "rho5": lambda x: x + 5e-2,
    "out_dot": np.outer,
    "tran": np.transpose,
    "g_mean": np.mean,
    "sum": np.sum,
    "std": np.std,
    "var": np.var,
    "num": lambda x: np.float64(len(x)),
    **{f.__name__: f for f in (sub, mul, m_trace, m_inv, mmul, mean, geo_median)},
}


LARGEST_BYTES = 64 * 2**20


def evaluate(expression, operands):
    if isinstance(expression, str):
        return operands[expression]
    result = _applied(expression, operands)
    if 8 * np.size(result) > LARGEST_BYTES:
        raise ValueError
    return result


def _applied(expression, operands):
    return OPERATORS[expression[0]](*(evaluate(argument, operands) for argument in expression[1:]))


def operands(maps, labels, filters, channel, label):
    """Of one channel (N, D) and class; ``filters`` (kh, kw, C_in, C_out) or (C_in, C_out)."""
    x = maps[:, channel]
    p, q = x[labels == label], x[labels != label]
    means = {"mX": x.mean(0), "mP": p.mean(0), "mQ": q.mean(0)}
    return {"P": p, "Q": q, "X": x, "N": np.float64(len(p)), "WI": filters[..., channel], "W": filters, **means}


def scores(expression, maps, labels, filters):
    """Of every channel of (N, channels, D), a sum over classes."""
    classes = np.unique(labels)
    return np.array(
        [
            sum(evaluate(expression, operands(maps, labels, filters, channel, label)) for label in classes)
            for channel in range(maps.shape[1])
        ]
    )
