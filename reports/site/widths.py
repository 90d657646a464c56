"""A record goes in; what a drawing of its widths needs comes out: channels before and after, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimbench.core import Record

_HEIGHT = 80.0  # of the widest layer's bar, in units of the drawing
_STEP = 14.0


@dataclass(frozen=True)
class Bar:
    """One layer: its place, its channels, and their heights in the drawing."""

    name: str
    before: int
    after: int
    x: float
    high: float
    low: float


@dataclass(frozen=True)
class Bars:
    """A drawing of all layers."""

    bars: tuple[Bar, ...]
    width: float
    height: float = _HEIGHT


def bars(record: Record) -> Bars | None:
    """None where the method noted no widths."""
    noted = record.notes.get("widths")
    if not isinstance(noted, dict) or not noted:
        return None
    if not all(isinstance(pair, list) and len(pair) == 2 and pair[0] > 0 for pair in noted.values()):
        return None
    most = max(before for before, _ in noted.values())
    scale = _HEIGHT / most
    drawn = (
        Bar(name, before, after, round(i * _STEP, 2), round(before * scale, 2), round(after * scale, 2))
        for i, (name, (before, after)) in enumerate(noted.items())
    )
    return Bars(tuple(drawn), round(len(noted) * _STEP, 2))
