"""Names go in; formulas come out: the seeds of the evolution and the functions that the authors evolved.

Each is the term of one class; a channel's score is the sum over classes, and the lowest scores go. All are transcribed
from the authors' code by way of their formulas.
"""

from __future__ import annotations

import functools
from typing import Final

from slimbench.core import UserError
from slimbench.discover import suggestion
from slimbench.methods.etpf.space import ARITY, OPERANDS, Expression, canonical, formula, parse

_SPREAD: Final = "var(P) + var(Q)"
_SYMMETRIC: Final = "var(P) / (var(Q) + 0.05) + var(Q) / (var(P) + 0.05)"
_SD: Final = "std(P) + std(Q) + 0.05 + 0.05 + 0.05 + 0.05"

# the initial population ("SOAP")
SEEDS: Final = {
    "AbsSNR": "abs(g_mean(P) - g_mean(Q)) / (std(P) + std(Q) + 0.0001)",
    "FDR": f"(g_mean(P) - g_mean(Q))**2 / ({_SPREAD} + 0.0001)",
    "SymDiv": f"{_SYMMETRIC} + (g_mean(P) - g_mean(Q))**2 / ({_SPREAD} + 0.05)",
    "Tstats": "abs(g_mean(P) - g_mean(Q)) / sqrt(var(P) / num(P) + var(Q) / num(Q) + 0.0001)",
    "WL1": "sum(abs(WI))",
    "WL2": "sqrt(sum(WI**2))",
    "GeoMedian": "sqrt(sum((WI - geo_median(W))**2))",
}

# what the authors' evolution found; a scalar added to a map counts once a pixel
EVOLVED: Final = {
    "GA_Func1": f"sum(var(P) + (mX - var(Q))**2 / ({_SPREAD} + 0.05))",
    "GA_Func2": f"sum({_SYMMETRIC} + (std(mX) * var(Q) * mX + (var(P) - g_mean(Q)))**2 / ({_SPREAD} + 0.05))",
    "GA_Func3": "sum((mX - var(Q))**2 / sqrt(var(P) / num(P) + var(Q) / num(Q) + 0.0001))",
    "GA_Func4": "sum(var(P) / (var(Q) / num(Q) + 0.05) + abs(g_mean(P) - g_mean(Q)) + 0.05 + mQ)",
}

# what the authors made by hand after it
INSPIRED: Final = {
    "GA_inspired_1": (
        "std(P) / (std(Q) + 0.05 + 0.05 + 0.05 + 0.05) + std(Q) / (std(P) + 0.05 + 0.05 + 0.05 + 0.05)"
        f" + (sum((mX - mP)**2) + sum((mX - mQ)**2)) / ({_SD})"
    ),
    "GA_inspired_2": f"sum((mX - mQ)**2) / ({_SPREAD} + 0.05)",
}
NAMED: Final = SEEDS | EVOLVED | INSPIRED

BASELINES: Final = ("DI", "MMD", "BN", "random")  # no formulas: see ``baselines``


def function(text: str) -> Expression:
    """The expression of a name, or of a formula. Raises: UserError where it is neither."""
    if text in NAMED:
        return parse(NAMED[text])
    if text.isidentifier() and text not in {*OPERANDS, *ARITY}:
        known = (*NAMED, *BASELINES)
        raise UserError(f"Unknown function {text!r}{suggestion(text, known)}; known: {', '.join(known)}, or a formula.")
    return parse(text)


def known_as(text: str) -> str:
    """One way to write a function, whichever way was typed: its name where it has one. Raises: UserError."""
    if text in BASELINES:
        return text
    expression = function(text)
    return names().get(canonical(expression)) or formula(expression)


@functools.cache
def names() -> dict[Expression, str]:
    """Names by canonical expression."""
    return {canonical(parse(text)): name for name, text in NAMED.items()}
