"""The course of an evolution goes in; what its page shows comes out: settings, both pictures, every function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimbench.reports import evolution
from slimbench.reports.table import Entry, Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CAPTIONS = (
    "Fitness: the geometric mean of what pruned networks score on validation, 0 where a trial failed.",
    "Parents are named by their number in this table; a function without any was there from the start.",
)


def values(name: str, course: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Of a course as ``bench evolve`` stores it; pictures are drawn into ``folder``/pictures."""
    drawn = evolution.draw(course, folder / "pictures" / f"evolution-{name}")
    return {
        "name": name,
        "methods": sorted({trial["method"]["is"] for trial in course["trials"]}),
        "settings": course["settings"],
        "pictures": {path.stem: str(path.relative_to(folder)) for path in drawn},
        "table": _table(course, list(course["individuals"][0]["scores"])),
    }


def _table(course: Mapping[str, Any], tasks: list[str]) -> Table:
    """Every individual, the fittest first; of equals, the first that was born."""
    everyone = sorted(course["individuals"], key=lambda one: (-(one["fitness"] or 0.0), one["number"]))
    body = [
        (
            Entry(one["expression"]),
            Entry(str(one["number"])),
            Entry(f"{one['fitness'] or 0.0:.2f}"),
            *(Entry(f"{one['scores'].get(task, 0.0):.2f}") for task in tasks),
            Entry(str(one["born"])),
            Entry(", ".join(map(str, one["parents"]))),
            Entry(", ".join(one["changed"])),
        )
        for one in everyone
    ]
    heads = ("function", "number", "fitness", *tasks, "generation of birth", "parents", "made by")
    return Table("Every function that was tried", heads, tuple(body), _CAPTIONS)
