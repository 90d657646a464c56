"""The headings of a suite go in; one picture comes out as SVG: quality against what is left, and against time.

The numbers are the tables'. The file says them in words too, with their records, so that it can be checked as text.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from slimbench import discover
from slimbench.identity import digest
from slimbench.reports import _text
from slimbench.reports.pictures import SAID, by_trust, frame, handles, is_disturbed
from slimbench.reports.rows import newest
from slimbench.reports.summary import LEFT, reached
from slimbench.reports.table import title
from slimbench.statistics import student

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Column
    from slimbench.reports.summary import Summary

    Looks = Mapping[str, Mapping[str, str]]

_MARKERS = "os^vD<>"
_OPTIONS = "PhdXp8H"  # of a method with other options than its defaults
_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")  # C7 is grey: controls are
_GREYS = ("0.25", "0.45", "0.65")
_LINE = 3  # shares that a line goes through, at least
_STYLE: dict[Any, Any] = {"svg.hashsalt": "slimbench", "svg.fonttype": "path", "font.size": 9.0}


def described(one: Summary) -> str:
    """Every point of the picture in words, a line each, with the records behind it."""
    return "\n".join(
        f"{line.facts['method']} {_text.asked(line.facts)}: {reached(line)}: {line.facts['ids']}"
        for line in one.found
        if line.facts["mean"] is not None
    )


def svg(one: Summary) -> str:
    """The picture of one heading: a panel a resource or point, one of times where there are any, then the legend."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = (len(_views(one)) + (one.way is not None) + 1) // 2
    with mpl.rc_context(_STYLE):
        drawn = Figure(figsize=(9.0, 0.6 + 3.8 * rows), layout="constrained")
        panels: list[Axes] = list(drawn.subplots(rows, 2, squeeze=False).flat)
        count = _panels(one, panels)
        _legend(drawn, panels[:count], panels[count:])
        drawn.suptitle(one.title, fontsize=10)
        out = io.StringIO()
        about = {"Date": None, "Creator": None, "Title": one.heading, "Description": described(one)}
        drawn.savefig(out, format="svg", metadata=about)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _views(one: Summary) -> list[tuple[str, str | None]]:
    """What each panel is of: a resource, or one point of it where there are too few for a line to say anything."""
    views: list[tuple[str, str | None]] = []
    for resource in one.resources:
        points = dict.fromkeys(one.point(line) for line in one.compressed if line.facts["resource"] == resource)
        views += [(resource, None)] if len(points) >= _LINE else [(resource, name) for name in points]
    return views


def _panels(one: Summary, panels: Sequence[Axes]) -> int:
    """Against each resource, then against time; how many panels were drawn."""
    looks, views = _looks(one), _views(one)
    metric = next(line.facts["metric"] for line in one.found if line.facts["metric"])
    for axes, (resource, name) in zip(panels, views, strict=False):
        if name is None:
            _kept(axes, one, resource, looks)
        else:
            _beside(axes, one, name, looks)
    if one.way:
        _timed(panels[len(views)], one, one.way, looks)
    for axes in panels[::2]:
        axes.set_ylabel(f"{metric} on test, mean and 95 % interval")
    return len(views) + (one.way is not None)


def _legend(drawn: Figure, panels: Sequence[Axes], free: Sequence[Axes]) -> None:
    """Every method once, as its first panel draws it: in the panel that is free, else below."""
    found = handles(panels)
    for axes in free:
        axes.set_axis_off()
        axes.legend(found.values(), found, loc="center", fontsize=8)
    if not free:
        drawn.legend(found.values(), found, loc="outside lower center", ncols=4, fontsize=8)


def _looks(one: Summary) -> Looks:
    """A look a method, the same in every picture: colours for methods, grey and dashed for the controls to beat.

    What differs in its options alone has its method's colour, and a marker of its options; beside a newer version of
    itself a method is half filled.
    """
    looks: dict[str, dict[str, str]] = {}
    methods = {line.facts["method"]: line.row for line in one.compressed}
    told = [row.first.cell["method"] for row in methods.values()]
    last = newest((method["label"], method["version"]) for method in told)
    for name, row in sorted(methods.items(), key=lambda item: (item[1].is_control, item[0])):
        method = row.first.cell["method"]
        place = _known({method["is"]}, row.is_control).index(method["is"])
        if method["label"] == method["is"]:
            looks[name] = {"marker": _MARKERS[place % len(_MARKERS)], "linestyle": "-"}
        else:
            looks[name] = {"marker": _OPTIONS[int(digest(method["label"]), 16) % len(_OPTIONS)], "linestyle": ":"}
        if row.apart:
            looks[name]["marker"] = _OPTIONS[int(digest(name), 16) % len(_OPTIONS)]
        if row.is_control:
            looks[name] |= {"linestyle": "--", "fillstyle": "none", "color": _GREYS[place % len(_GREYS)]}
        else:
            looks[name]["color"] = _COLOURS[place % len(_COLOURS)]
        if method["version"] < last[method["label"]]:
            looks[name]["fillstyle"] = "bottom"
    return looks


