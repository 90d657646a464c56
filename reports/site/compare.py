"""Rows of a heading go in; every two of them come out side by side, with the paired difference and what it says."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from slimbench.reports import _text
from slimbench.reports.rows import compared, short
from slimbench.reports.table import Entry, Table
from slimbench.statistics import ALPHA, detectable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from slimbench.reports.figures import Line
    from slimbench.statistics import Difference

_LEAST_P = 0.001  # that is printed with three digits
_SIDES = ("first", "second")
_HEADS = (
    *("task", "point", *_SIDES),
    *("says", "first - second", "p", "detectable"),
    *(f"{side}: mean ± sd (n)" for side in _SIDES),
    *(f"{side}: MACs kept" for side in _SIDES),
)


def table(headings: Mapping[str, Sequence[Line]]) -> Table:
    """Two rows of one heading and budget a line, and every row beside its dense network."""
    captions = (
        "Differences are of the headline metric, paired by seed, with a 95 % Student-t interval.",
        "p: paired t-test, not corrected for the many comparisons of this page (the tiers in tasks' tables are).",
        "Detectable: the smallest true difference that so many pairs show in four of five tries.",
        "Rows that missed their budget, and pairs without a common seed, are left out.",
    )
    tasks = short(headings)
    body = [row for name, found in headings.items() for row in _rows(tasks[name], found)]
    return Table("Every two methods", _HEADS, tuple(body), captions)


def _rows(task: str, found: Sequence[Line]) -> Iterator[tuple[Entry, ...]]:
    scored = [line for line in found if line.facts["mean"] is not None and (line.row.is_met or line.row.is_dense)]
    for first, second in combinations(scored, 2):
        if not (first.row.is_dense or first.row.point == second.row.point):
            continue
        a, b = (second, first) if first.row.is_dense else (first, second)
        if taken := compared(a.row.counted, b.row.counted):
            texts = (
                task,
                f"{_text.asked(a.facts)}, {a.facts['epochs_asked']:g} epochs",
                a.facts["method"],
                b.facts["method"],
                says(taken, a.row.sign),
                _interval(taken),
                _p(taken),
                _text.number(detectable(taken.sd, taken.n) if taken.n > 1 else None, ".2f"),
                _quality(a),
                _quality(b),
                _text.number(a.facts["macs_kept"], ".3f"),
                _text.number(b.facts["macs_kept"], ".3f"),
            )
            yield tuple(map(Entry, texts))


def _quality(line: Line) -> str:
    """Mean ± sd (n); what is bold in a task's table is not so here."""
    return _text.quality({**line.facts, "is_best": False})


def _interval(taken: Difference) -> str:
    interval = f" [{taken.low:+.2f}, {taken.high:+.2f}]" if taken.n > 1 else ""
    return f"{taken.mean:+.2f}{interval} ({taken.n})"


def _p(taken: Difference) -> str:
    if taken.n == 1:
        return ""
    return f"{taken.p:.3f}" if taken.p >= _LEAST_P else f"< {_LEAST_P:g}"


def says(taken: Difference, sign: int = 1) -> str:
    """What a paired difference says; below six seeds nothing is decided. ``sign``: see ``Row``."""
    if taken.n == 1:
        return "one seed decides nothing"
    if taken.is_indicative:
        return f"indicative: {taken.n} seeds decide nothing"
    if taken.p >= ALPHA:
        return "cannot be told apart"
    return "first is better" if sign * taken.mean > 0 else "second is better"
