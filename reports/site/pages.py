"""A collection goes in; every page's name, template and values come out. Numbers are the tables'."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slimbench.reports import across, papers, pictures, table, tuned
from slimbench.reports.figures import lines
from slimbench.reports.formulas import FORMULAS, mathml
from slimbench.reports.rows import rows, short
from slimbench.reports.site import cells, compare, curves, evolutions, speeds, widths, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from slimbench.core import Card, Record
    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Column, Row
    from slimbench.reports.site.collection import Collection
    from slimbench.reports.table import Table

Page = tuple[str, str, dict[str, Any]]
_MOST_SHOWN = 6  # rows whose pictures a method's page shows; each cell's page has its own


@dataclass(frozen=True)
class Grid:
    """A table, and of each of its rows the records behind it."""

    table: Table
    records: tuple[tuple[Record, ...], ...] = ()


@dataclass(frozen=True)
class Speed:
    """Measured against theoretical speed-up of one way of timing: points to draw, or a file."""

    column: Column
    title: str
    curve: Mapping[str, Any] | None
    picture: str


@dataclass(frozen=True)
class Heading:
    """One cross-evaluation table with what stands beside it."""

    name: str
    task: str
    anchor: str
    found: Sequence[Line]
    grids: tuple[Grid, ...]
    curve: Mapping[str, Any] | None
    picture: str  # a file, where plotly is not there to draw the curve
    areas: Sequence[str]  # under its curves, in words


class Site:
    """Everything that pages share."""

    def __init__(self, collection: Collection, cards: Mapping[str, Card], folder: Path) -> None:
        """``folder``: pictures are drawn into it."""
        self.collection, self.cards, self.folder = collection, cards, folder
        self.script = curves.script()
        self.by_id = {record.id: record for record in collection.records}
        groups = rows(collection.records, collection.measurements)
        self.headings = [self._heading(name, group) for name, group in groups.items()]
        self.tuned = [self._heading(name, one.rows, one.captions) for name, one in tuned.tuned(groups).items()]
        self.rows = [row for group in groups.values() for row in group]
        self.tasks = sorted({heading.task for heading in self.headings})
        self.methods = sorted({row.first.cell["method"]["is"] for row in self.rows} | set(cards))
        self.links = {row.method: words.file_of("methods", row.first.cell["method"]["is"]) for row in self.rows}
        self.counts = Counter(record.status for record in collection.records)

    def _heading(self, name: str, group: Sequence[Row], captions: Sequence[str] = ()) -> Heading:
        task = group[0].first.cell["task"]["label"]
        found = lines(name, group)
        records = tuple(row.records for row in group)
        grids = tuple(Grid(made, records) for made in table.of_heading(name, group, captions))
        anchor = words.slug(name)
        picture = ""
        if not self.script and curves.picture(name, found, self.folder / "pictures" / f"{anchor}.svg"):
            picture = f"pictures/{anchor}.svg"
        curve = curves.points(found) if self.script else None
        return Heading(name, task, anchor, found, grids, curve, picture, pictures.areas(found))

    def _speeds(self, headings: Sequence[Heading], name: str) -> list[Speed]:
        """Of each way of timing that compressed networks of these tables went through. ``name``: of files."""
        found = []
        for c, way, lines_of in speeds.timed([line for heading in headings for line in heading.found]):
            picture = "" if self.script else f"pictures/{words.slug(f'{name} {way} {c.name}')}.svg"
            if picture:
                speeds.picture(c, lines_of, self.folder / picture)
            found.append(Speed(c, way, speeds.points(c, way, lines_of) if self.script else None, picture))
        return found

    def cell(self, record_id: str) -> str:
        """Where a cell's page lies; empty where the collection lacks it."""
        return words.file_of("cells", record_id) if record_id in self.by_id else ""

    def task(self, label: str) -> str:
        """Where a task's page lies."""
        return words.file_of("tasks", label)

    def method(self, name: str) -> str:
        """Where a method's page lies."""
        return words.file_of("methods", name)

    def evolution(self, name: str) -> str:
        """Where an evolution's page lies."""
        return words.file_of("evolutions", name)

    def course_title(self, name: str) -> str:
        """What an evolution was of, and on which tasks."""
        trials = self.collection.evolutions[name]["trials"]
        methods, tasks = ({trial[part]: None for trial in map(_named, trials)} for part in ("method", "task"))
        return f"Evolution of {', '.join(methods)} on {', '.join(tasks)} ({name})"

    @functools.cached_property
    def drawn(self) -> Mapping[str, cells.Drawn]:
        """What is drawn of each record: of a row the first seed's."""
        found: dict[str, cells.Drawn] = defaultdict(cells.Drawn)
        for row in self.rows:
            found[row.first.id] = cells.drawn(row.first, self.collection, self.folder)
        return found

    def pages(self) -> Iterator[Page]:
        """Every page."""
        collection = self.collection
        overall = across.overall(collection.records, collection.measurements)
        timed = across.by_column(collection.records, collection.measurements)
        courses = list(collection.evolutions)
        values = {"overall": overall, "timed": timed, "speeds": self._speeds(self.headings, "all"), "courses": courses}
        yield "index.html", "index.html", values
        yield "claims.html", "claims.html", {"papers": self._papers()}
        pairs = compare.table({heading.name: heading.found for heading in self.headings})
        names = sorted({row[i].text for row in pairs.body for i in (2, 3)})
        tasks = short(heading.name for heading in self.headings)
        places = {tasks[heading.name]: f"{self.task(heading.task)}#{heading.anchor}" for heading in self.headings}
        yield "compare.html", "compare.html", {"pairs": pairs, "names": names, "places": places}
        for label in self.tasks:
            here = [heading for heading in self.headings if heading.task == label]
            values = {"label": label, "headings": here, "speeds": self._speeds(here, label)}
            chosen = [heading for heading in self.tuned if heading.task == label]
            yield self.task(label), "task.html", values | {"headings": [*chosen, *here]}
        for name in self.methods:
            yield self.method(name), "method.html", self._method(name)
        for name, course in collection.evolutions.items():
            yield self.evolution(name), "evolution.html", evolutions.values(name, course, self.folder)
        for record in collection.records:
            yield self.cell(record.id), "cell.html", cells.values(record, collection, self.drawn[record.id])

    def _papers(self) -> list[tuple[str, str, list[Table]]]:
        """Of each paper its claims with verdicts, and the evidence."""
        from slimbench.benchmarks.papers.claims import PAPERS

        groups = rows(self.collection.records, self.collection.measurements)
        return [(p.name, p.title, papers.claimed(p, groups, self._fidelity)) for p in PAPERS]

    def _fidelity(self, method: str) -> str:
        card = self.cards.get(method)
        return ", ".join(sorted(set(card.fidelity.values()))) if card else "unknown"

    def _method(self, name: str) -> dict[str, Any]:
        """Its rows in every table, beside the dense network's."""
        results = []
        for heading in self.headings:
            kept = [i for i, line in enumerate(heading.found) if _is_of(line.row, name) or line.row.is_dense]
            if any(_is_of(heading.found[i].row, name) for i in kept):
                results.append((heading, _only(heading.grids[0], kept)))
        first = [row.first for row in self.rows if _is_of(row, name)]
        bars = [(record, drawings) for record in first if (drawings := widths.bars(record))]
        pictured = [(record, self.drawn[record.id]) for record in first if self.drawn[record.id].is_any]
        said: Mapping[str, str] = next((record.cell["method"].get("fidelity", {}) for record in first), {})
        card = self.cards.get(name)
        formula = FORMULAS.get(name)
        courses = [one for one, course in self.collection.evolutions.items() if _tries(course, name)]
        return {
            "name": name,
            "card": card,
            "formula": formula,
            "lines": [(latex, mathml(latex)) for latex in formula.lines] if formula else [],
            "results": results,
            "bars": bars[:_MOST_SHOWN],
            "pictured": pictured[:_MOST_SHOWN],
            "fidelity": said,
            "courses": courses,
        }


def _is_of(row: Row, name: str) -> bool:
    return bool(row.first.cell["method"]["is"] == name)


def _named(trial: Mapping[str, Any]) -> dict[str, str]:
    return {"method": trial["method"]["is"], "task": trial["task"]["label"]}


def _tries(course: Mapping[str, Any], name: str) -> bool:
    return any(trial["method"]["is"] == name for trial in course["trials"])


def _only(grid: Grid, kept: Sequence[int]) -> Grid:
    """Some rows of a table; captions, tiers and controls are of the whole."""
    return Grid(replace(grid.table, body=tuple(grid.table.body[i] for i in kept)), tuple(grid.records[i] for i in kept))
