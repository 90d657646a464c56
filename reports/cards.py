"""Method cards go in; the table of methods for the README comes out. A card is the only place for a method's facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench import discover

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- methods: written by `bench check --write` -->", "<!-- end of methods -->"


def methods_table() -> str:
    """Every method that ships: what it is, where it comes from, how faithful it is, what it does otherwise."""
    cards: dict[str, Any] = {
        n: c for n, c in discover.found("methods").items() if c.__module__.startswith("slimbench.")
    }
    rows = [
        (
            f"`{name}`",
            f"[{c.card.title}]({c.card.link})" if c.card.link else c.card.title,
            ", ".join(f"{part}: {kind}" for part, kind in c.card.fidelity.items()),
            "; ".join(c.card.deviations) or "none",
        )
        for name, c in cards.items()
    ]
    return tabulate(rows, ["name", "method", "fidelity", "deviations"], tablefmt="github")


def written_into(text: str) -> str:
    """``text`` with the table between its markers. Raises: ValueError where the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{methods_table()}\n{END}{after}"


def write(readme: Path) -> bool:
    """Write the table into a file; whether anything changed."""
    old = readme.read_text()
    new = written_into(old)
    readme.write_text(new)
    return old != new
