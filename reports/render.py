"""Tables go in; Markdown, LaTeX, HTML, CSV, JSON or coloured text comes out: the same numbers in all of them."""

from __future__ import annotations

import csv as _csv
import html as _html
import io
import json as _json
import re
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench.reports._text import BOLD, PLAIN
from slimbench.reports.latex import latex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.reports.table import Table

NOTHING = "No records yet: `bench run --all` makes some.\n"


def _below(table: Table) -> list[str]:
    """Footnotes, then captions."""
    return [*(f"[{i}] {note}" for i, note in enumerate(table.notes, 1)), *table.captions]


# ------------------------------------------------------------------------------------------------------- for people


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's Markdown."""
    return "\n".join(map(_markdown, tables)) if tables else NOTHING


def grid(table: Table) -> str:
    """Heads and rows alone, in GitHub's Markdown."""
    body = [[_escaped(table.shown(entry)) for entry in row] for row in table.body]
    return str(tabulate(body, table.heads, tablefmt="github", disable_numparse=True))


def _markdown(table: Table) -> str:
    text = f"{'#' * table.level} {table.title}\n\n{grid(table)}\n"
    if below := _below(table):
        text += "\n" + "".join(f"- {line}\n" for line in below)
    return text


def _escaped(text: str) -> str:
    """What would otherwise divide cells or turn bold: formulas have stars."""
    return re.sub(r"[|*]", r"\\\g<0>", text).replace(BOLD, "**").replace(PLAIN, "**")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>SlimBench</title>
<style>body{{font:15px sans-serif;margin:2em}}div{{overflow-x:auto}}table{{border-collapse:collapse}}
th,td{{padding:.3em .7em;border-bottom:1px solid #bbb;text-align:left;white-space:nowrap}}</style></head>
<body>
{}
</body></html>
"""


def html(tables: Sequence[Table]) -> str:
    """One plain page that opens from disk."""
    return _PAGE.format("\n".join(map(_html_table, tables)) if tables else f"<p>{_marked(NOTHING.strip())}</p>")


def _html_table(table: Table) -> str:
    below = "".join(f"<li>{_marked(line)}</li>\n" for line in _below(table))
    heading = f"<h{table.level - 1}>{_marked(table.title)}</h{table.level - 1}>"
    return f"{heading}\n<div>{_marked_grid(table)}</div>\n" + (f"<ul>\n{below}</ul>\n" if below else "")


def _marked_grid(table: Table) -> str:
    body = [[table.shown(entry) for entry in row] for row in table.body]
    text = str(tabulate(body, table.heads, tablefmt="html", disable_numparse=True))
    return text.replace(BOLD, "<b>").replace(PLAIN, "</b>")  # tabulate has escaped the rest


def _marked(text: str) -> str:
    return _html.escape(text).replace(BOLD, "<b>").replace(PLAIN, "</b>")


# -------------------------------------------------------------------------------------------------- for programs


def _facts(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Every line once, though two tables show it."""
    found = [dict(facts) for table in tables for facts in table.facts]
    return list({_json.dumps(facts, sort_keys=True): facts for facts in found}.values())


def csv(tables: Sequence[Table]) -> str:
    """The same numbers, unrounded, one line a row and latency column."""
    out = io.StringIO()
    lines = _facts(tables)
    fields = list(dict.fromkeys(field for line in lines for field in line))
    writer = _csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def json(tables: Sequence[Table]) -> str:
    """The same lines as CSV's, as a list of objects."""
    return _json.dumps(_facts(tables), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS = {"md": markdown, "latex": latex, "html": html, "csv": csv, "json": json}
