"""A record goes in; pictures of its notes come out: histograms, gates, courses of searches and pushes, found cells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from slimbench.reports import genotype

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from slimbench.core import Record

_BINS = 20
_WIDE = 1000.0  # the largest over the smallest positive number: beyond that the axis of two notes is logarithmic
_BARS = {"color": "C0", "edgecolor": "white"}
_LOOKS: dict[str, dict[str, Any]] = {
    "": _BARS,
    "after": _BARS,
    "before": {"histtype": "step", "color": "k", "linewidth": 1.6},
}
# what the numbers of a note are, and of what there are so many
_AXES = {
    "utilities": ("utility: variance between classes / variance within", "neurons"),
    "scales": ("scale of a layer's residual convolution, which the penalty draws to 0", "layers"),
    "alphas": ("weight of the shortcut beside a layer's convolution", "layers"),
    "kept": ("share of a layer's weights that is left", "layers"),
}
_OF_DIFFERENT_THINGS = {"kept for a backward pass"}  # three ways of computing: no histogram
_LEAST_STEPS = 5  # of a series that is worth a curve
_COURSES = {
    "power": "mean utility of\nthe K best neurons",
    "correlation": "mean |correlation|\nof two neurons",
    "effective": "effective number\nof neurons",
}


def draw(record: Record, folder: Path) -> list[Path]:
    """Write a picture of each note that can be drawn, into ``folder``; the files, in the notes' order.

    Tables of numbers become histograms, one for two notes whose names differ in "before" and "after" alone; what is
    logged along a search or a push becomes curves, gates a map of layers and candidates, genotypes graphs of cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, parts in _pictures(record.notes).items():
        if drawn := _figure(name, parts, record.label):
            path = folder / f"{record.id}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.png"
            drawn.savefig(path, dpi=130, metadata={"Software": None})
            written.append(path)
    return written


