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
    axes = {name: [line.facts[field] for line in scored] for name, field in _COUNTED.items()}
    for c in ways:
        axes[f"latency, ms: {title(c, ways)}"] = [line.measured.get(c, {}).get("p50_ms") for line in scored]
    return {
        "metric": scored[0].facts["metric"],
        "areas": pictures.areas(scored),
        "axes": list(axes),
        "fronts": [_front(costs, scored) for costs in axes.values()],
        "points": [_point(line, [costs[i] for costs in axes.values()]) for i, line in enumerate(scored)],
    }


def _front(costs: Sequence[float | None], scored: Sequence[Line]) -> list[tuple[float, float]]:
    known = [(cost, line.facts["mean"]) for cost, line in zip(costs, scored, strict=True) if cost is not None]
    return pictures.front(known, scored[0].row.sign)


def _point(line: Line, costs: Sequence[float | None]) -> dict[str, Any]:
    taken = student(list(line.row.scores.values()))
    return {
        "method": line.facts["method"],
        "asked": _text.asked(line.facts),
        "dense": line.facts["is_dense"],
        "mean": taken.mean,
        "half": (taken.high - taken.low) / 2 if taken.n > 1 else None,
        "n": taken.n,
        "costs": costs,
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
