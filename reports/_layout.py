"""Texts of columns go in; how wide each is set comes out, and what stands beside what: for LaTeX and terminals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WRAPS = 26  # characters: what is longer runs over several lines
GAP = 2  # characters between columns
_KEYS = {"method", "keep asked", "task", "claim"}  # columns that every part repeats, where they come first


def width(head: str, texts: Sequence[str]) -> int:
    """Characters that a column gets: as its texts want, within limits; a head may run over two lines."""
    words = max(len(word) for text in (head, *texts) for word in (text.split() or [""]))
    return max(min(WRAPS, max(map(len, texts), default=0)), min(words, WRAPS), math.ceil(len(head) / 2))


def parts(heads: Sequence[str], widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns of each part: the keys, and as many others as fit into ``room`` characters."""
    keys = [i for i, head in enumerate(heads) if set(heads[: i + 1]) <= _KEYS]
    found: list[list[int]] = []
    left = 0
    for i in range(len(keys), len(heads)):
        if not found or left < widths[i] + GAP:
            found.append([*keys])
            left = room - sum(widths[k] + GAP for k in keys)
        found[-1].append(i)
        left -= widths[i] + GAP
    return found or [keys]


def lines(row: Sequence[str], widths: Sequence[int]) -> int:
    """That a row takes."""
    return max((math.ceil(len(text) / wide) for text, wide in zip(row, widths, strict=True) if text), default=1)
