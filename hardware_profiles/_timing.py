"""Forward passes go in; interleaved samples, percentiles, a ratio with its interval and a noise floor come out."""

from __future__ import annotations

import gc
import random
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Samples = NDArray[np.float64]  # milliseconds

_WINDOW = 10
_STABLE = 0.02  # two successive windows' medians agree to this
_RESAMPLES = 2000


def warm_up(run: Callable[[], object], at_least_s: float, at_most_s: float) -> None:
    """Run until at least ``at_least_s`` seconds went by and the running median is stable, or ``at_most_s`` went by."""
    started = time.perf_counter()
    taken: list[float] = []
    while (elapsed := time.perf_counter() - started) < at_most_s:
        taken.append(_once(run))
        if elapsed >= at_least_s and len(taken) >= 2 * _WINDOW:
            before, now = statistics.median(taken[-2 * _WINDOW : -_WINDOW]), statistics.median(taken[-_WINDOW:])
            if abs(now - before) <= _STABLE * before:
                return


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, Samples]:
    """Time each run once a round, in an order drawn anew each round, with the garbage collector off."""
    shuffle = random.Random(seed)
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle.shuffle(names)
            for name in names:
                samples[name].append(_once(runs[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: np.asarray(values) for name, values in samples.items()}


def percentiles(samples: Samples) -> dict[str, float]:
    """Median, 90th and 99th percentile and interquartile range, in ms."""
    p25, p50, p75, p90, p99 = (float(v) for v in np.percentile(samples, [25, 50, 75, 90, 99]))
    return {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "iqr_ms": p75 - p25}


def ratio(above: Samples, below: Samples, seed: int = 0) -> tuple[float, float, float]:
    """Ratio of medians with its 95 % bootstrap interval; rounds are resampled as pairs, as they were taken."""
    draws = np.random.RandomState(seed).randint(0, len(above), (_RESAMPLES, len(above)))
    resampled = np.median(above[draws], axis=1) / np.median(below[draws], axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.median(above) / np.median(below)), float(low), float(high)


def _once(run: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started) / 1e6
