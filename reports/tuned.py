"""Rows of one comparison at several rates of repair go in; each at the rate that validation images chose comes out.

The rate at which what was cut trains on (``Recipe.fine_tune_lr``) suits some methods more than others. Headings that
differ in it alone are one comparison here: every row was tried at the same rates, and the mean of the headline metric
on val over the seeds that all of them have says which one counts. Test images choose nothing.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slimbench.reports.rows import Choice, heading, place, rows, what
from slimbench.reports.table import of_heading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.rows import Row
    from slimbench.reports.table import Table

_RATE = "fine_tune_lr"
SAID = "; rate of repair chosen on validation"  # in a heading


def tables(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> list[Table]:
    """The tables of each comparison that ran at several rates."""
    found = tuned(rows(records, measurements))
    return [table for name, group in found.items() for table in of_heading(name, group)]


def tuned(groups: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Rows by heading, as ``rows`` gives them, each at its chosen rate; comparisons of one rate alone are left out.

    So is a row that was not tried at every rate: it had fewer tries than the others.
    """
    every: dict[str, dict[tuple[Any, ...], dict[float, Row]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups.values():
        for row in group:
            rate = row.first.cell["task"]["recipe"].get(_RATE)
            unrated = _unrated(row.first)
            every[heading(unrated) + SAID][what(unrated)][rate] = row
    found = {}
    for name, part in sorted(every.items()):
        rates = {rate for tries in part.values() for rate in tries}
        chosen = [_chosen(tries) for tries in part.values() if tries.keys() == rates]
        kept = [row for row in chosen if row]
        if len(rates) > 1 and any(not row.is_dense for row in kept):
            found[name] = sorted(kept, key=place)
    return found


def _unrated(record: Record) -> Record:
    """As if its recipe had no rate of repair."""
    task = record.cell["task"]
    recipe = {name: value for name, value in task["recipe"].items() if name != _RATE}
    return replace(record, cell={**record.cell, "task": {**task, "recipe": recipe}})


def _chosen(tries: Mapping[float, Row]) -> Row | None:
    """The row whose mean on val is best; of equals one of most seeds. None: no seed ran at every rate."""
    tries = dict(sorted(tries.items()))
    met = {rate: row for rate, row in tries.items() if row.is_met}
    if not met:  # unsupported at every rate, say
        rate, row = next(iter(tries.items()))
        return replace(row, choice=Choice(rate, {}, {}))
    seeds = set.intersection(*(set(row.val_scores) for row in met.values()))
    if not seeds:
        return None
    means = {rate: statistics.fmean(row.val_scores[seed] for seed in sorted(seeds)) for rate, row in met.items()}
    best = max(means, key=lambda rate: met[rate].sign * means[rate])
    alike = [rate for rate in means if math.isclose(means[rate], means[best], rel_tol=1e-9)]
    best = max(alike, key=lambda rate: (len(met[rate].counted), len(met[rate].measured)))
    return replace(met[best], choice=Choice(best, means, met))
