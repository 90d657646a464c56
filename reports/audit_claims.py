"""Figures about a claim and the records behind them go in; what does not follow comes out: part of ``audit``.

Like ``audit`` it shares no line with what made the figures (``judging``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from slimbench.statistics import student_t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from slimbench.core import Measurement, Record

    Facts = Mapping[str, Any]
    Timed = Callable[[Sequence[Record], str, str], list[Measurement]]  # by records, profile with level, and machine

_ENOUGH = 3  # seeds; what is counted needs one, and a speed's interval is that of a measurement


def problems(line: Facts, by_id: Mapping[str, Record], timed: Timed) -> Iterator[str]:
    """What is wrong with one line about a claim."""
    theirs = line["rival_ids"].split()
    ours = [name for name in line["ids"].split() if name not in theirs]
    if missing := [name for name in (*ours, *theirs) if name not in by_id]:
        yield f"no record {', '.join(missing)}"
        return
    left, right = ([by_id[name] for name in names] for names in (ours, theirs))
    found = _timings(line, left, right, timed) if line["profile"] else _seeds(line, left, right)
    if found is None:
        yield f"its records say nothing of {line['figure']}"
        return
    values, low, high = found
    mean = float(np.mean(values)) if len(values) else math.nan
    for name, right_one in (("ours", mean), ("low", low), ("high", high)):
        if line[name] is not None and not math.isclose(line[name], right_one, rel_tol=1e-6, abs_tol=1e-9):
            yield f"{name} is {line[name]:g}, and by the records {right_one:g}"
    if not line["profile"] and line["n"] != len(values):
        yield f"n is {line['n']}, and by the records {len(values)}"
    if line["claimed"] is not None and not math.isclose(line["gap"], line["ours"] - line["claimed"], abs_tol=1e-9):
        yield f"the gap is {line['gap']:g}, and ours - claimed is {line['ours'] - line['claimed']:g}"
    yield from _verdict(line, low, high, float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def _verdict(line: Facts, low: float, high: float, sd: float) -> Iterator[str]:
    """Whether the interval says what is said of it; ``cannot tell`` may have other reasons."""
    least = line["least"] - (line["slack_sd"] and line["slack_sd"] * sd)
    if {"supported": not low > least, "not supported": not high < least}.get(line["verdict"], False):
        yield f"{line['verdict']}, and the interval is [{low:g}, {high:g}] about {least:g}"
    is_few = line["n"] < _ENOUGH and "removed" not in line["figure"] and line["figure"] != "speed"
    if line["verdict"] != "cannot tell" and (is_few or (line["profile"] or "full").endswith("quick")):
        yield f"{line['verdict']}, of {line['n']} seeds" + (f" by {line['profile']}" if line["profile"] else "")


def _seeds(line: Facts, ours: Sequence[Record], theirs: Sequence[Record]) -> tuple[list[float], float, float] | None:
    """A figure over seeds, with its interval: the range where it is counted, else Student's."""
    figure = line["figure"]
    if "removed" in figure:
        name = figure.partition(" ")[0]
        gone = [100 * (1 - getattr(r.cost, name) / getattr(r.dense_cost, name)) for r in ours]
        return (gone, min(gone), max(gone)) if gone else None
    a, b = _values(figure, ours), _values(figure, theirs)
    turn = -1 if next(iter(ours[0].quality), None) in ours[0].cell["task"].get("lower_is_better", ()) else 1
    if figure == "training memory":
        values = [b[seed] / a[seed] for seed in a if seed in b]
    elif theirs:
        values = [turn * (a[seed] - b[seed]) for seed in a if seed in b]
    else:
        values = list(_values(figure, once(ours)).values())
    if len(values) < 2:
        return (values, -math.inf, math.inf) if values else None
    half = student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return values, float(np.mean(values)) - half, float(np.mean(values)) + half


def once(found: Sequence[Record]) -> list[Record]:
    """One network is one, however many seeds have it."""
    return [
        r for i, r in enumerate(found) if not r.artifact or all(r.artifact != other.artifact for other in found[:i])
    ]


def _values(figure: str, found: Sequence[Record]) -> dict[int, float]:
    if figure == "quality":
        return {r.cell["seed"]: next(iter(r.quality.values())).value for r in found if r.quality}
    return {r.cell["seed"]: float(r.spent.added_bytes) for r in found if r.spent.added_bytes}


def _timings(
    line: Facts, ours: Sequence[Record], theirs: Sequence[Record], timed: Timed
) -> tuple[list[float], float, float] | None:
    """Ratios of one way of timing, each against its session's dense network; of two rows their quotient."""
    sides = [timed(side, line["profile"], line["machine"]) for side in (ours, theirs)]
    (mine, low, high), other = _ratios(line["figure"], sides[0]), _ratios(line["figure"], sides[1])
    if not theirs:
        return ([mine], low, high) if sides[0] else None
    doubt = 0.0
    if line["figure"] == "memory":
        dense = [np.mean([m.dense_peak_bytes for m in side if m.dense_peak_bytes]) for side in sides]
        doubt = abs(float(dense[0] / dense[1]) - 1)
    return [mine / other[0]], low / other[2] * (1 - doubt), high / other[1] * (1 + doubt)


def _ratios(figure: str, taken: Sequence[Measurement]) -> tuple[float, float, float]:
    if figure == "speed":
        parts = [(m.ratio, m.ratio_low, m.ratio_high) for m in taken]
    else:
        parts = [(m.dense_peak_bytes / m.peak_bytes,) * 3 for m in taken if m.peak_bytes and m.dense_peak_bytes]
    middle, low, high = zip(*parts, strict=True) if parts else ((math.nan,),) * 3
    return float(np.mean(middle)), min(low), max(high)
