"""Numbers of several seeds go in; mean, sample deviation and paired differences with their intervals come out."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENOUGH_SEEDS = 6  # below it no paired test can reach p < 0.05 (2 / 2**5 = 0.0625): intervals are indicative


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n values; the deviation is nan for n = 1."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % Student-t interval, which is infinite for n = 1."""

    mean: float
    low: float
    high: float
    n: int

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
    if not shared:
        return None
    summary = summarise([ours[seed] - theirs[seed] for seed in shared])
    if summary.n == 1:
        return Difference(summary.mean, -math.inf, math.inf, 1)
    half = student_t(summary.n - 1) * summary.sd / math.sqrt(summary.n)
    return Difference(summary.mean, summary.mean - half, summary.mean + half, summary.n)


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
