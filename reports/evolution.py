"""The course of an evolution goes in; two pictures come out: fitness by generation, and who comes from whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_LONGEST = 90  # characters of a formula in a title


def draw(course: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``fitness.png`` and ``genealogy.png`` of a course (``evolution.document``) into ``folder``."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, paint in (("fitness", _fitness), ("genealogy", _genealogy)):
        figure = Figure(figsize=(9, 5), layout="constrained")
        paint(figure.add_subplot(), course)
        figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
        written.append(folder / f"{name}.png")
    return written


def _best(course: Mapping[str, Any]) -> dict[str, Any]:
    """The fittest; of equals, the first that was born."""
    return max(course["individuals"], key=lambda one: (one["fitness"], -one["number"]))


def _fitness(axes: Axes, course: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    everyone, generations = course["individuals"], course["generations"]
    best = [max(everyone[n]["fitness"] for n in numbers) for numbers in generations]
    floor = _floor(everyone, generations)
    for born_there, color, label in ((False, "0.6", "survivors"), (True, "C0", "born there")):
        dots = [
            (generation, everyone[n]["fitness"])
            for generation, numbers in enumerate(generations)
            for n in numbers
            if (everyone[n]["born"] == generation) == born_there
        ]
        for marker, is_low, size in (("o", False, 22), ("v", True, 30)):
            drawn = [(x, max(y, floor)) for x, y in dots if (y < floor) == is_low]
            across, up = zip(*drawn, strict=True) if drawn else ((), ())
            axes.scatter(across, up, color=color, s=size, marker=marker, label=None if is_low else label, zorder=3)
    axes.plot(range(len(best)), best, color="C3", label="best so far")
    axes.axhline(best[0], color="C3", linestyle=":", label="best of the first generation")
    low = sum(one["fitness"] < floor for one in everyone)
    failed = sum(one["fitness"] == 0 for one in everyone)
    axes.set_title(f"{len(everyone)} functions; {low} lie below the picture (triangles), {failed} of them failed")
    axes.set_xlabel("generation")
    axes.set_ylabel("fitness: geometric mean of the scores on val")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)


def _floor(everyone: Sequence[Mapping[str, Any]], generations: Sequence[Sequence[int]]) -> float:
    """Where the picture ends: the worst of the first generation, and whoever survived, are in it."""
    seen = [everyone[n]["fitness"] for n in generations[0]]
    seen += [
        everyone[n]["fitness"]
        for turn, numbers in enumerate(generations)
        for n in numbers
        if everyone[n]["born"] < turn
    ]
    tried = [fitness for fitness in seen if fitness > 0] or [0.0]
    return min(tried) - 0.05 * (max(seen) - min(tried))


def _genealogy(axes: Axes, course: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    everyone, best = course["individuals"], _best(course)
    places, floor = _places(everyone), _floor(everyone, course["generations"])
    line = _ancestors(everyone, best["number"])
    for one in everyone:
        for parent in one["parents"]:
            in_line = one["number"] in line
            axes.plot(
                *zip(places[parent], places[one["number"]], strict=True),
                color="C3" if in_line else "0.8",
                linewidth=1.4 if in_line else 0.6,
                zorder=2 if in_line else 1,
            )
    tried = [one for one in everyone if one["fitness"]]
    across, up = zip(*(places[one["number"]] for one in tried), strict=True)
    dots = axes.scatter(across, up, c=[one["fitness"] for one in tried], vmin=floor, s=40, zorder=3)
    for one in everyone:
        if not one["fitness"]:
            axes.scatter(*places[one["number"]], marker="x", color="0.5", s=24, zorder=3)
    axes.figure.colorbar(dots, ax=axes, label="fitness")
    axes.annotate(
        f"{best['fitness']:.2f}", places[best["number"]], textcoords="offset points", xytext=(6, 6), color="C3"
    )
    formula = best["expression"]
    formula = formula if len(formula) <= _LONGEST else formula[: _LONGEST - 3] + "..."
    axes.set_title(f"In red the line of {formula}", fontsize=9)
    axes.set_xlabel("generation of birth; a cross failed")
    axes.set_yticks([])
    axes.set_ylabel("by fitness, the best on top")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _places(everyone: Sequence[Mapping[str, Any]]) -> dict[int, tuple[float, float]]:
    """(generation, rank) of each: those of one generation stand evenly, by fitness."""
    born: dict[int, list[Mapping[str, Any]]] = {}
    for one in everyone:
        born.setdefault(one["born"], []).append(one)
    return {
        one["number"]: (float(generation), (rank + 0.5) / len(group))
        for generation, group in born.items()
        for rank, one in enumerate(sorted(group, key=lambda one: (one["fitness"], -one["number"])))
    }


def _ancestors(everyone: Sequence[Mapping[str, Any]], number: int) -> set[int]:
    """An individual and all that it comes from."""
    found, left = set(), [number]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += everyone[one]["parents"]
    return found
