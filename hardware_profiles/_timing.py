"""Forward passes go in; interleaved samples, percentiles, a ratio with its interval and a noise floor come out."""

from __future__ import annotations

import gc
import random
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Run = Callable[[], object]  # one forward pass of one batch
    Clock = Callable[[Sequence[Run]], list[float]]  # milliseconds of each run, one after the other
    Samples = NDArray[np.float64]  # milliseconds: (rounds,), or (processes, rounds)

_BLOCK = 10  # rounds between two synchronisations of a device that works by itself
_WINDOW = 10
_STABLE = 0.02  # two successive windows' medians agree to this
_RESAMPLES = 2000
_AT_ONCE = 2_000_000  # samples drawn at a time: 16 MB


def times(runs: Sequence[Run]) -> list[float]:
    """Milliseconds of each run, one after the other, by the processor's clock."""
    taken = []
    for run in runs:
        started = time.perf_counter_ns()
        run()
        taken.append((time.perf_counter_ns() - started) / 1e6)
    return taken


def warm_up(run: Run, at_least_s: float, at_most_s: float, clock: Clock = times) -> None:
    """Run until at least ``at_least_s`` seconds went by and the running median is stable, or ``at_most_s`` went by."""
    started = time.perf_counter()
    taken: list[float] = []
    while (elapsed := time.perf_counter() - started) < at_most_s:
        taken += clock([run])
        if elapsed >= at_least_s and len(taken) >= 2 * _WINDOW:
            before, now = statistics.median(taken[-2 * _WINDOW : -_WINDOW]), statistics.median(taken[-_WINDOW:])
            if abs(now - before) <= _STABLE * before:
                return


def interleaved(runs: Mapping[str, Run], rounds: int, seed: int = 0, clock: Clock = times) -> dict[str, Samples]:
    """Time each run once a round, in an order drawn anew each round, with the garbage collector off."""
    shuffle = random.Random(seed)
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for start in range(0, rounds, _BLOCK):
            order: list[str] = []
            for _ in range(min(_BLOCK, rounds - start)):
                shuffle.shuffle(names)
                order += names
            for name, ms in zip(order, clock([runs[name] for name in order]), strict=True):
                samples[name].append(ms)
    finally:
        if collecting:
            gc.enable()
    return {name: np.asarray(values) for name, values in samples.items()}


def percentiles(samples: Samples) -> dict[str, float]:
    """Mean over processes of the median; 90th and 99th percentile and interquartile range of all samples; in ms."""
    p25, p75, p90, p99 = (float(v) for v in np.percentile(samples, [25, 75, 90, 99]))
    return {"p50_ms": _middle(np.atleast_2d(samples)), "p90_ms": p90, "p99_ms": p99, "iqr_ms": p75 - p25}


def ratio(above: Samples, below: Samples, seed: int = 0) -> tuple[float, float, float]:
    """Ratio of the means over processes of medians, with its 95 % bootstrap interval.

    Processes are resampled, and in each of them rounds as pairs, as they were taken.
    """
    above, below = np.atleast_2d(above), np.atleast_2d(below)
    (processes, rounds), rng = above.shape, np.random.RandomState(seed)
    at_once = max(1, min(_RESAMPLES, _AT_ONCE // above.size))
    resampled: list[float] = []
    while len(resampled) < _RESAMPLES:
        which = rng.randint(0, processes, (at_once, processes, 1))
        drawn = rng.randint(0, rounds, (at_once, processes, rounds))
        medians = [np.median(side[which, drawn], axis=2).mean(axis=1) for side in (above, below)]
        resampled += list(medians[0] / medians[1])
    low, high = np.percentile(resampled[:_RESAMPLES], [2.5, 97.5])
    return _middle(above) / _middle(below), float(low), float(high)


def drift(samples: Samples) -> float:
    """How much slower or faster a process's second half of rounds was than its first, at most over processes."""
    halves = [np.median(half, axis=1) for half in np.array_split(np.atleast_2d(samples), 2, axis=1)]
    return float(np.abs(halves[1] / halves[0] - 1).max())


def _middle(samples: Samples) -> float:
    return float(np.median(samples, axis=1).mean())
