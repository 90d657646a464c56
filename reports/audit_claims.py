"""Figures about a claim and the records behind them go in; what does not follow comes out: part of ``audit``.

Like ``audit`` it shares no line with what made the figures (``judging``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from slimbench.benchmarks.papers.claims import PAPERS
from slimbench.reports.audit_records import gaps, half_width, headline, of_cells, once, pairs
from slimbench.statistics import student_t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from slimbench.core import Measurement, Record

    Facts = Mapping[str, Any]
    Estimate = tuple[list[float], float, float, int]  # values, the interval of their mean, over how many seeds
    Timed = Callable[[Sequence[Record], str, str], list[Measurement]]  # by records, profile with level, and machine

_VERDICTS = ("supported", "not supported", "cannot tell")
_ENOUGH = 3  # seeds; what is counted needs one, and a speed's interval is that of a measurement


def problems(line: Facts, by_id: Mapping[str, Record], timed: Timed) -> Iterator[str]:
    """What is wrong with one line about a claim."""
    theirs = line["rival_ids"].split()
    ours = [name for name in line["ids"].split() if name not in theirs]
    if missing := [name for name in (*ours, *theirs) if name not in by_id]:
        yield f"no record {', '.join(missing)}"
        return
    left, right = ([by_id[name] for name in names] for names in (ours, theirs))
    yield from of_cells(line, left)
    found = _timings(line, left, right, timed) if line["profile"] else _seeds(line, left, right)
    if found is None:
        yield f"its records say nothing of {line['figure']}"
        return
    values, low, high, n = found
    mean = float(np.mean(values)) if len(values) else math.nan
    alone = n < 2 and not line["profile"]  # then no interval is told
    gap = None if line["claimed"] is None else mean - line["claimed"]
    right_ones = {
        "ours": mean,
        "low": None if alone else low,
        "high": None if alone else high,
        "n": n,
        "errors": _errors(line, gap, high - low, n),
    }
    for name, value in right_ones.items():
        if not _is_alike(line[name], value):
            yield f"{name} is {_in_words(line[name])}, and by the records {_in_words(value)}"
    if not _is_alike(line["gap"], gap):
        yield f"the gap is {_in_words(line['gap'])}, and ours - claimed is {_in_words(gap)}"
    yield from _verdict(line, low, high, float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def told(line: Facts) -> Iterator[str]:
    """Whether a line says its claim as the papers' data do; a claim of somebody's own is in none."""
    right = claim(line["claim"]) or {}
    for name in ("paper", "figure", "claimed", "least", "slack_sd", "convention", "criterion", "source"):
        if name in line and name in right and line[name] != right[name]:
            yield f"{name} is {line[name]}, and the claim says {right[name]}"


def claim(says: str) -> Facts | None:
    """A claim as the papers' data tell it."""
    found = [(paper, claim) for paper in PAPERS for claim in paper.claims if claim.says == says]
    return {**vars(found[0][1]), "paper": found[0][0].name} if found else None


def is_claimed(number: float, of: str) -> bool:
    """Whether some paper gives this number, of just that."""
    return any((claim.claimed, claim.convention) == (number, of) for paper in PAPERS for claim in paper.claims)


def decided(says: str, found: Sequence[Facts], by_id: Mapping[str, Record]) -> tuple[list[Facts], str]:
    """Findings about a claim go in, of which those that decide, and the verdict, come out.

    Those of the newest versions decide, of full recipes, of level full, and of enough seeds, where there are any.
    """
    methods = [[by_id[name].cell["method"] for name in line["ids"].split() if name in by_id] for line in found]
    last: dict[str, int] = {}
    for method in (method for some in methods for method in some):
        last[method["is"]] = max(method["version"], last.get(method["is"], 0))
    newest = [all(method["version"] == last[method["is"]] for method in some) for some in methods]
    used = [line for line, is_new in zip(found, newest, strict=True) if is_new] or list(found)
    for fits in (
        lambda line: not line["recipe"].startswith("reduced: "),
        lambda line: (line["profile"] or "full").endswith("full"),
        lambda line: line["figure"] == "speed" or line["n"] >= _ENOUGH,
    ):
        used = [line for line in used if fits(line)] or used
    verdicts = {line["verdict"] for line in used}
    if len(verdicts) > 1 or (used and _lacks_some(says, used, by_id)):
        return used, "cannot tell"
    return used, verdicts.pop() if verdicts else "not run"


