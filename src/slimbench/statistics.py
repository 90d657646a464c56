"""Numbers of several seeds go in; means, paired differences with their intervals, and tiers come out."""

from __future__ import annotations

import math
import statistics
import string
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")
ALPHA = 0.05
ENOUGH_SEEDS = 6  # below it no paired test can reach p < 0.05 (2 / 2**5 = 0.0625): intervals are indicative


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n values; the deviation is nan for n = 1."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % Student-t interval, which is infinite for n = 1.

    Attributes:
        sd: sample deviation of the differences, nan for n = 1.
        p: two-sided, of the paired t-test; 1 for n = 1.

    """

    mean: float
    low: float
    high: float
    n: int
    sd: float = math.nan
    p: float = 1.0

    @property
    def is_indicative(self) -> bool:
        """Too few seeds to decide anything."""
        return self.n < ENOUGH_SEEDS


def summarise(values: Sequence[float]) -> Summary:
    """Raises: ValueError for no values."""
    if not values:
        raise ValueError("no values to summarise")
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Summary(statistics.fmean(values), sd, len(values))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Difference ours - theirs over the seeds that both have; None where they share none."""
    shared = sorted(ours.keys() & theirs.keys())
    return student([ours[seed] - theirs[seed] for seed in shared]) if shared else None


def student(values: Sequence[float]) -> Difference:
    """Mean of values with its Student-t interval, and the p value of a mean of zero. Raises: ValueError for none."""
    mean, sd, n = (summary := summarise(values)).mean, summary.sd, summary.n
    if n == 1:
        return Difference(mean, -math.inf, math.inf, 1)
    error = sd / math.sqrt(n)
    half = student_t(n - 1) * error
    return Difference(mean, mean - half, mean + half, n, sd, _p(mean, error, n - 1))


def _p(mean: float, error: float, freedom: int) -> float:
    from scipy.special import stdtr

    if not error:
        return float(mean == 0)
    return float(2 * stdtr(freedom, -abs(mean) / error))


def student_t(freedom: int, quantile: float = 0.975) -> float:
    """A quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, quantile))


def detectable(sd: float, n: int) -> float:
    """The smallest true difference that n pairs of this deviation show in four of five tries (5 %, two-sided)."""
    if n < 2:
        return math.inf
    return (student_t(n - 1) + student_t(n - 1, 0.8)) * sd / math.sqrt(n)


def holm(p: Mapping[T, float]) -> dict[T, float]:
    """Adjusted p values (Holm 1979): at most one false finding in twenty tables for all those below 0.05."""
    adjusted: dict[T, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p, key=lambda key: p[key])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[key]))
        adjusted[key] = largest
    return adjusted


def tiers(values: Mapping[T, Mapping[int, float]]) -> dict[T, str]:
    """Letters by method, best mean first: those that share one cannot be told apart after Holm.

    ``values``: of each method, by seed; higher is better. Empty where a pair shares fewer than ``ENOUGH_SEEDS`` seeds.
    """
    import numpy as np

    seeds = sorted({seed for mine in values.values() for seed in mine})
    columns = {key: np.array([mine.get(seed, math.nan) for seed in seeds]) for key, mine in values.items()}
    pairs = {(a, b): columns[a] - columns[b] for a, b in combinations(values, 2)}
    shared = {pair: d[~np.isnan(d)] for pair, d in pairs.items()}
    if not shared or any(len(d) < ENOUGH_SEEDS for d in shared.values()):
        return {}
    p = holm(
        {pair: _p(float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1) for pair, d in shared.items()}
    )
    best_first = sorted(values, key=lambda key: -statistics.fmean(values[key].values()))
    groups = alike(best_first, [pair for pair, value in p.items() if value < ALPHA])
    return {key: "".join(_letter(i) for i, group in enumerate(groups) if key in group) for key in best_first}


def alike(keys: Sequence[T], apart: Iterable[tuple[T, T]]) -> list[list[T]]:
    """The largest groups in which no two are apart (Piepho 2004: insert and absorb), in the order of ``keys``."""
    groups = [frozenset(keys)]
    for a, b in apart:
        parts = {part for g in groups for part in ((g - {a}, g - {b}) if {a, b} <= g else (g,))}
        groups = [g for g in parts if not any(g < other for other in parts)]
    found = [[key for key in keys if key in group] for group in groups]
    return sorted(found, key=lambda group: [keys.index(key) for key in group])


def _letter(i: int) -> str:
    """a to z, then a1 and so on."""
    turn, place = divmod(i, len(string.ascii_lowercase))
    return string.ascii_lowercase[place] + (str(turn) if turn else "")
