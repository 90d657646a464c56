"""Timing without a clock: what is made of samples, when warm-up ends, and what a disturbed measurement comes to."""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import os
import tempfile
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch

from conftest import fakes
from slimbench import artifact, measure
from slimbench.core import Measurement, MeasurementRecord, Record
from slimbench.hardware_profiles import _timing, cpu
from slimbench.hardware_profiles.cpu import CPU

if TYPE_CHECKING:
    from pathlib import Path

# ---------------------------------------------------------------------------------------------------- the samples


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


def test_the_interval_is_the_same_every_time():
    """Reports are made again from the same samples."""
    samples = np.random.RandomState(0).rand(2, 30) + 1
    assert _timing.ratio(*samples) == _timing.ratio(*samples)


# ------------------------------------------------------------------------------------------------------ the rounds


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


# ------------------------------------------------------------------------------------------------------ the doubts


@pytest.mark.parametrize(
    ("busy", "threads", "clocks", "noise", "why"),
    [
        (0.0, 1, (None, None), 0.0, None),
        (1.29, 1, (2000.0, 2199.0), 0.10, None),
        (1.31, 1, (None, None), 0.0, "other work kept 1.3 of 2 cores busy"),
        (0.31, 2, (None, None), 0.0, "other work kept 0.3 of 2 cores busy"),
        (0.0, 1, (2000.0, 2201.0), 0.0, "the clock went from 2000 to 2201 MHz"),
        (0.0, 1, (2000.0, 1799.0), 0.0, "the clock went from 2000 to 1799 MHz"),
        (0.0, 1, (2000.0, None), 0.0, None),
        (0.0, 1, (None, None), 0.11, "dense against itself varies by 11 %"),
    ],
)
def test_what_disturbs(monkeypatch, busy, threads, clocks, noise, why):
    """Foreign load before it, a drifting clock, an unsteady A/A ratio; the limits themselves do not."""
    monkeypatch.setattr(cpu, "physical_cores", lambda: 2)
    found = cpu.disturbed(busy, threads, clocks, noise)
    assert found == why or found.startswith(why)


def test_busy_cores_are_cores(monkeypatch):
    """25 % of eight is two."""
    monkeypatch.setattr(cpu.psutil, "cpu_percent", lambda interval: 25.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cpu.busy_cores() == 2.0


def test_too_many_threads_are_unavailable(monkeypatch):
    """They would wait for each other."""
    monkeypatch.setattr(cpu, "physical_cores", lambda: 2)
    assert CPU(threads=2).unavailable() is None
    assert CPU(threads=3).unavailable() == "3 threads on 2 cores would wait for each other"


# ----------------------------------------------------------------------------------------------------- the profile


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, Path]:
    """A small network and a smaller one."""
    folder = tmp_path_factory.mktemp("networks")
    for name, depth in (("dense", 14), ("compressed", 8)):
        task = fakes.Stripes(f"resnet{depth}")
        artifact.save(task.build(), task.example(), folder / name)
    return {name: folder / name for name in ("dense", "compressed")}


def test_the_cpu_measures_stored_networks(stored):
    """End to end at level quick: every field is there and consistent with the others."""
    taken = CPU(batch=4).measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.threads, taken.batch, taken.level) == (30, 1, 4, "quick")
    assert taken.input_shape == (4, 1, 8, 8)
    assert 0 < taken.ratio_low <= taken.ratio <= taken.ratio_high
    assert 0 < taken.p50_ms <= taken.p90_ms <= taken.p99_ms
    assert taken.ratio == pytest.approx(taken.dense_p50_ms / taken.p50_ms)
    assert taken.iqr_ms >= 0
    assert taken.noise >= 0
    assert taken.busy_cores >= 0
    assert all(peak is None or peak > 0 for peak in (taken.peak_bytes, taken.dense_peak_bytes))
    assert taken.disturbed is None or isinstance(taken.disturbed, str)


