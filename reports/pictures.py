"""Records go in; pictures come out: quality against cost with the Pareto front, realised speed-up, widths of layers.

The numbers are the tables' (``figures``). Same records, same bytes.
"""

from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from slimbench.identity import digest
from slimbench.reports import _text
from slimbench.reports.figures import lines
from slimbench.reports.rows import rows, short
from slimbench.reports.table import title
from slimbench.statistics import student

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Column, Row

COUNTED = "timed_theoretical_speedup"
_COUNTED = {"macs_kept": "MACs kept", "params_kept": "params kept"}
_FAINT = {"alpha": 0.3}  # a timing that other work disturbed
SAID = "faint: disturbed"
LATENCY = "latency / dense latency"  # of one session: another session's milliseconds are not comparable
_PANELS = 3  # side by side
_FEW = 8  # means: the quartiles of fewer say little
_ACROSS = 60  # letters below a panel
_LETTERS = 16  # of a legend, that fit into an inch
_DENSE = {"color": "k", "marker": "*", "markersize": 11}


def draw(records: Sequence[Record], measurements: Sequence[MeasurementRecord], folder: Path) -> list[Path]:
    """Write every picture that the records hold into ``folder``; the files, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawn in _figures(rows(records, measurements)):
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"
        drawn.savefig(path, dpi=130, metadata={"Software": None})
        written.append(path)
    return written


def _figures(groups: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Figure]]:
    """Pictures by name. A heading's name is its task and a digest of the rest."""
    every = []
    for heading, group in groups.items():
        found = [line for line in lines(heading, group) if line.facts["mean"] is not None]
        name = f"{heading.partition(':')[0]}-{digest(heading)[:6]}"
        if len(found) > 1:
            yield f"{name}-quality", quality(heading, found)
        for line in found:
            if widths := _widths_of(line):
                yield f"widths-{line.row.first.id}", _widths(f"{name.rpartition('-')[0]} {_label(line)}", widths)
        every += found
    ways = sorted({c for line in every for c in line.measured}, key=lambda c: c.place)
    for c in ways:
        if timed := [line for line in every if c in line.measured and not line.facts["is_dense"]]:
            yield f"speed-up-{title(c, ways)}-{c.name}", speed(c, timed)


def _label(line: Line) -> str:
    return f"{line.facts['method']} {_text.asked(line.facts)}".strip()


def front(points: Sequence[tuple[float, float]], sign: int = 1) -> list[tuple[float, float]]:
    """Of (cost, quality) those that no other reaches at equal or less cost, by cost; ``sign``: see ``Row``."""
    best: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not best or sign * quality > sign * best[-1][1]:
            best.append((cost, quality))
    return best


# ------------------------------------------------------------------------------------------------ quality and cost


def quality(heading: str, found: Sequence[Line]) -> Figure:
    """Against MACs, params and each latency, as a share of dense; a look a method, intervals over seeds."""
    from matplotlib.figure import Figure

    ways = sorted({c for line in found if not line.facts["is_dense"] for c in line.measured}, key=lambda c: c.place)
    count, looks = 2 + len(ways), _looks(found)
    across = min(_PANELS, count)
    down = math.ceil(count / across)
    drawn = Figure(figsize=(5.2 * across, 0.6 + 4.2 * down), layout="constrained")
    panels: list[Axes] = []
    for place in range(1, count + 1):
        panels.append(drawn.add_subplot(down, across, place, sharey=panels[0] if panels else None))
    for axes, (name, label) in zip(panels, _COUNTED.items(), strict=False):
        _scatter(axes, label, [(line, line.facts[name]) for line in found], looks)
    for axes, c in zip(panels[2:], ways, strict=True):
        timed = [line for line in found if c in line.measured]
        doubted = [line for line in timed if is_disturbed(line, c)]
        _scatter(axes, f"{LATENCY}\n{title(c, ways)}", [(line, latency(line, c)) for line in timed], looks, doubted)
    for axes in panels[::across]:
        axes.set_ylabel(f"{found[0].facts['metric']}, mean and 95 % interval over seeds")
    frame(panels[0], found, room=0.2)
    name = textwrap.fill(heading, int(14 * drawn.get_figwidth()))
    drawn.suptitle(f"{name}\nfewer than 6 seeds: indicative", fontsize=9)
    _legend(drawn, panels[0])
    return drawn


