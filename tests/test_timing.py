"""Timing without a clock: what is made of samples, in which order rounds go, and when warm-up ends."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from slimbench.hardware_profiles import _timing

# --------------------------------------------------------------------------------------------------------- the samples


def test_percentiles_by_hand():
    """Of 0, 1, ..., 100 ms."""
    found = _timing.percentiles(np.arange(101.0)[::-1])
    assert found == {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "iqr_ms": 50.0}


def test_ratio_of_medians():
    """Not of means, and dense over compressed: 6 / 4, though each has an outlier."""
    assert _timing.ratio(np.array([6.0, 6, 6, 6, 90]), np.array([4.0, 4, 4, 4, 1]))[0] == 1.5


def test_constant_samples_have_a_point_for_an_interval():
    """3 ms against 1.5 ms, always."""
    assert _timing.ratio(np.full(30, 3.0), np.full(30, 1.5)) == (2.0, 2.0, 2.0)


def test_rounds_are_resampled_as_pairs():
    """A drift that meets both sides alike leaves no doubt about their ratio; shuffled, it does."""
    below = np.arange(1.0, 32.0)
    assert _timing.ratio(2 * below, below) == (2.0, 2.0, 2.0)
    _, low, high = _timing.ratio(2 * np.random.RandomState(0).permutation(below), below)
    assert low < 1.6
    assert high > 2.5


def test_the_interval_holds_95_percent():
    """Two of nine rounds reach the resampled median in 3.0 % of draws, one of seven in 1.0 %; below as above."""
    two, one = np.array([1.0] * 7 + [3.0] * 2), np.array([1.0] * 6 + [3.0])
    assert _timing.ratio(two, np.ones(9)) == (1.0, 1.0, 3.0)
    assert _timing.ratio(one, np.ones(7)) == (1.0, 1.0, 1.0)
    assert _timing.ratio(np.ones(9), two) == (1.0, pytest.approx(1 / 3), 1.0)
    assert _timing.ratio(np.ones(7), one) == (1.0, 1.0, 1.0)


def test_processes_are_resampled_before_their_rounds():
    """Each process is sure of its ratio, and the three differ: the interval holds them all, from 1 to 4."""
    below = np.ones((3, 30))
    above = np.array([[1.0], [2.0], [4.0]]) * below
    assert _timing.ratio(above, below) == (7 / 3, 1.0, 4.0)
    assert _timing.percentiles(above)["p50_ms"] == 7 / 3
    pooled = _timing.ratio(above.reshape(-1), below.reshape(-1))
    assert pooled[2] - pooled[1] < 3


def test_resampling_many_samples_takes_parts(monkeypatch):
    """Memory does not grow with the samples: with room for one draw at a time the interval is no other."""
    samples = np.random.RandomState(0).rand(2, 5, 40) + 1
    whole = _timing.ratio(*samples)
    monkeypatch.setattr(_timing, "_AT_ONCE", 1)
    assert _timing.ratio(*samples) == pytest.approx(whole, abs=0.02)


def test_drift_is_of_the_worst_process():
    """Half a second process's rounds at 1, half at 1.5: 50 %; a first that is steady, or noisy alike, counts less."""
    steady, slower = [1.0, 2.0, 1.0, 2.0], [1.0, 1.0, 1.5, 1.5]
    assert _timing.drift(np.array([steady, slower])) == 0.5
    assert _timing.drift(np.array([slower[::-1]])) == pytest.approx(1 / 3)
    assert _timing.drift(np.array([steady])) == 0.0


def test_the_interval_is_the_same_every_time():
    """Reports are made again from the same samples."""
    samples = np.random.RandomState(0).rand(2, 30) + 1
    assert _timing.ratio(*samples) == _timing.ratio(*samples)


# ---------------------------------------------------------------------------------------------------------- the rounds


class Clock:
    """A clock that only moves when work is done on it. Steps are powers of two, so that sums are exact."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        clock = SimpleNamespace(perf_counter=lambda: self.now, perf_counter_ns=lambda: round(self.now * 1e9))
        monkeypatch.setattr(_timing, "time", clock)

    def work(self, seconds: float):
        def run() -> None:
            self.now += seconds

        return run


def test_interleaved_samples_belong_to_their_run(monkeypatch):
    """In ms, one a round."""
    clock = Clock(monkeypatch)
    samples = _timing.interleaved({"a": clock.work(0.125), "b": clock.work(0.25)}, 4)
    assert {name: list(values) for name, values in samples.items()} == {"a": [125.0] * 4, "b": [250.0] * 4}


def test_each_round_runs_everything_once_in_an_order_of_its_own():
    """Sixty rounds of three show all six orders; the same seed shows the same orders."""

    def orders(seed: int) -> list[tuple[str, ...]]:
        ran: list[str] = []
        _timing.interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, 60, seed)
        return [tuple(ran[i : i + 3]) for i in range(0, 180, 3)]

    assert all(sorted(order) == ["a", "b", "c"] for order in orders(0))
    assert len(orders(0)) == 60
    assert len(set(orders(0))) == 6
    assert orders(0) == orders(0) != orders(1)


@pytest.mark.parametrize("was_on", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_garbage_collector_rests_meanwhile(was_on, fails):
    """It is off in every run, and afterwards as it was, after an error too."""
    seen = []

    def run() -> None:
        seen.append(gc.isenabled())
        if fails:
            raise ZeroDivisionError

    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        if fails:
            with pytest.raises(ZeroDivisionError):
                _timing.interleaved({"a": run}, 2)
        else:
            _timing.interleaved({"a": run}, 2)
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False] * (1 if fails else 2)


@pytest.mark.parametrize(
    ("steps", "at_least", "runs"),
    [
        ([1], 0.0, 20),  # stable from the start: two windows of ten
        ([1], 0.5, 33),  # and half a second of 64ths
        ([2] * 4 + [1], 0.0, 20),  # outliers do not move a median
        ([3] * 12 + [1], 0.0, 28),  # the first window's median is low once six of its ten are
        ([1.001**i for i in range(100)], 0.0, 20),  # slower by 1 % a window
        ([1.003**i for i in range(100)], 0.0, None),  # by 3 %: to the limit
    ],
    ids=["stable", "at least", "outliers", "settling", "drifting", "unstable"],
)
def test_warm_up_ends_when_stable_or_at_its_limit(monkeypatch, steps, at_least, runs):
    """Runs take 64ths of a second; the limit is one and a half."""
    clock, count = Clock(monkeypatch), 0

    def run() -> None:
        nonlocal count
        clock.now += steps[min(count, len(steps) - 1)] / 64
        count += 1

    _timing.warm_up(run, at_least, 1.5)
    if runs is None:
        assert clock.now - 100 - steps[count - 1] / 64 < 1.5 <= clock.now - 100
    else:
        assert count == runs