def _pictures(notes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By a picture's name the notes that are in it: two as "before" and "after", one alone as ""."""
    found: dict[str, dict[str, Any]] = {}
    for name, note in notes.items():
        twins = {when: re.sub(r"\b(before|after)\b", when, name) for when in ("before", "after")}
        if twins["before"] != twins["after"] and all(twin in notes for twin in twins.values()):
            both = re.sub(r"\b(before|after)\b", "before and after", name)
            found[both] = {when: notes[twin] for when, twin in twins.items()}
        else:
            found[name] = {"": note}
    return found


def _figure(name: str, parts: Mapping[str, Any], title: str) -> Figure | None:
    note = next(iter(parts.values()))
    if isinstance(note, str) and name.startswith("genotype"):
        return genotype.figure(note, title)
    if isinstance(note, dict) and note.keys() == _COURSES.keys():
        return _curves(name, note, title)
    if isinstance(note, list) and len(note) >= _LEAST_STEPS and all(map(_is_number, note)):
        return _series(name, note, title)
    if isinstance(note, dict) and name == "gates" and all(isinstance(row, list) and row for row in note.values()):
        return _gates(note, title)
    if isinstance(note, dict) and name == "expected widths" and all(len(way) > 1 for way in note.values()):
        return _ways(note, title) if note else None
    numbers = {when: _numbers(part) for when, part in parts.items() if name not in _OF_DIFFERENT_THINGS}
    return _histogram(name, numbers, title) if numbers and all(numbers.values()) else None


def _histogram(name: str, numbers: dict[str, list[float]], title: str) -> Figure:
    """Over the same bins; on a logarithmic axis zeros are counted beside."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.add_subplot()
    every = np.array([value for values in numbers.values() for value in values])
    positive = every[every > 0]
    can_be = len(numbers) > 1 and len(positive) > 0 and not (every < 0).any()
    is_wide = can_be and positive.max() / positive.min() > _WIDE
    edges = np.geomspace(positive.min(), positive.max(), _BINS + 1) if is_wide else np.histogram_bin_edges(every, _BINS)
    counts = {}
    for when, values in reversed(numbers.items()):
        zeros = values.count(0) if is_wide else 0
        counts[when] = f"({len(values)}, {zeros} of them 0)" if zeros else f"({len(values)})"
        shown = np.array([value for value in values if value or not is_wide])
        shown = shown.clip(edges[0], edges[-1])  # those of equal ratios are rounded
        look = _LOOKS[when] | {"label": f"{when} {counts[when]}"}
        axes.hist(shown, bins=list(edges), **look)
    if is_wide:
        axes.set_xscale("log")
    what, unit = _AXES.get(name.partition(" ")[0], (name, "how many"))
    axes.set_title(title if what == name else f"{title}: {name}", fontsize=9, wrap=True)
    axes.set_xlabel(what if len(numbers) > 1 else f"{what} {counts['']}")
    axes.set_ylabel(unit)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(numbers) > 1:
        axes.legend(fontsize=8, reverse=True)
    return drawn


def _curves(name: str, note: Mapping[str, list[float]], title: str) -> Figure:
    """One below the other."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 5.5), layout="constrained")
    rows = drawn.subplots(len(note), sharex=True)
    for axes, (what, values) in zip(rows, note.items(), strict=True):
        axes.plot([index / max(1, len(values)) for index in range(len(values))], values, marker=".")
        axes.set_ylabel(_COURSES[what], fontsize=8)
    rows[0].set_title(f"{title}: moving averages over training batches, {name}", fontsize=9, wrap=True)
    rows[-1].set_xlabel("share of the push's steps that are done")
    return drawn


def _series(name: str, values: list[float], title: str) -> Figure:
    """One course, from its first step to its last; what is over a target has a line at 1."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.add_subplot()
    axes.plot([index / (len(values) - 1) for index in range(len(values))], values, marker=".")
    if name.endswith("over target"):
        axes.axhline(1, color="0.6", linestyle=":", linewidth=1, zorder=0)
    axes.set_title(f"{title}: {name}", fontsize=9, wrap=True)
    axes.set_xlabel("share of the steps that are done")
    axes.set_ylabel(name)
    return drawn


def _gates(note: Mapping[str, list[float]], title: str) -> Figure:
    """Where each width's gate ended: its probabilities over prefixes of its channels, from few to all."""
    import numpy as np
    from matplotlib.figure import Figure

    most = max(map(len, note.values()))
    rows = [[*row, *[float("nan")] * (most - len(row))] for row in note.values()]
    drawn = Figure(figsize=(7, 1.6 + 0.2 * len(rows)), layout="constrained")
    axes = drawn.add_subplot()
    shown = axes.imshow(np.array(rows, dtype=float), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(rows)), list(note), fontsize=7)
    axes.set_xticks(range(most), [str(place + 1) for place in range(most)])
    axes.set_xlabel("candidate: prefixes of the channels, the last one is all of them")
    axes.set_title(f"{title}: gates at the end of the search", fontsize=9, wrap=True)
    drawn.colorbar(shown, ax=axes, label="probability")
    return drawn


def _ways(note: Mapping[str, list[float]], title: str) -> Figure:
    """What each width's gate expects to leave, along the search: early layers dark, late ones bright."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawn.add_subplot()
    for place, (width, way) in enumerate(note.items()):
        colour = colormaps["viridis"](place / max(1, len(note) - 1))
        axes.plot([index / (len(way) - 1) for index in range(len(way))], way, color=colour, label=width, linewidth=1.2)
    axes.set_ylim(0, 1.02)
    axes.set_title(f"{title}: gates along the search", fontsize=9, wrap=True)
    axes.set_xlabel("share of the search's steps that are done")
    axes.set_ylabel("expected share of the channels that are left")
    drawn.legend(fontsize=6, loc="outside right upper")
    return drawn


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(note: Any) -> list[float]:
    """What a table of numbers holds; nothing of other notes."""
    values = list(note.values()) if isinstance(note, dict) else []
    return values if len(values) > 1 and all(map(_is_number, values)) else []