def frame(axes: Axes, found: Sequence[Line], *, room: float) -> None:
    """Limits around the means, whatever intervals reach beyond: ``room`` is a share of their range.

    A mean that is far out would press all others together: it stays outside, named below with its value.
    """
    means = [line.facts["mean"] for line in found]
    low, high = _fences(means)
    inside = [line.facts["mean"] for line in found if line.facts["is_dense"] or low <= line.facts["mean"] <= high]
    some = room * (max(inside) - min(inside)) or 1.0
    bottom, top = min(inside) - some, max(inside) + some
    axes.set_ylim(bottom, top)
    if out := [line for line in found if not bottom <= line.facts["mean"] <= top]:
        names = ", ".join(f"{_label(line)}: {line.facts['mean']:.2f}" for line in out)
        axes.set_xlabel(f"{axes.get_xlabel()}\n{textwrap.fill(f'outside the frame: {names}', _ACROSS)}")


def _fences(means: Sequence[float]) -> tuple[float, float]:
    """Beyond them a mean is far out (Tukey, 1977: three times the range of the middle half); of few, none is."""
    if len(means) < _FEW:
        return -math.inf, math.inf
    first, _, third = statistics.quantiles(means, n=4, method="inclusive")
    reach = 3 * (third - first) or math.inf
    return first - reach, third + reach


def latency(line: Line, c: Column) -> float:
    """As a share of the dense network's in the same session, which is 1."""
    return 1.0 if line.facts["is_dense"] else 1 / line.measured[c]["measured_speedup"]


def areas(found: Sequence[Line]) -> list[str]:
    """The area under each method's curve in words, once a curve."""
    curves = {line.facts["area_ids"]: line for line in found if line.facts["area"] is not None}
    return [
        f"area under the curve of {f['method']}, {_text.epochs(f)}: {_text.area(f)}"
        for f in (line.facts for line in curves.values())
    ]


