"""A genotype goes in; a picture of its cells comes out: inputs on the left, operations on edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimbench.methods.dass.genotypes import NODES, parse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from slimbench.methods.dass.genotypes import Cell

# x and y of both inputs, of the nodes and of the output
_PLACES = [(0.0, 1.5), (0.0, 0.5), (1.5, 2.4), (2.6, -0.4), (3.7, 2.0), (4.8, 0.4), (6.2, 1.0)]
_NAMES = ["c(k-2)", "c(k-1)", *map(str, range(NODES)), "c(k)"]
_COLOURS = {"max3": "C1", "avg3": "C1", "skip": "C7", "sep3": "C0", "sep5": "C0", "dil3": "C2", "dil5": "C2"}


def figure(text: str, title: str) -> Figure:
    """Both cells of a genotype as ``parse`` reads it. Raises: UserError for another text."""
    from matplotlib.figure import Figure

    found = parse(text)
    drawn = Figure(figsize=(8, 7), layout="constrained")
    drawn.suptitle(title, fontsize=9)
    for index, (name, cell) in enumerate((("normal cell", found.normal), ("reduction cell", found.reduce))):
        axes = drawn.add_subplot(2, 1, 1 + index)
        axes.set_title(name, fontsize=9, loc="left")
        _cell(axes, cell)
    return drawn


def _cell(axes: Any, cell: Cell) -> None:
    axes.set_xlim(-0.6, 6.8)
    axes.set_ylim(-1.1, 3.1)
    axes.axis("off")
    for node, edges in enumerate(cell):
        _arrow(axes, 2 + node, len(_PLACES) - 1, "", colour="0.8", bend=0.0)
        for place, (operation, source) in enumerate(edges):
            bend = (-0.3, 0.3)[place] if edges[0][1] == edges[1][1] else 0.12
            _arrow(axes, source, 2 + node, operation, colour=_COLOURS[operation], bend=bend)
    for (x, y), name in zip(_PLACES, _NAMES, strict=True):
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.3"}
        axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)


def _arrow(axes: Any, source: int, target: int, text: str, *, colour: str, bend: float) -> None:
    """From one place to another; the text stands beside the middle of the arc."""
    (x0, y0), (x1, y1) = _PLACES[source], _PLACES[target]
    how = {"arrowstyle": "->", "color": colour, "shrinkA": 16, "shrinkB": 14, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", (x1, y1), (x0, y0), arrowprops=how)
    if text:
        share = 0.45
        x, y = x0 + share * (x1 - x0) + bend / 2 * (y1 - y0), y0 + share * (y1 - y0) - bend / 2 * (x1 - x0)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour, bbox=white, zorder=2)