def _known(more: set[str], are_controls: bool) -> list[str]:
    """Names of all methods that are controls, or are none, by their cards; ``more`` may be of no plug-in here."""
    found = discover.found("methods").items()
    return sorted(more | {n for n, m in found if ("control" in m.card.fidelity.values()) is are_controls})  # type: ignore[attr-defined]


def _kept(axes: Axes, one: Summary, resource: str, looks: Looks) -> None:
    """Against the share that is really left, dear to cheap, a line through the points of a method."""
    here = [line for line in one.compressed if line.facts["resource"] == resource]
    for method, look in looks.items():
        mine = [line for line in _of(one, method) if line.facts["resource"] == resource]
        _draw(axes, mine, [100 * line.facts["kept"] for line in mine], method, look)
    asked = sorted({100 * line.facts["keep_asked"] for line in here})
    axes.set_xscale("log")
    axes.set_xlim(1.15 * asked[-1], asked[0] / 1.15)
    axes.set_xticks(asked, [f"{share:g}" for share in asked])
    axes.minorticks_off()
    axes.set_xlabel(f"% of {LEFT[resource]} left")
    _dense(axes, one, here)


def _beside(axes: Axes, one: Summary, name: str, looks: Looks) -> None:
    """Methods side by side that met one point: all at one place could not be told apart."""
    here = [line for line in one.compressed if one.point(line) == name and line.row.is_met]
    mine = {method: [line for line in _of(one, method) if line in here] for method in looks}
    shown = [method for method in looks if mine[method]]
    for place, method in enumerate(shown):
        _draw(axes, mine[method], [place] * len(mine[method]), method, looks[method])
    axes.set_xlim(-1, len(shown))
    axes.set_xticks([])
    axes.set_xlabel(f"{name} asked, methods side by side")
    _dense(axes, one, [line for method in shown for line in mine[method]])


def _timed(axes: Axes, one: Summary, way: Column, looks: Looks) -> None:
    """Against the measured speed-up."""
    for method, look in looks.items():
        mine = [line for line in _of(one, method) if way in line.measured]
        for some, how in by_trust(mine, way, look):
            _draw(axes, some, [line.measured[way]["measured_speedup"] for line in some], method, how)
    timed = [line for line in one.compressed if way in line.measured]
    axes.axvline(1, color="0.6", linestyle=":", linewidth=1)
    said = f"; {SAID}" if any(is_disturbed(line, way) for line in timed) else ""
    axes.set_xlabel(f"measured speed-up, {title(way, [way])}\nright of 1 is faster{said}")
    _dense(axes, one, timed)


def _of(one: Summary, method: str) -> list[Line]:
    return [line for line in one.compressed if line.facts["method"] == method and line.facts["mean"] is not None]


def _draw(axes: Axes, mine: Sequence[Line], places: Sequence[float], method: str, look: Mapping[str, Any]) -> None:
    if mine:
        means = [line.facts["mean"] for line in mine]
        bars = [_half(line) for line in mine]
        thin = {"capsize": 2, "linewidth": 1, "elinewidth": 0.7, "markersize": 5}
        axes.errorbar(places, means, yerr=bars, label=method, **thin, **look)  # type: ignore[arg-type]


def _half(line: Line) -> float:
    """Half of the interval of the mean; 0 of one seed, which has none."""
    found = student(line.row.values)
    return (found.high - found.low) / 2 if found.n > 1 else 0.0


def _dense(axes: Axes, one: Summary, beside: Sequence[Line]) -> None:
    """The dense network's line, and a frame for the means: an interval of two seeds may leave it."""
    axes.grid(visible=True, alpha=0.3)
    scored = [line for line in (one.dense, *beside) if line and line.facts["mean"] is not None]
    if one.dense and one.dense.facts["mean"] is not None:
        axes.axhline(one.dense.facts["mean"], color="k", linestyle="--", linewidth=1, label="dense")
    if len({line.facts["mean"] for line in scored}) > 1:
        frame(axes, scored, room=0.08)
