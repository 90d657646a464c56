"""Records go in; tables across tasks come out: one a hardware profile, and one over all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimbench.reports import _text
from slimbench.reports.figures import Line, lines
from slimbench.reports.rows import rows, short
from slimbench.reports.table import THEORETICAL, Entry, Facts, Table, speed, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.rows import Column


AREA = (
    "Area under the curve: quality against the share of MACs kept, trapezoids from the least operating point to the "
    "dense network divided by the width: a mean quality. 95 % Student-t interval over the seeds (n) that every "
    "point has. It needs three points, the dense network among them. Areas over different ranges cannot be compared."
)


def by_profile(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> list[Table]:
    """One table a hardware profile, level, machine and input: every network that it timed, on whatever task."""
    return list(by_column(records, measurements).values())


def by_column(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> dict[Column, Table]:
    """The same, each by its way of timing."""
    found = [line for name, group in rows(records, measurements).items() for line in lines(name, group)]
    ways = sorted({c for line in found for c in line.measured}, key=lambda c: c.place)
    return {c: _timed(c, [line for line in found if c in line.measured], title(c, ways)) for c in ways}


def _timed(c: Column, found: Sequence[Line], name: str) -> Table:
    """Theoretical beside measured speed-up, and what of the one is left in the other."""
    heads: tuple[str, ...] = ("task", "method", "keep asked", "quality mean ± sd (n)", "MACs (kept)", THEORETICAL)
    heads += ("measured speed-up", "measured / theoretical", "latency and memory", "status")
    tasks = short(line.facts["group"] for line in found)
    body = [
        (
            Entry(tasks[line.facts["group"]]),
            Entry(line.facts["method"]),
            Entry(_text.asked(line.facts)),
            Entry(_text.quality(line.facts)),
            Entry(_text.count(line.facts, "macs")),
            Entry(_text.number(line.facts["theoretical_speedup"], ".2f", "x")),
            speed(line, c),
            Entry(_text.realised(line.facts, line.measured[c])),
            Entry(_text.run(line.measured[c])),
            Entry(line.facts["status"]),
        )
        for line in found
    ]
    facts = tuple({**line.facts, "tier": "", **line.measured[c]} for line in found)  # a tier is among all of a budget
    return Table(f"Timed on {name}", heads, tuple(body), (f"Machine {c.machine}: {c.caption}.",), facts)


def overall(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> list[Table]:
    """One table: methods and their operating points x tasks: the paired difference to the dense network."""
    every = {name: lines(name, group) for name, group in rows(records, measurements).items()}
    headings = {name: found for name, found in every.items() if any(line.facts["difference_n"] for line in found)}
    names = {name: f"{_text.letter(i)}: {name.partition(':')[0]}" for i, name in enumerate(headings)}
    cells: dict[tuple[str, str], dict[str, Facts]] = {}
    for name, found in headings.items():
        for line in found:
            if line.facts["difference_n"]:
                point = f"{_text.asked(line.facts)}, {_text.epochs(line.facts)}"
                cells.setdefault((line.facts["method"], point), {})[name] = line.facts
    curved = [name for name, found in headings.items() if any(line.facts["area"] is not None for line in found)]
    body = [
        (
            *(Entry(method), Entry(point), *(_over(by_name.get(name)) for name in names)),
            *(Entry(_text.area(by_name.get(name))) for name in curved),
        )
        for (method, point), by_name in sorted(cells.items())
    ]
    captions = (
        "Δ dense (n): mean difference to the dense network over n seeds, in the task's unit; tasks are not averaged.",
        "Fewer than 6 seeds: indicative. Rows of one column share budget and recipe only where the points are equal.",
        *([AREA] if curved else []),
        *(f"{short.partition(':')[0]}: {name}" for name, short in names.items()),
    )
    facts = tuple(f for by_name in cells.values() for f in by_name.values())
    areas = (f"{names[name].partition(':')[0]}: area under the curve" for name in curved)
    heads = ("method", "keep asked", *names.values(), *areas)
    return [Table("Overall: Δ dense (n)", heads, tuple(body), captions, facts)] if body else []


def _over(facts: Facts | None) -> Entry:
    return Entry(_text.over(facts), ids=facts["ids"]) if facts else Entry()
