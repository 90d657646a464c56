"""Tables go in; coloured text comes out, as wide as the terminal: what matters most, or one part below the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from slimbench.reports import _layout
from slimbench.reports._text import BOLD, PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table as Grid

    from slimbench.reports.table import Table


def terminal(tables: Sequence[Table], console: Console) -> None:
    """Titles, columns, footnotes; a caption that several tables have is said once."""
    from rich.markup import escape

    captions: dict[str, None] = {}
    for table in tables:
        console.print(f"[bold]{escape(table.title)}[/bold]", highlight=False)
        left_out = _print(table, console)
        notes = [f"[{i}] {note}" for i, note in enumerate(table.notes, 1)]
        if left_out:
            notes.append(f"Too wide for here: {', '.join(left_out)}. `--format md` shows every column.")
        notes += [caption for caption in table.captions if caption not in captions]
        captions |= dict.fromkeys(table.captions)
        for line in notes:
            console.print(f"[dim]{escape(line)}[/dim]", highlight=False)
        console.print()


def _print(table: Table, console: Console) -> list[str]:
    """The columns that matter, as far as they fit, else all of them in parts; the heads that were left out."""
    body = [[table.shown(entry) for entry in row] for row in table.body]
    plain = [[_plain(text) for text in row] for row in body]
    widths = [_layout.width(head, [row[i] for row in plain]) for i, head in enumerate(table.heads)]
    if table.compact:
        kept, left_out = _important(table, widths, console.width)
        chosen = [kept]
    else:
        chosen, left_out = _layout.parts(table.heads, widths, console.width), []
    for part in chosen:
        console.print(_grid(table, body, part, _widened(plain, part, widths, console.width)))
    return left_out


def _widened(plain: Sequence[Sequence[str]], part: Sequence[int], widths: Sequence[int], room: int) -> list[int]:
    """Widths of a part's columns, once what room there is has gone to those that want it, the first ones first."""
    spare = max(0, room - sum(widths[i] + _layout.GAP for i in part))
    found = []
    for i in part:
        more = min(spare, max(0, max((len(row[i]) for row in plain), default=0) - widths[i]))
        spare -= more
        found.append(widths[i] + more)
    return found


def _important(table: Table, widths: Sequence[int], room: int) -> tuple[list[int], list[str]]:
    """Columns in the table's order, chosen by importance; the heads of those that do not fit."""
    kept: list[int] = []
    left = room
    places = {head: i for i, head in enumerate(table.heads)}
    for head in table.compact:
        if kept and left < widths[places[head]] + _layout.GAP:
            break
        kept.append(places[head])
        left -= widths[places[head]] + _layout.GAP
    return sorted(kept), list(table.compact[len(kept) :])


def _grid(table: Table, body: Sequence[Sequence[str]], part: Sequence[int], widths: Sequence[int]) -> Grid:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for i, width in zip(part, widths, strict=True):
        grid.add_column(escape(table.heads[i]), width=width, overflow="fold")
    for row in body:
        grid.add_row(*(_coloured(escape(row[i]), table.heads[i]) for i in part))
    return grid


def _plain(text: str) -> str:
    return text.replace(BOLD, "").replace(PLAIN, "")


def _coloured(text: str, head: str) -> str:
    """Losses red and gains green where the interval says so; what did not end well yellow; bold as marked."""
    colour = ""
    if head.startswith("Δ") and (ends := re.findall(r"\[([+-][\d.]+), ([+-][\d.]+)\]", text.replace("\\[", "["))):
        low, high = map(float, ends[0])
        colour = "red" if high < 0 else "green" if low > 0 else ""
    elif head == "status" and not text.startswith("ok"):
        colour = "yellow"
    elif head.startswith("verdict"):
        colour = {"supported": "green", "not supported": "red"}.get(re.split(r"[,(:]", text)[0].strip(), "yellow")
    text = text.replace(BOLD, "[bold]").replace(PLAIN, "[/bold]")
    return f"[{colour}]{text}[/{colour}]" if colour and text else text
