"""Rows of one comparison at several rates of repair go in; each at the rate that validation images chose comes out.

The rate at which what was cut trains on (``Recipe.fine_tune_lr``) suits some methods more than others. Headings that
differ in it alone are one comparison here: every row was tried at the same rates, and the mean of the headline metric
on val, over the seeds that ended well at each of them, says which one counts. Test images choose nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slimbench.core import Recipe
from slimbench.reports.rows import Choice, heading, place, rows, what
from slimbench.reports.table import of_heading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.rows import Row
    from slimbench.reports.table import Table

    Tries = Mapping[float, Row]  # of one method at one operating point, by rate

_RATE = "fine_tune_lr"
SAID = "; rate of repair chosen on validation"  # in a heading


@dataclass(frozen=True)
class Comparison:
    """Rows at their chosen rates, and those that were not tried at each rate: they had fewer tries than the others."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, tuple[str, ...]]  # methods by operating point

    @property
    def captions(self) -> tuple[str, ...]:
        """What was left out, in words."""
        said = "; ".join(f"{point}: {', '.join(methods)}" for point, methods in self.left_out.items())
        return (f"Left out, for they were not tried at every one of these rates: {said}.",) if said else ()


def tables(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> list[Table]:
    """The tables of each comparison that ran at several rates."""
    found = tuned(rows(records, measurements))
    return [table for name, one in found.items() for table in of_heading(name, one.rows, one.captions)]


def tuned(groups: Mapping[str, Sequence[Row]]) -> dict[str, Comparison]:
    """Comparisons by heading, from rows by heading (``rows``). The rates are those that most rows were tried at."""
    every: dict[str, dict[tuple[Any, ...], dict[float, Row]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups.values():
        for row in group:
            if row.first.cell["task"].get("weights"):
                continue  # whoever published weights may have trained them on what is val here
            unrated = _unrated(row.first)
            every[heading(unrated) + SAID][what(unrated)][_rate(row.first)] = row
    found = {name: _comparison(list(part.values())) for name, part in sorted(every.items())}
    return {name: one for name, one in found.items() if any(not row.is_dense for row in one.rows)}


def _rate(record: Record) -> float:
    return float(record.cell["task"]["recipe"].get(_RATE, Recipe().fine_tune_lr))


def _unrated(record: Record) -> Record:
    """As if its recipe had no rate of repair."""
    task = record.cell["task"]
    recipe = {name: value for name, value in task["recipe"].items() if name != _RATE}
    return replace(record, cell={**record.cell, "task": {**task, "recipe": recipe}})


def _comparison(every: Sequence[Tries]) -> Comparison:
    if not (rates := _rates(every)):
        return Comparison((), {})
    kept, left = [], defaultdict(list)
    for tries in every:
        first = next(iter(tries.values()))
        chosen = _chosen({rate: tries[rate] for rate in rates}) if rates <= tries.keys() else None
        if chosen:
            kept.append(chosen)
        elif not first.is_dense:
            budget = first.first.cell["budget"]
            left[-budget["keep"], budget["resource"]].append(first.method)
    points = {f"{-keep:g} {resource}": tuple(sorted(names)) for (keep, resource), names in sorted(left.items())}
    return Comparison(tuple(sorted(kept, key=place)), points)


def _rates(every: Sequence[Tries]) -> set[float]:
    """The set of two rates or more that most rows were tried at, of equals the larger; empty where no row was."""
    sets = Counter(frozenset(tries) for tries in every if len(tries) > 1 and not next(iter(tries.values())).is_dense)
    return set(max(sorted(sets, key=sorted), key=lambda some: (sets[some], len(some)), default=()))


def _chosen(tries: Tries) -> Row | None:
    """The row whose mean on val is best; of equals that of most seeds, of most timings, of the higher rate.

    A rate at which a row ended otherwise, as failed or off its budget, loses to one at which it met its budget.
    None: no seed ended well at every rate.
    """
    ended = {rate: row for rate, row in sorted(tries.items()) if row.is_met} or {
        rate: row for rate, row in sorted(tries.items()) if row.counted
    }
    if not ended:  # unsupported at every rate, say
        rate = min(tries)
        return replace(tries[rate], choice=Choice(rate, {}, 0, tries))
    seeds = sorted(set.intersection(*(set(row.val_scores) for row in ended.values())))
    if not seeds:
        return None
    means = {rate: statistics.fmean(row.val_scores[seed] for seed in seeds) for rate, row in ended.items()}
    best = max(means, key=lambda rate: ended[rate].sign * means[rate])
    alike = [rate for rate in means if math.isclose(means[rate], means[best], rel_tol=1e-9)]
    best = max(alike, key=lambda rate: (len(ended[rate].counted), len(ended[rate].measured), rate))
    return replace(ended[best], choice=Choice(best, means, len(seeds), tries))