def _looks(found: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Of each method; its name has how many networks its points are of."""
    counts: dict[str, set[int]] = defaultdict(set)
    for line in found:
        counts[line.facts["method"]].add(line.facts["n"])
    dense = {line.facts["method"] for line in found if line.facts["is_dense"]}
    looks = {}
    for i, (method, n) in enumerate(counts.items()):
        look = _DENSE if method in dense else {"color": f"C{i % 10}", "marker": "os^vD<>Ph"[i // 10 % 9]}
        looks[method] = look | {"label": f"{method} ({' to '.join(map(str, sorted({min(n), max(n)})))})"}
    return looks


def _scatter(
    axes: Axes,
    label: str,
    points: Sequence[tuple[Line, float]],
    looks: Mapping[str, Mapping[str, Any]],
    doubted: Sequence[Line] = (),
) -> None:
    """``doubted``: their timing was disturbed: faint, and no point of the front."""
    axes.set_xlabel(f"{label} ({SAID})" if doubted else label)
    for line, cost in points:
        look = {**looks[line.facts["method"]], **(_FAINT if line in doubted else {})}
        axes.errorbar(cost, line.facts["mean"], yerr=_half(line), linestyle="", capsize=3, **look)  # type: ignore[arg-type]
    if sure := [(line, cost) for line, cost in points if line not in doubted]:
        edge = front([(cost, line.facts["mean"]) for line, cost in sure], sure[0][0].row.sign)
        axes.step(*zip(*edge, strict=True), where="post", color="0.6", linewidth=1, zorder=0)
    axes.grid(visible=True, alpha=0.3)


def _half(line: Line) -> float | None:
    """Half of the interval of the mean; None of one seed."""
    found = student(line.row.values)
    return (found.high - found.low) / 2 if found.n > 1 else None


def _legend(drawn: Figure, axes: Axes) -> None:
    """Below; the figure grows by what it takes, so that panels stay as they are."""
    found, room = handles([axes]), int(_LETTERS * drawn.get_figwidth())
    names = [textwrap.fill(name, room - 6) for name in found]
    lines_of = [line for name in names for line in name.splitlines()]
    columns = max(1, room // (6 + max(map(len, lines_of))))
    drawn.set_figheight(drawn.get_figheight() + 0.16 * math.ceil(len(lines_of) / columns))
    drawn.legend(found.values(), names, loc="outside lower center", ncols=columns, fontsize=7)


def handles(panels: Sequence[Axes]) -> dict[str, Any]:
    """What each name looks like where it is drawn first."""
    found: dict[str, Any] = {}
    for axes in panels:
        for what, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, what)
    return found


# ------------------------------------------------------------------------------------------------------- speed-up


def curve_name(line: Line, found: Sequence[Line]) -> str:
    """Whose curve a row is a point of: one method on one task, with one training, told apart from all of ``found``."""
    f = line.facts
    task = short(other.facts["group"] for other in found)[f["group"]]
    return f"{task} {f['method']}, {_text.epochs(f)}"


def speed(c: Column, found: Sequence[Line]) -> Figure:
    """Measured against theoretical, a curve a method: on the diagonal what was counted is what is gained."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7, 7), layout="constrained")
    axes = drawn.add_subplot()
    curves: dict[str, list[Line]] = defaultdict(list)
    for line in sorted(found, key=lambda line: line.measured[c][COUNTED]):
        curves[curve_name(line, found)].append(line)
    for i, (name, part) in enumerate(curves.items()):
        look = {"marker": "os^vD<>Ph"[i // 10 % 9], "color": f"C{i % 10}", "linewidth": 1, "label": name}
        for some, how in by_trust(part, c, look):
            _speeds(axes, c, some, how)
    ends = [line.measured[c][ratio] for line in found for ratio in (COUNTED, "measured_speedup")]
    low, high = min(1.0, *ends), max(1.0, *ends)
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
    axes.axhline(1, color="0.6", linestyle=":", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}x")
        axis.set_minor_formatter("{x:g}x")
    axes.set_xlabel("theoretical speed-up: dense MACs / MACs, counted")
    said = f" ({SAID})" if any(is_disturbed(line, c) for line in found) else ""
    axes.set_ylabel(f"measured speed-up: dense latency / latency, 95 % interval{said}")
    axes.set_title(f"{c.profile} {c.level}, machine {c.machine}\n{c.caption}", fontsize=7, wrap=True)
    _legend(drawn, axes)
    return drawn


def _speeds(axes: Axes, c: Column, part: Sequence[Line], look: Mapping[str, Any]) -> None:
    """Points of one curve, with their intervals."""
    taken = [line.measured[c] for line in part]
    ratios = [m["measured_speedup"] for m in taken]
    below = [max(0.0, m["measured_speedup"] - m["measured_low"]) for m in taken]
    above = [max(0.0, m["measured_high"] - m["measured_speedup"]) for m in taken]
    places = [m[COUNTED] for m in taken]
    if part:
        axes.errorbar(places, ratios, yerr=[below, above], capsize=3, **look)


def by_trust(
    found: Sequence[Line], c: Column, look: Mapping[str, Any]
) -> tuple[tuple[list[Line], Mapping[str, Any]], ...]:
    """Rows whose timing was quiet, and as they look; the disturbed ones, faint and joined by no line."""
    doubted = [line for line in found if is_disturbed(line, c)]
    quiet = [line for line in found if not is_disturbed(line, c)]
    return (quiet, look), (doubted, {**look, **_FAINT, "linestyle": ""})


def is_disturbed(line: Line, c: Column) -> bool:
    """Whether a timing of this row should be doubted."""
    return bool(line.measured[c]["disturbed"])


# --------------------------------------------------------------------------------------------------------- widths


def _widths_of(line: Line) -> dict[str, list[int]]:
    """Before and after by layer, of the lowest seed; nothing where the method kept none."""
    noted = line.row.first.notes.get("widths")
    known = isinstance(noted, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in noted.values())
    return noted if noted and known else {}


def _widths(name: str, widths: Mapping[str, list[int]]) -> Figure:
    """Channels of each layer: what was there, and what is left."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(max(6.0, 0.22 * len(widths)), 4.2), layout="constrained")
    axes = drawn.add_subplot()
    places = range(len(widths))
    axes.bar(places, [before for before, _ in widths.values()], color="0.85", label="dense")
    axes.bar(places, [after for _, after in widths.values()], color="C0", width=0.6, label="left")
    axes.set_xticks(list(places), list(widths), rotation=90, fontsize=6)
    axes.set_ylabel("channels")
    axes.set_title(name if len(name) < 90 else f"{name[:87]}...", fontsize=8)
    axes.legend(fontsize=8, loc="upper left")
    return drawn
