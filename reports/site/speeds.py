"""Lines of headings go in; measured against theoretical speed-up comes out, of each way of timing, a curve a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimbench.reports import _text, pictures
from slimbench.reports.site.curves import save
from slimbench.reports.table import title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Column


def timed(found: Sequence[Line]) -> list[tuple[Column, str, list[Line]]]:
    """Every way of timing, what it is called, and the compressed networks that went through it."""
    ways = sorted({c for line in found for c in line.measured}, key=lambda c: c.place)
    parts = [(c, title(c, ways), [ln for ln in found if c in ln.measured and not ln.facts["is_dense"]]) for c in ways]
    return [part for part in parts if part[2]]


def points(c: Column, name: str, found: Sequence[Line]) -> dict[str, Any]:
    """What a page needs to draw them."""
    return {
        "title": name,
        "machine": c.machine,
        "noise": max(line.measured[c]["noise"] for line in found),
        "points": [
            {
                "curve": pictures.curve_name(line, found),
                "asked": _text.asked(line.facts),
                "counted": line.measured[c][pictures.COUNTED],
                "ratio": line.measured[c]["measured_speedup"],
                "low": line.measured[c]["measured_low"],
                "high": line.measured[c]["measured_high"],
                "disturbed": line.measured[c]["disturbed"],
            }
            for line in sorted(found, key=lambda line: line.measured[c][pictures.COUNTED])
        ],
    }


def picture(c: Column, found: Sequence[Line], file: Path) -> None:
    """Write the same as an SVG."""
    save(pictures.speed(c, found), file)