def _lacks_some(says: str, used: Sequence[Facts], by_id: Mapping[str, Record]) -> bool:
    """Whether a claim is of each of several values of a field, and the deciding rows have not all of them."""
    if not (right := claim(says)) or not right["ours"]:
        return False
    wanted = right["ours"].where.get(right["each"], ())
    seen = {by_id[line["ids"].split()[0]].cell["method"].get(right["each"]) for line in used}
    return not {*([wanted] if isinstance(wanted, str) else wanted)} <= seen


def _errors(line: Facts, gap: float | None, width: float, n: int) -> float | None:
    """A gap in standard errors, by the width of the 95 % interval: a measurement's is of very many samples."""
    if gap is None or "removed" in line["figure"] or not 0 < width < math.inf:
        return None
    return gap / (width / 2 / student_t(10**6 if line["profile"] else n - 1))


def _is_alike(said: float | None, right: float | None) -> bool:
    if said is None or right is None:
        return said is right
    return math.isclose(said, right, rel_tol=1e-6, abs_tol=1e-9)


def _in_words(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"


def _verdict(line: Facts, low: float, high: float, sd: float) -> Iterator[str]:
    """Whether the interval says what is said of it; ``cannot tell`` may have other reasons."""
    if line["verdict"] not in _VERDICTS:
        yield f"{line['verdict']!r} is no verdict"
    least = line["least"] - (line["slack_sd"] and line["slack_sd"] * sd)
    if {"supported": not low > least, "not supported": not high < least}.get(line["verdict"], False):
        yield f"{line['verdict']}, and the interval is [{low:g}, {high:g}] about {least:g}"
    is_few = line["n"] < _ENOUGH and "removed" not in line["figure"] and line["figure"] != "speed"
    if line["verdict"] != "cannot tell" and (is_few or (line["profile"] or "full").endswith("quick")):
        yield f"{line['verdict']}, of {line['n']} seeds" + (f" by {line['profile']}" if line["profile"] else "")


def _seeds(line: Facts, ours: Sequence[Record], theirs: Sequence[Record]) -> Estimate | None:
    """A figure over seeds, with its interval: the range where it is counted, else Student's."""
    figure = line["figure"]
    if "removed" in figure:
        name = figure.partition(" ")[0]
        gone = [100 * (1 - getattr(r.cost, name) / getattr(r.dense_cost, name)) for r in ours]
        return (gone, min(gone), max(gone), len(gone)) if gone else None
    turn = -1 if next(iter(ours[0].quality), None) in ours[0].cell["task"].get("lower_is_better", ()) else 1
    if figure == "training memory":
        both = [(a.spent.added_bytes, b.spent.added_bytes) for a, b in pairs(ours, theirs)]
        values = [b / a for a, b in both if a and b]
    elif theirs:
        values = [turn * gap for gap in gaps(ours, theirs)]
    else:
        values = [headline(record) for record in once(ours) if record.quality]
    if len(values) < 2:
        return (values, -math.inf, math.inf, 1) if values else None
    half = half_width(values)
    return values, float(np.mean(values)) - half, float(np.mean(values)) + half, len(values)


def _timings(line: Facts, ours: Sequence[Record], theirs: Sequence[Record], timed: Timed) -> Estimate | None:
    """Ratios of one way of timing, each against its session's dense network; of two rows their quotient."""
    sides = [timed(side, line["profile"], line["machine"]) for side in (ours, theirs)]
    (mine, low, high), other = _ratios(line["figure"], sides[0]), _ratios(line["figure"], sides[1])
    if not theirs:
        return ([mine], low, high, _many(line["figure"], sides[0])) if sides[0] else None
    doubt = 0.0
    if line["figure"] == "memory":
        dense = [np.mean([m.dense_peak_bytes for m in side if m.dense_peak_bytes]) for side in sides]
        doubt = abs(float(dense[0] / dense[1]) - 1)
    n = min(_many(line["figure"], side) for side in sides)
    return [mine / other[0]], low / other[2] * (1 - doubt), high / other[1] * (1 + doubt), n


def _many(figure: str, taken: Sequence[Measurement]) -> int:
    """How many measurements say something of a figure."""
    return sum(figure == "speed" or bool(m.peak_bytes and m.dense_peak_bytes) for m in taken)


def _ratios(figure: str, taken: Sequence[Measurement]) -> tuple[float, float, float]:
    if figure == "speed":
        parts = [(m.ratio, m.ratio_low, m.ratio_high) for m in taken]
    else:
        parts = [(m.dense_peak_bytes / m.peak_bytes,) * 3 for m in taken if m.peak_bytes and m.dense_peak_bytes]
    middle, low, high = zip(*parts, strict=True) if parts else ((math.nan,),) * 3
    return float(np.mean(middle)), min(low), max(high)