class Told(torch.nn.Conv2d):
    """Says when it runs."""

    def __init__(self, name: str, ran: list[str]) -> None:
        super().__init__(3, 3, 3)
        self.name, self.ran = name, ran

    def forward(self, x):
        assert torch.is_inference_mode_enabled()
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert self.weight.is_contiguous(memory_format=torch.channels_last)
        self.ran.append(self.name)


@pytest.fixture
def told(stored, monkeypatch) -> list[str]:
    """What ran in a measurement whose networks only say that they run, on an idle machine."""
    ran: list[str] = []
    monkeypatch.setattr("slimbench.hardware_profiles._program.load_folded", lambda folder: Told(folder.name, ran))
    monkeypatch.setattr(artifact, "verify", lambda folder: {"input": [3, 4, 4]})
    monkeypatch.setattr(cpu, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(cpu, "clock_mhz", lambda: None)
    return ran


def test_samples_become_fields(stored, told, monkeypatch):
    """4 ms dense, 2 ms compressed: twice as fast; the noise is how far dense against its copy reaches from 1."""
    rounds = {}
    steady, unsteady = np.full(9, 4.0), np.array([4.0] * 7 + [2.0] * 2)

    def interleaved(runs, count):
        for run in (runs["dense"], runs["again"], runs["compressed"]):
            run()
        rounds["count"] = count
        return {"dense": steady, "again": unsteady, "compressed": np.full(9, 2.0)}

    monkeypatch.setattr(_timing, "warm_up", lambda run, at_least, at_most: None)
    monkeypatch.setattr(_timing, "interleaved", interleaved)
    for level, count in (("quick", 30), ("full", 200)):
        told.clear()
        taken = CPU().measure(stored["compressed"], stored["dense"], level)
        assert told[-3:] == ["dense", "dense", "compressed"]
        assert (rounds["count"], taken.samples) == (count, count)
        assert (taken.ratio, taken.ratio_low, taken.ratio_high) == (2.0, 2.0, 2.0)
        assert (taken.p50_ms, taken.dense_p50_ms) == (2.0, 4.0)
        assert taken.noise == 1.0
        assert taken.disturbed == "dense against itself varies by 100 %"


def test_dense_runs_against_a_copy_of_itself(stored, told, monkeypatch):
    """One network run twice a round would find its weights in the cache, and every other would look slower."""
    seen = {}

    def interleaved(runs, count):
        seen.update(runs)
        return {name: np.full(9, 1.0) for name in runs}

    monkeypatch.setattr(_timing, "interleaved", interleaved)
    CPU().measure(stored["compressed"], stored["dense"], "quick")
    assert len({id(run) for run in seen.values()}) == 3


@pytest.mark.parametrize(("level", "limits"), [("quick", (0.1, 1.0)), ("full", (2.0, 20.0))])
def test_both_networks_are_warmed_up(stored, told, monkeypatch, level, limits):
    """Each within the level's limits, before anything is timed; thirty rounds of three or two hundred follow."""
    warmed = []

    def warm_up(run, at_least, at_most):
        told.clear()
        run()
        warmed.append((*told, at_least, at_most))
        told.clear()

    monkeypatch.setattr(_timing, "warm_up", warm_up)
    taken = CPU().measure(stored["compressed"], stored["dense"], level)
    assert sorted(warmed) == [("compressed", *limits), ("dense", *limits), ("dense", *limits)]
    assert told.count("dense") == 2 * told.count("compressed") == 2 * taken.samples


# ------------------------------------------------------------------------------------------------------ the record


@dataclass(frozen=True)
class Fake:
    """Is disturbed as often as it is told to be."""

    disturbed: int = 0
    threads: int = 1

    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 7
    calls: ClassVar[list[tuple[str, str]]] = []

    def unavailable(self) -> str | None:
        return None

    def measure(self, compressed, reference, level) -> Measurement:
        self.calls.append((compressed.name, reference.name))
        fields = {field.name: 1.0 for field in dataclasses.fields(Measurement)}
        pairs = {"load_average": (0.0, 0.0), "clock_mhz": (None, None), "input_shape": (1, 2)}
        why = "a planted load" if len(self.calls) <= self.disturbed else None
        return Measurement(**fields | pairs | {"level": level, "disturbed": why, "p50_ms": float(len(self.calls))})


@pytest.fixture
def slept(monkeypatch, tmp_path) -> list[float]:
    """How long measuring rested; locks lie in a folder of the test's own."""
    naps: list[float] = []
    Fake.calls.clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(measure, "time", SimpleNamespace(sleep=naps.append))
    return naps


def record(cell_id: str) -> Record:
    return Record(cell_id, cell_id, {}, "ok", artifact=f"hash of {cell_id}")


def measured(store, profile: Fake, level: str) -> MeasurementRecord:
    """What ``measure`` returns, which must be what it stored."""
    done = measure.measure(record("small"), record("dense"), profile, level, store)
    assert store.measurement(done.id) == done
    assert (done.cell_id, done.reference_id) == ("small", "dense")
    assert set(Fake.calls) == {("small", "dense")}
    return done


def test_a_quiet_measurement_is_stored(store, slept):
    """At once, with the profile's fields and version, under the id that was announced."""
    done = measured(store, Fake(), "full")
    assert (done.status, done.reason, len(Fake.calls), slept) == ("ok", "", 1, [])
    assert done.measurement.disturbed is None
    assert (done.profile["version"], done.profile["threads"]) == (7, 1)
    assert done.id == measure.measurement_id(record("small"), record("dense"), Fake(), "full")
    assert done.finished
    assert done.environment["cpu"]


def test_a_disturbed_quick_measurement_is_kept_and_flagged(store, slept):
    """Indicative is indicative: no second try."""
    done = measured(store, Fake(9), "quick")
    assert (done.status, len(Fake.calls), slept) == ("ok", 1, [])
    assert done.measurement.disturbed == "a planted load"


def test_a_disturbed_full_measurement_is_refused(store, slept):
    """After three tries with rests between them, in words and without a number."""
    done = measured(store, Fake(9), "full")
    assert (done.status, done.reason, done.measurement) == ("failed", "refused: a planted load", None)
    assert (len(Fake.calls), slept) == (3, [20.0, 20.0])


def test_a_full_measurement_may_come_right(store, slept):
    """The quiet try is the one that is kept."""
    done = measured(store, Fake(2), "full")
    assert (done.status, done.reason, len(slept)) == ("ok", "", 2)
    assert (done.measurement.p50_ms, done.measurement.disturbed) == (3.0, None)


def test_ids_tell_measurements_apart():
    """By network, reference, profile and level."""
    small, dense = record("small"), record("dense")
    given = [(small, dense, Fake(), "quick"), (small, dense, Fake(), "full"), (small, dense, Fake(threads=2), "quick")]
    given += [(dense, dense, Fake(), "quick"), (small, small, Fake(), "quick")]
    assert len({measure.measurement_id(*each) for each in given}) == 5


def free(folder: Path, device: str) -> bool:
    """Whether another process could measure on ``device`` now."""
    (path,) = folder.glob(f"slimbench-*-{device}.lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which only an exclusive holder keeps out
        except BlockingIOError:
            return False
        return True


def test_one_measurement_at_a_time_on_a_device(slept, tmp_path):
    """A second holder waits, on the same device only; the lock goes with the block, also after an error."""
    with measure.exclusive("gpu"):
        pass
    with measure.exclusive("cpu"):
        assert not free(tmp_path, "cpu")
        assert free(tmp_path, "gpu")
    assert free(tmp_path, "cpu")
    with pytest.raises(ZeroDivisionError), measure.exclusive("cpu"):
        raise ZeroDivisionError
    assert free(tmp_path, "cpu")


def test_measuring_holds_the_device(store, slept, tmp_path, monkeypatch):
    """While the profile runs, and while it rests between tries."""
    seen = []
    monkeypatch.setattr(measure, "time", SimpleNamespace(sleep=lambda seconds: seen.append(free(tmp_path, "fake"))))
    measured(store, Fake(1), "full")
    assert seen == [False]
