"""Cells as text go in; cells as values come out, and the ones that are known by name.

A cell has four nodes; each sums two operations on earlier outputs: 0 and 1 are the two cells before, 2 to 4 the nodes.
``sep3@0 skip@1 | ...``: the first node adds a separable 3 x 3 convolution of input 0 to input 1 itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slimbench.core import UserError
from slimbench.discover import suggestion

NODES = 4
OPERATIONS = ("none", "max3", "avg3", "skip", "sep3", "sep5", "dil3", "dil5")
_EDGE = re.compile(r"(\w+)@(\d)")

Cell = tuple[tuple[tuple[str, int], tuple[str, int]], ...]  # four nodes of two (operation, input)


@dataclass(frozen=True)
class Genotype:
    """A normal cell, and one that halves the image; networks without reductions have no use for the latter."""

    normal: Cell
    reduce: Cell

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        return f"normal: {_text(self.normal)}; reduce: {_text(self.reduce)}"


def _text(cell: Cell) -> str:
    return " | ".join(" ".join(f"{operation}@{source}" for operation, source in node) for node in cell)


def parse(text: str) -> Genotype:
    """A genotype by its name, or from ``normal: CELL; reduce: CELL``. Raises: UserError."""
    if text in NAMED:
        text = NAMED[text]
    parts = dict(part.strip().partition(":")[::2] for part in text.split(";"))
    if set(parts) != {"normal", "reduce"}:
        known = ", ".join(NAMED)
        hint = suggestion(text, NAMED)
        raise UserError(f"Unknown genotype {text!r}{hint}: write 'normal: CELL; reduce: CELL', or one of {known}.")
    return Genotype(_cell(parts["normal"]), _cell(parts["reduce"]))


def _cell(text: str) -> Cell:
    nodes = [tuple((name, int(source)) for name, source in map(_edge, node.split())) for node in text.split("|")]
    if len(nodes) != NODES or any(len(node) != 2 for node in nodes):
        raise UserError(f"The cell {text.strip()!r} is impossible: give {NODES} nodes of two operations each.")
    for index, node in enumerate(nodes):
        for operation, source in node:
            if operation not in OPERATIONS[1:] or source >= 2 + index:
                known = ", ".join(OPERATIONS[1:])
                raise UserError(
                    f"{operation}@{source} is impossible in node {index}: use {known}, and inputs below {2 + index}."
                )
    return tuple(nodes)  # type: ignore[arg-type]


def _edge(text: str) -> tuple[str, str]:
    found = _EDGE.fullmatch(text)
    if not found:
        raise UserError(f"Cannot read {text!r} in a cell: write operation@input, e.g. sep3@0.")
    return found[1], found[2]


# The cells that the authors' code holds. Which sparsity the first and the two last belong to is read from names.
NAMED = {
    "dass-99": (
        "normal: avg3@0 skip@1 | dil5@1 skip@2 | avg3@2 skip@1 | skip@4 skip@3; "
        "reduce: max3@1 sep3@0 | max3@1 dil3@2 | skip@0 dil3@2 | max3@1 skip@4"
    ),
    "dass-95": (
        "normal: sep5@0 skip@1 | dil5@1 sep3@2 | dil3@2 sep3@0 | sep3@2 sep3@0; "
        "reduce: sep3@0 avg3@1 | sep3@0 sep5@2 | sep5@1 sep5@2 | dil3@1 dil3@2"
    ),
    "dass-90": (
        "normal: dil3@1 dil5@0 | sep5@0 dil5@1 | sep5@0 sep3@3 | sep3@2 dil5@0; "
        "reduce: skip@1 skip@0 | dil5@1 dil5@2 | dil5@2 dil5@3 | dil5@3 skip@0"
    ),
    "darts": (
        "normal: sep3@0 sep3@1 | skip@0 skip@1 | skip@0 skip@2 | skip@0 skip@1; "
        "reduce: avg3@0 dil3@1 | skip@2 avg3@0 | skip@2 avg3@0 | avg3@0 skip@2"
    ),
    "dass-one-loop": (
        "normal: max3@0 dil3@1 | dil5@1 skip@0 | dil5@2 dil5@3 | dil5@0 skip@4; "
        "reduce: dil5@0 dil5@1 | dil5@2 dil3@0 | dil5@2 dil3@3 | dil3@0 dil5@2"
    ),
}
