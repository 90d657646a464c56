"""A collection goes in; every page's name, template and values come out. Numbers are the tables'."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from slimbench.reports import across, notes, papers, table
from slimbench.reports.figures import lines
from slimbench.reports.rows import rows
from slimbench.reports.site import compare, curves, widths, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from slimbench.core import Card, MeasurementRecord, Record
    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Row
    from slimbench.reports.site.collection import Collection
    from slimbench.reports.table import Table

Page = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True)
class Grid:
    """A table, and of each of its rows the records behind it."""

    table: Table
    records: tuple[tuple[Record, ...], ...] = ()


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


class Site:
    """Everything that pages share."""

    def __init__(self, collection: Collection, cards: Mapping[str, Card], folder: Path) -> None:
        """``folder``: pictures are drawn into it."""
        self.collection, self.cards, self.folder = collection, cards, folder
        self.script = curves.script()
        self.by_id = {record.id: record for record in collection.records}
        groups = rows(collection.records, collection.measurements)
        self.headings = [self._heading(name, group) for name, group in groups.items()]
        self.rows = [row for group in groups.values() for row in group]
        self.measured: dict[str, list[MeasurementRecord]] = defaultdict(list)
        for m in collection.measurements:
            self.measured[m.cell_id].append(m)
        self.tasks = sorted({heading.task for heading in self.headings})
        self.methods = sorted({row.first.cell["method"]["is"] for row in self.rows} | set(cards))
        self.links = {row.method: words.file_of("methods", row.first.cell["method"]["is"]) for row in self.rows}
        self.counts = Counter(record.status for record in collection.records)

    def _heading(self, name: str, group: Sequence[Row]) -> Heading:
        task = group[0].first.cell["task"]["label"]
        found = lines(name, group)
        records = tuple(row.records for row in group)
        grids = tuple(Grid(made, records) for made in table.of_heading(name, group))
        anchor = words.slug(name)
        picture = ""
        if not self.script and curves.picture(name, found, self.folder / "pictures" / f"{anchor}.svg"):
            picture = f"pictures/{anchor}.svg"
        return Heading(name, task, anchor, found, grids, curves.points(found) if self.script else None, picture)

    def cell(self, record_id: str) -> str:
        """Where a cell's page lies; empty where the collection lacks it."""
        return words.file_of("cells", record_id) if record_id in self.by_id else ""

    def task(self, label: str) -> str:
        """Where a task's page lies."""
        return words.file_of("tasks", label)

    def method(self, name: str) -> str:
        """Where a method's page lies."""
        return words.file_of("methods", name)

    def pages(self) -> Iterator[Page]:
        """Every page."""
        collection = self.collection
        overall = across.overall(collection.records, collection.measurements)
        timed = across.by_profile(collection.records, collection.measurements)
        yield "index.html", "index.html", {"overall": overall, "timed": timed}
        yield "claims.html", "claims.html", {"papers": self._papers()}
        pairs = compare.table({heading.name: heading.found for heading in self.headings})
        names = sorted({row[i].text for row in pairs.body for i in (2, 3)})
        yield "compare.html", "compare.html", {"pairs": pairs, "names": names}
        for label in self.tasks:
            here = [heading for heading in self.headings if heading.task == label]
            yield self.task(label), "task.html", {"label": label, "headings": here}
        for name in self.methods:
            yield self.method(name), "method.html", self._method(name)
        pictured = {row.first.id for row in self.rows}
        for record in collection.records:
            yield self.cell(record.id), "cell.html", self._cell(record, is_pictured=record.id in pictured)

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
        drawn = [(record, drawings) for record in first if (drawings := widths.bars(record))]
        said: Mapping[str, str] = next((record.cell["method"].get("fidelity", {}) for record in first), {})
        card = self.cards.get(name)
        return {"name": name, "card": card, "results": results, "drawn": drawn[:6], "fidelity": said}

    def _cell(self, record: Record, *, is_pictured: bool) -> dict[str, Any]:
        pictures = notes.draw(record, self.folder / "pictures") if is_pictured and record.notes else []
        return {
            "record": record,
            "costs": _costs(record),
            "bars": widths.bars(record),
            "pictures": [f"pictures/{picture.name}" for picture in pictures],
            "measurements": [asdict(m) for m in self.measured[record.id]],
            "log": words.tail(self.collection.logs.get(record.id, "")),
            "spent": asdict(record.spent),
            "notes": {name: note for name, note in record.notes.items() if name != "widths"},
        }


def _is_of(row: Row, name: str) -> bool:
    return bool(row.first.cell["method"]["is"] == name)


def _only(grid: Grid, kept: Sequence[int]) -> Grid:
    """Some rows of a table; captions, tiers and controls are of the whole."""
    return Grid(replace(grid.table, body=tuple(grid.table.body[i] for i in kept)), tuple(grid.records[i] for i in kept))


def _costs(record: Record) -> Iterable[tuple[str, int, int | None]]:
    """Counted figures: of this network, and of the dense one."""
    if not record.cost:
        return []
    dense = asdict(record.dense_cost) if record.dense_cost else {}
    return [(name, value, dense.get(name)) for name, value in asdict(record.cost).items() if name != "uncounted"]
