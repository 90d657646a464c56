"""Rows of one heading go in; the area under each method's curve of quality against MACs comes out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from slimbench.reports.rows import network
from slimbench.statistics import student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.core import Record
    from slimbench.reports.rows import Row
    from slimbench.statistics import Difference

LEAST_POINTS = 3  # the dense network, where every curve ends, is one
Curve = tuple[str, str, float, float | None]  # method, resource of its budgets, epochs, share of params asked beside


@dataclass(frozen=True)
class Area:
    """Mean quality over a range of MACs: trapezoids under the curve, divided by its width, by seed.

    Attributes:
        taken: mean over seeds in the metric's unit, with its 95 % Student-t interval; the same networks count once.
        low, high: ends of the curve, as shares of the dense network's MACs.
        ids: of the records behind it.

    """

    method: str
    taken: Difference
    points: int
    low: float
    high: float
    ids: tuple[str, ...]


def curve_of(row: Row) -> Curve:
    """Which curve a row is a point of."""
    budget = row.first.cell["budget"]
    return row.method, budget["resource"], budget["epochs"], budget.get("params_keep")


def areas(group: Sequence[Row]) -> dict[Curve, Area]:
    """Of every method with enough points; rows that missed their budget are no points of a curve."""
    curves: dict[Curve, list[Row]] = defaultdict(list)
    for row in group:
        if not row.is_dense and row.is_met:
            curves[curve_of(row)].append(row)
    found = {name: _area(part) for name, part in curves.items()}
    return {name: area for name, area in found.items() if area}


def _area(part: Sequence[Row]) -> Area | None:
    """Over the seeds that every point has, the dense network too; None where there are none, or too few points."""
    points = [{r.cell["seed"]: r for r in row.counted if r.quality} for row in part]
    points.append({seed: r for row in part for seed, r in row.dense.items() if r.cost and r.quality})
    seeds = sorted(set.intersection(*(set(point) for point in points)))
    if len(points) < LEAST_POINTS or not seeds:
        return None
    records = _distinct([[point[seed] for point in points] for seed in seeds])
    curves = [sorted(map(_point, of_seed)) for of_seed in records]
    if any(curve[0][0] == curve[-1][0] for curve in curves):
        return None
    ends = min(curve[0][0] for curve in curves), max(curve[-1][0] for curve in curves)
    ids = tuple(record.id for of_seed in records for record in of_seed)
    return Area(part[0].method, student(list(map(_mean_height, curves))), len(points), *ends, ids)


def _distinct(curves: Sequence[Sequence[Record]]) -> list[Sequence[Record]]:
    """Of curves whose networks are all equal to the bit, the first."""
    found: dict[tuple[str, ...], Sequence[Record]] = {}
    for curve in curves:
        found.setdefault(tuple(map(network, curve)), curve)
    return list(found.values())


def _point(record: Record) -> tuple[float, float]:
    """MACs kept, as a share of the dense network's, and the headline metric."""
    assert record.cost
    assert record.dense_cost
    return record.cost.macs / max(1, record.dense_cost.macs), next(iter(record.quality.values())).value


def _mean_height(curve: Sequence[tuple[float, float]]) -> float:
    """Of points by share: trapezoids, divided by the width."""
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(curve))
    return area / (curve[-1][0] - curve[0][0])
