r"""Tables go in; LaTeX comes out: floats for a document that loads array, booktabs and graphicx, in plain ASCII.

What is too wide for a column of text goes on in the next float, which repeats the first columns; so do long tables.
What is estimated too narrow is scaled down, never up.
"""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

from slimbench.reports import _layout
from slimbench.reports._text import BOLD, PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.reports.table import Table

HEAD = "% needs \\usepackage{array,booktabs,graphicx}\n"
_WIDE, _LONG = 96, 53  # characters in a line of \scriptsize, and lines in a float

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': "''",
    "[": "{[}", "]": "{]}",  # a row that began with a bracket would be read as an argument of the one before
    "/": r"/\allowbreak{}", "=": r"=\allowbreak{}",
    "Δ": r"$\Delta$", "±": r"$\pm$", "≥": r"$\ge$", "≤": r"$\le$", "·": r"$\cdot$", "×": r"$\times$",  # noqa: RUF001
    "→": r"$\to$", "∞": r"$\infty$", "−": r"$-$", "²": r"$^2$", "–": "--", "—": "---", "…": r"\ldots{}",  # noqa: RUF001
    "‘": "`", "’": "'", "“": "``", "”": "''", "α": r"$\alpha$", "λ": r"$\lambda$", "μ": r"$\mu$",  # noqa: RUF001
    "ø": r"\o{}", "æ": r"\ae{}", "ß": r"\ss{}", "ł": r"\l{}", BOLD: r"\textbf{", PLAIN: "}",
}  # fmt: skip
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030c": "v ", "\u0327": "c "}


def escaped(text: str) -> str:
    """Text as LaTeX prints it; what neither ASCII nor known is becomes a question mark."""
    return "".join(map(_character, text))


def _character(c: str) -> str:
    if c in _LATEX:
        return _LATEX[c]
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return c if c.isascii() else "?"


def latex(tables: Sequence[Table]) -> str:
    """Floats to be read in by a document."""
    return HEAD + "\n".join(map(_floats, tables))


def _floats(table: Table) -> str:
    body = [[table.shown(entry) for entry in row] for row in table.body]
    widths = [_layout.width(head, [row[i] for row in body]) for i, head in enumerate(table.heads)]
    grids = [
        (
            _grid(table.heads, widths, columns, rows),
            3 + sum(_layout.lines([row[i] for i in columns], [widths[i] for i in columns]) for row in rows),
        )
        for rows in _pages(body, widths)
        for columns in _layout.parts(table.heads, widths, _WIDE)
    ]
    notes, apart = _notes(table), ""
    if sum(lines for _, lines in notes) <= _LONG // 2:
        grids += notes
    else:
        apart = "".join(text for text, _ in notes)
    floats = _packed(grids)
    whole = "".join(_float(f"{table.title}{_of(i, len(floats))}", texts) for i, texts in enumerate(floats)) + apart
    return whole + ("\\clearpage\n" if len(floats) > 1 else "")  # LaTeX gives up where too many floats wait


def _notes(table: Table) -> list[tuple[str, int]]:
    """Footnotes and captions, set below each other, and about how many lines they take."""
    notes = [*(f"[{i}] {note}" for i, note in enumerate(table.notes, 1)), *table.captions]
    if not notes:
        return []
    text = "".join(f"{escaped(note)}\\par\n" for note in notes)
    text = f"\\noindent\\parbox{{\\linewidth}}{{\\scriptsize\\sloppy\n{text}}}\\par\n"
    return [(text, 1 + sum(math.ceil(len(note) / _WIDE) for note in notes))]


def _packed(grids: Sequence[tuple[str, int]]) -> list[list[str]]:
    """What stands in each float: as much as fits."""
    floats: list[list[str]] = []
    left = 0
    for text, lines in grids:
        if not floats or left < lines:
            floats.append([])
            left = _LONG + 3
        floats[-1].append(text)
        left -= lines
    return floats


def _of(i: int, count: int) -> str:
    return f" (part {i + 1} of {count})" if count > 1 else ""


def _float(caption: str, texts: Sequence[str]) -> str:
    return (
        f"\\begin{{table}}[htbp]\n\\centering\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n\\caption{{{escaped(caption)}}}\n"
        + "\\smallskip\n".join(texts)
        + "\\end{table}\n"
    )


def _grid(heads: Sequence[str], widths: Sequence[int], columns: Sequence[int], rows: Sequence[Sequence[str]]) -> str:
    wraps = [any(len(text) > widths[i] for text in (heads[i], *(row[i] for row in rows))) for i in columns]
    kinds = "".join(_kind(widths[i]) if wrap else "l" for i, wrap in zip(columns, wraps, strict=True))
    lines = "".join(f"{_line([row[i] for i in columns])}\n" for row in rows)
    head = _line([heads[i] for i in columns])
    grid = f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head}\n\\midrule\n{lines}\\bottomrule\n\\end{{tabular}}"
    narrower = "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi\\par\n"
    return f"\\sbox0{{%\n{grid}}}%\n{narrower}"


def _kind(width: int) -> str:
    return f">{{\\raggedright\\arraybackslash}}p{{{0.52 * width:.1f}em}}"


def _line(texts: Sequence[str]) -> str:
    return f"{' & '.join(map(escaped, texts))} \\\\"


def _pages(body: Sequence[Sequence[str]], widths: Sequence[int]) -> list[list[Sequence[str]]]:
    """Rows of each part: as many as fit into a float."""
    pages: list[list[Sequence[str]]] = [[]]
    left = _LONG
    for row in body:
        lines = _layout.lines(row, widths)
        if pages[-1] and left < lines:
            pages.append([])
            left = _LONG
        pages[-1].append(row)
        left -= lines
    return pages
