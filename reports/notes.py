"""A record goes in; pictures of its notes come out: histograms of tables of numbers, and cells that were found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from slimbench.reports import genotype

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from slimbench.core import Record

_BINS = 20


def draw(record: Record, folder: Path) -> list[Path]:
    """Write a picture of each note that can be drawn, into ``folder``; the files, in the notes' order.

    Tables of numbers become histograms, genotypes graphs of their cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, note in record.notes.items():
        if drawn := _figure(name, note, record.label):
            path = folder / f"{record.id}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png"
            drawn.savefig(path, dpi=130, metadata={"Software": None})
            written.append(path)
    return written


def _figure(name: str, note: Any, title: str) -> Figure | None:
    if isinstance(note, str) and name.startswith("genotype"):
        return genotype.figure(note, title)
    numbers = _numbers(note)
    if not numbers:
        return None
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.add_subplot()
    axes.hist(numbers, bins=_BINS, color="C0", edgecolor="white")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"{name} ({len(numbers)})")
    axes.set_ylabel("how many")
    return drawn


def _numbers(note: Any) -> list[float]:
    """What a table of numbers holds; nothing of other notes."""
    values = list(note.values()) if isinstance(note, dict) else []
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return values if are_numbers and len(values) > 1 else []
