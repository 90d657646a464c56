"""Lines of a heading go in; the points of its curves come out, for plotly in the page, or a picture by matplotlib."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench.reports import _text, pictures
from slimbench.reports.table import title
from slimbench.statistics import student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from slimbench.reports.figures import Line
    from slimbench.reports.rows import Column

Taken = tuple[float | None, str]  # a cost, and why it should be doubted
_COUNTED = {"MACs kept": "macs_kept", "params kept": "params_kept"}


def script() -> Path | None:
    """plotly's own script (MIT licence), where plotly is installed."""
    found = util.find_spec("plotly")
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    return file if file and file.is_file() else None


def version() -> str | None:
    """Of plotly, or None where its script is not at hand."""
    return metadata.version("plotly") if script() else None


def points(found: Sequence[Line]) -> dict[str, Any] | None:
    """What a page needs to draw quality against each cost; None where there are fewer than two points."""
    scored = [line for line in found if line.facts["mean"] is not None]
    if len(scored) < 2:
        return None
    ways = sorted({c for line in scored for c in line.measured}, key=lambda c: c.place)
    axes = {name: [(line.facts[field], "") for line in scored] for name, field in _COUNTED.items()}
    for c in ways:
        axes[f"{pictures.LATENCY}: {title(c, ways)}"] = [_latency(line, c) for line in scored]
    return {
        "metric": scored[0].facts["metric"],
        "axes": [f"{name} ({pictures.SAID})" if any(why for _, why in taken) else name for name, taken in axes.items()],
        "fronts": [_front(taken, scored) for taken in axes.values()],
        "points": [_point(line, [taken[i] for taken in axes.values()]) for i, line in enumerate(scored)],
    }


def _latency(line: Line, c: Column) -> Taken:
    return (pictures.latency(line, c), line.measured[c]["disturbed"]) if c in line.measured else (None, "")


def _front(taken: Sequence[Taken], scored: Sequence[Line]) -> list[tuple[float, float]]:
    """Of what was not disturbed."""
    both = zip(taken, scored, strict=True)
    known = [(cost, line.facts["mean"]) for (cost, why), line in both if cost is not None and not why]
    return pictures.front(known, scored[0].row.sign)


def _point(line: Line, costs: Sequence[Taken]) -> dict[str, Any]:
    taken = student(line.row.values)
    return {
        "method": line.facts["method"],
        "asked": _text.asked(line.facts),
        "dense": line.facts["is_dense"],
        "mean": taken.mean,
        "half": (taken.high - taken.low) / 2 if taken.n > 1 else None,
        "n": taken.n,
        "costs": [cost for cost, _ in costs],
        "doubts": [why for _, why in costs],
    }


def picture(heading: str, found: Sequence[Line], file: Path) -> bool:
    """Write the same as an SVG; whether there was anything to draw."""
    scored = [line for line in found if line.facts["mean"] is not None]
    if len(scored) < 2:
        return False
    save(pictures.quality(heading, scored), file)
    return True


def save(drawn: Figure, file: Path) -> None:
    """Write a figure as an SVG: the same figure, the same bytes."""
    import matplotlib as mpl

    file.parent.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "slimbench"}):
        drawn.savefig(file, metadata={"Date": None})
