"""A record goes in; a picture of each of its notes that is a table of numbers comes out: scales of layers, say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from slimbench.core import Record

_BINS = 20


def draw(record: Record, folder: Path) -> list[Path]:
    """Write a histogram of each note that gives numbers to names, into ``folder``; the files, in the notes' order."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, note in record.notes.items():
        if numbers := _numbers(note):
            figure = Figure(figsize=(7, 4), layout="constrained")
            axes = figure.add_subplot()
            axes.hist(numbers, bins=_BINS, color="C0", edgecolor="white")
            axes.set_title(record.label, fontsize=9)
            axes.set_xlabel(f"{name} ({len(numbers)})")
            axes.set_ylabel("how many")
            path = folder / f"{record.id}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png"
            figure.savefig(path, dpi=130, metadata={"Software": None})
            written.append(path)
    return written


def _numbers(note: Any) -> list[float]:
    """What a table of numbers holds; nothing of other notes."""
    values = list(note.values()) if isinstance(note, dict) else []
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return values if are_numbers and len(values) > 1 else []
