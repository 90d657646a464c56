"""Timing without a clock: what is made of samples, when warm-up ends, and what a disturbed measurement comes to."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from slimbench import artifact, devices, measure, worker
from slimbench.core import Measurement, MeasurementRecord, Record, UserError
from slimbench.ending import Ending
from slimbench.fresh import apart
from slimbench.hardware_profiles import _host, _protocol, _timing
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.executorch_cpu import ExecuTorchCPU
from slimbench.hardware_profiles.openvino import OpenVINO
from zoo import relative

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
    ("busy", "threads", "clocks", "why"),
    [
        (0.0, 1, (None, None), None),
        (1.29, 1, (2000.0, 2199.0), None),
        (1.31, 1, (None, None), "other work kept 1.3 of 2 cores busy"),
        (0.31, 2, (None, None), "other work kept 0.3 of 2 cores busy"),
        (0.0, 1, (2000.0, 2201.0), "the clock went from 2000 to 2201 MHz"),
        (0.0, 1, (2000.0, 1799.0), "the clock went from 2000 to 1799 MHz"),
        (0.0, 1, (2000.0, None), None),
    ],
)
def test_what_disturbs(monkeypatch, busy, threads, clocks, why):
    """Foreign load first, then a drifting clock; the limits themselves do not."""
    monkeypatch.setattr(_host, "physical_cores", lambda: 2)
    assert _host.disturbed(busy, threads, clocks) == why


@pytest.mark.parametrize(
    ("noise", "drift", "why"),
    [
        (0.10, 0.10, None),
        (0.11, 0.11, "dense against itself varies by 11 %"),
        (0.10, 0.11, "dense drifted by 11 % within a process"),
    ],
)
def test_samples_that_are_unsteady(noise, drift, why):
    """An A/A ratio, then a drift."""
    assert _protocol.unsteady(noise, drift) == why


def test_busy_cores_are_cores(monkeypatch):
    """25 % of eight is two."""
    monkeypatch.setattr(_host.psutil, "cpu_percent", lambda interval: 25.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert _host.busy_cores() == 2.0


def test_too_many_threads_are_unavailable(monkeypatch):
    """They would wait for each other."""
    monkeypatch.setattr(_host, "physical_cores", lambda: 2)
    assert CPU(threads=2).unavailable() is None
    assert CPU(threads=3).unavailable() == "3 threads on 2 cores would wait for each other"
    assert (CPU(threads="all").unavailable(), CPU(threads="all").threads_used) == (None, 2)


@pytest.mark.parametrize("field", [{"threads": 0}, {"batch": 0}, {"samples": 9}])
def test_impossible_profiles_are_refused(field):
    """In words."""
    with pytest.raises(UserError, match="is impossible: give at least"):
        CPU(**field)


def test_pinned_threads_have_a_core_each(monkeypatch, tmp_path):
    """The last cores, and of each the first of its hyper-threads; where nothing is known, every processor is a core."""
    monkeypatch.setattr(_host, "_CORES", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4})
    given = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: given.append(cpus))
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(siblings)
    for threads in (1, 2, 3):
        _host.pin(threads)
    assert given == [[4], [1, 4], [0, 1, 4]]


def test_energy_of_all_packages(monkeypatch, tmp_path):
    """Their microjoules in joules, not those of their parts; None where there are none, or not for this user."""
    monkeypatch.setattr(_host, "_METERS", tmp_path)
    assert CPU().joules() is None
    for name, micro in (("intel-rapl:0", 2_500_000), ("intel-rapl:1", 500_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{micro}\n")
    assert CPU().joules() == 3.0
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    assert CPU().joules() is None


@pytest.mark.parametrize(
    ("counter", "expected"), [((2.0, 6.0), 1000.0), ((None, 6.0), None), ((2.0, None), None), ((6.0, 2.0), None)]
)
def test_energy_of_one_run(counter, expected):
    """4 J in a second, four runs of 250 ms; nothing where the counter is absent or began anew."""
    reads = iter(counter)
    device = SimpleNamespace(joules=lambda: next(reads), times=lambda runs: [250.0])
    assert _protocol.energy_of(device, lambda: None) == expected


# ----------------------------------------------------------------------------------------------------- the profile


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
    monkeypatch.setattr(_host, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(_host.Beside, "cores", lambda self: 0.0)
    monkeypatch.setattr(_host, "clock_mhz", lambda: None)
    monkeypatch.setattr(_host, "pin", lambda threads: ran.append(f"pinned {threads}"))
    monkeypatch.setattr(_protocol, "apart", lambda function, *args, anew: function(*args))
    return ran


def test_samples_become_fields(stored, told, monkeypatch):
    """4 ms dense, 2 ms compressed: twice as fast; the noise is how far dense against its copy reaches from 1."""
    rounds = {}
    steady, unsteady = np.full(9, 4.0), np.array([4.0] * 7 + [2.0] * 2)

    def interleaved(runs, count, seed, clock):
        for run in (runs["dense"], runs["again"], runs["compressed"]):
            run()
        rounds["count"] = count
        return {"dense": steady, "again": unsteady, "compressed": np.full(9, 2.0)}

    monkeypatch.setattr(_timing, "warm_up", lambda *asked: None)
    monkeypatch.setattr(_timing, "interleaved", interleaved)
    for level, count, processes in (("quick", 30, 1), ("full", 40, 5)):
        told.clear()
        taken = CPU().measure(stored["compressed"], stored["dense"], level)
        assert told[-3:] == ["dense", "dense", "compressed"]
        assert told.count("pinned 1") == (processes if level == "full" else 0)
        assert rounds["count"] == count
        assert (taken.samples, taken.processes) == (9 * processes, processes)
        assert (taken.ratio, taken.ratio_low, taken.ratio_high) == (2.0, 2.0, 2.0)
        assert (taken.p50_ms, taken.dense_p50_ms, taken.images_per_s) == (2.0, 4.0, 16_000.0)
        assert taken.noise == 1.0 if level == "quick" else 0.0 < taken.noise < 1.0
        assert taken.disturbed.startswith("dense against itself varies by ")
        assert (
            taken.artifact_bytes == (stored["compressed"] / "program.pt2").stat().st_size < taken.dense_artifact_bytes
        )


def test_a_disturbed_process_is_the_last(stored, told, monkeypatch):
    """There is no use in the other four: the measurement is refused, and tried again later."""
    loads = iter([0.0, 0.0, 2.0])
    monkeypatch.setattr(_host, "busy_cores", lambda: next(loads))
    monkeypatch.setattr(_host, "physical_cores", lambda: 2)
    monkeypatch.setattr(_timing, "warm_up", lambda *asked: None)
    taken = CPU().measure(stored["compressed"], stored["dense"], "full")
    assert (taken.processes, taken.samples) == (3, 120)
    assert taken.disturbed == "other work kept 2.0 of 2 cores busy"


def test_a_full_measurement_takes_new_processes(stored, told, monkeypatch):
    """Five, each with an order of rounds of its own, and one for each network's memory; quick: these two, forked."""
    asked = []

    def aside(function, *args, anew):
        if function.__name__ == "translate":
            return function(*args)
        asked.append((function.__name__, args[-1] if function is _protocol.session else None, anew))
        return function(*args)

    monkeypatch.setattr(_protocol, "apart", aside)
    monkeypatch.setattr(_timing, "warm_up", lambda *asked: None)
    monkeypatch.setattr(_protocol, "unsteady", lambda noise, drift: None)
    CPU().measure(stored["compressed"], stored["dense"], "full")
    assert asked == [("_peak_here", None, True)] * 2 + [("session", seed, True) for seed in range(5)]
    asked.clear()
    CPU().measure(stored["compressed"], stored["dense"], "quick")
    assert asked == [("_peak_here", None, False)] * 2


def test_dense_runs_against_a_copy_of_itself(stored, told, monkeypatch):
    """One network run twice a round would find its weights in the cache, and every other would look slower."""
    seen = {}

    def interleaved(runs, count, seed, clock):
        seen.update(runs)
        return {name: np.full(9, 1.0) for name in runs}

    monkeypatch.setattr(_timing, "interleaved", interleaved)
    CPU().measure(stored["compressed"], stored["dense"], "quick")
    assert len({id(run) for run in seen.values()}) == 3


@pytest.mark.parametrize(("level", "limits"), [("quick", (0.1, 1.0)), ("full", (2.0, 20.0))])
def test_both_networks_are_warmed_up(stored, told, monkeypatch, level, limits):
    """Each within the level's limits, before anything is timed; thirty rounds of three or two hundred follow."""
    warmed = []

    def warm_up(run, at_least, at_most, clock):
        told.clear()
        run()
        warmed.append((*told, at_least, at_most))
        told.clear()

    monkeypatch.setattr(_timing, "warm_up", warm_up)
    taken = CPU().measure(stored["compressed"], stored["dense"], level)
    assert sorted(set(warmed)) == [("compressed", *limits), ("dense", *limits)]
    assert len(warmed) == 3 * taken.processes
    assert told.count("dense") == 2 * told.count("compressed") == 2 * taken.samples / taken.processes


# ------------------------------------------------------------------------------------------------- other runtimes


@pytest.mark.skipif(OpenVINO().unavailable() is not None, reason="needs the extra openvino")
def test_openvino_computes_what_the_stored_network_does(stored, tmp_path, monkeypatch):
    """In float32, for the batch that is timed; its file holds the folded network."""
    import openvino

    monkeypatch.setattr(torch, "randn", lambda shape, generator: torch.ones(shape))
    profile = OpenVINO(batch=4)
    with profile.ready(alone=False):
        file = profile.translate(stored["dense"], tmp_path)
        run = profile.load(file)
    with torch.inference_mode():
        expected = artifact.load(stored["dense"]).module(check_guards=False)(torch.ones(4, 1, 8, 8))
    found = torch.from_numpy(next(iter(run().values())))
    assert relative(found, expected) < 1e-5
    types = {node.get_type_name() for node in openvino.Core().read_model(file).get_ordered_ops()}
    assert "BatchNormInference" not in types


@pytest.mark.skipif(OpenVINO().unavailable() is not None, reason="needs the extra openvino")
def test_openvino_measures_stored_networks(stored):
    """End to end at level quick: by the same protocol."""
    taken = OpenVINO(batch=4).measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch, taken.input_shape) == (30, 4, (4, 1, 8, 8))
    assert taken.device["runtime"].startswith("OpenVINO 20")
    assert 0 < taken.artifact_bytes < taken.dense_artifact_bytes


def test_openvino_says_how_to_get_it(monkeypatch):
    """Where it is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert OpenVINO().unavailable() == "OpenVINO is not installed: pip install 'slimbench[openvino]'"


@pytest.mark.skipif(ExecuTorchCPU().unavailable() is not None, reason="needs the extra executorch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own imports
def test_executorch_computes_what_the_stored_network_does(stored, tmp_path, monkeypatch):
    """In float32, for the batch that is timed, all of it by XNNPACK, and on as many threads."""
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count

    profile = ExecuTorchCPU(batch=4)
    with profile.ready(alone=False):
        file = profile.translate(stored["dense"], tmp_path)
        monkeypatch.setattr(torch, "randn", lambda shape, generator: torch.ones(shape))
        run = profile.load(file)
        assert _threadpool_get_thread_count() == 1
    with torch.inference_mode():
        expected = artifact.load(stored["dense"]).module(check_guards=False)(torch.ones(4, 1, 8, 8))
    assert relative(run()[0], expected) < 1e-5


@pytest.mark.skipif(ExecuTorchCPU().unavailable() is not None, reason="needs the extra executorch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own imports
def test_executorch_measures_stored_networks(stored, capfd):
    """End to end at level quick: by the same protocol, and without what its libraries print."""
    taken = ExecuTorchCPU(batch=4).measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch, taken.input_shape) == (30, 4, (4, 1, 8, 8))
    assert taken.device["runtime"].startswith("ExecuTorch 1.")
    assert 0 < taken.artifact_bytes < taken.dense_artifact_bytes
    assert "cpuinfo" not in capfd.readouterr().err


@pytest.mark.skipif(ExecuTorchCPU().unavailable() is not None, reason="needs the extra executorch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_executorch_says_why_it_cannot_take_a_network(stored, tmp_path, monkeypatch):
    """The first cause, in one sentence."""

    def fail(*args, **kwargs):
        try:
            raise ValueError("no such operator\nat all")
        except ValueError as error:
            raise RuntimeError("a pass failed") from error

    monkeypatch.setattr("executorch.exir.to_edge_transform_and_lower", fail)
    with pytest.raises(UserError, match=r"ExecuTorch cannot take this network at \[4, 1, 8, 8\]: no such operator$"):
        ExecuTorchCPU(batch=4).translate(stored["dense"], tmp_path)


def test_executorch_says_how_to_get_it(monkeypatch):
    """Where it is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ExecuTorchCPU().unavailable() == "ExecuTorch is not installed: pip install 'slimbench[executorch]'"


# ------------------------------------------------------------------------------------------------------ the record


@dataclass(frozen=True)
class Fake:
    """Is disturbed as often as it is told to be."""

    disturbed: int = 0
    threads: int = 1

    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 7
    device: ClassVar[str] = "fake"
    calls: ClassVar[list[tuple[str, str]]] = []

    def unavailable(self) -> str | None:
        return None

    def measure(self, compressed, reference, level) -> Measurement:
        self.calls.append((compressed.name, reference.name))
        fields = {field.name: 1.0 for field in dataclasses.fields(Measurement)}
        pairs = {"load_average": (0.0, 0.0), "clock_mhz": (None, None), "input_shape": (1, 2), "device": {}}
        why = "a planted load" if len(self.calls) <= self.disturbed else None
        return Measurement(**fields | pairs | {"level": level, "disturbed": why, "p50_ms": float(len(self.calls))})


@pytest.fixture
def slept(monkeypatch, tmp_path) -> list[float]:
    """How long measuring rested; locks lie in a folder of the test's own."""
    naps: list[float] = []
    Fake.calls.clear()
    monkeypatch.setenv("BENCH_LOCKS", str(tmp_path))
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


def free(folder: Path, device: str, mode: int = fcntl.LOCK_SH) -> bool:
    """Whether another process could train (or measure: LOCK_EX) on ``device`` now."""
    for part in ("gate", "use"):
        (path,) = folder.glob(f"slimbench-*-{device}.{part}.lock")
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def test_one_measurement_at_a_time_on_a_device(slept, tmp_path):
    """A second holder waits, on the same device only; the lock goes with the block, also after an error."""
    with devices.alone("gpu"):
        pass
    with devices.alone("cpu"):
        assert not free(tmp_path, "cpu")
        assert free(tmp_path, "gpu")
    assert free(tmp_path, "cpu")
    with pytest.raises(ZeroDivisionError), devices.alone("cpu"):
        raise ZeroDivisionError
    assert free(tmp_path, "cpu")


def test_training_shares_the_device_and_measuring_does_not(slept, tmp_path):
    """Cells train beside each other; none beside a measurement."""
    with devices.shared("cpu"), devices.shared("cpu"):
        assert free(tmp_path, "cpu")
        assert not free(tmp_path, "cpu", fcntl.LOCK_EX)
    assert free(tmp_path, "cpu", fcntl.LOCK_EX)


def test_waiting_is_said_and_ends(slept, tmp_path, monkeypatch):
    """A cell waits for the measurement that waits for a cell: the gate is shut until both are done."""
    said, steps = [], iter(["still", "ends"])
    with contextlib.ExitStack() as cell, monkeypatch.context() as patch:
        cell.enter_context(devices.shared("cpu"))

        def sleep(seconds):
            said.append(next(steps))
            assert not free(tmp_path, "cpu"), "later cells wait"
            if said[-1] == "ends":
                cell.close()

        patch.setattr(devices, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
        with devices.alone("cpu", say=said.append) as is_alone:
            assert is_alone
    assert said == ["waits", "still", "ends", "begins"]


def test_a_quick_measurement_waits_with_patience(slept, store, tmp_path, monkeypatch):
    """After half a minute it measures beside the other run's training, and says so; a full one would wait on."""
    now = iter(range(0, 1000, 20))
    naps = []
    monkeypatch.setattr(devices, "time", SimpleNamespace(sleep=naps.append, monotonic=lambda: next(now)))
    with devices.shared("fake"):
        naps.clear()
        assert measured(store, Fake(), "quick").measurement.disturbed == "another run trained on the device"
        assert len(naps) == 1
    assert measure._PATIENCE_S["full"] == float("inf")


def test_measuring_holds_the_device(store, slept, tmp_path, monkeypatch):
    """While the profile runs, and while it rests between tries."""
    seen = []
    monkeypatch.setattr(measure, "time", SimpleNamespace(sleep=lambda seconds: seen.append(free(tmp_path, "fake"))))
    measured(store, Fake(1), "full")
    assert seen == [False]


@pytest.mark.parametrize(("do", "holds"), [("compress", True), ("measure", False)])
def test_a_cell_holds_its_device_while_it_trains(store, slept, tmp_path, monkeypatch, do, holds):
    """So that another run's measurement waits; the runner learns when the time limit begins to count."""
    seen, sent = [], []
    for name in ("compress", "measure"):
        monkeypatch.setattr(worker, name, lambda *a, **k: seen.append(free(tmp_path, "cpu", fcntl.LOCK_EX)))
    with devices.alone("cpu"):
        pass
    cell = SimpleNamespace(settings=SimpleNamespace(device="cpu"))
    job = {"do": do, "store": store.root, "cell": cell, "record": None, "reference": None, "profile": None, "level": ""}
    worker.run(job, SimpleNamespace(send=sent.append), Ending())
    assert seen == [not holds]
    assert sent == ([("begins", None)] if holds else [])


def test_profiles_of_one_processor_share_its_lock():
    """Two runtimes on the same cores would disturb each other; a user's profile that does not say is by itself."""
    assert measure.device_of(CPU()) == "cpu"
    assert measure.device_of(SimpleNamespace(name="board")) == "board"


# ----------------------------------------------------------------------------------------------- processes apart


def answers(value):
    return value, os.getpid()


def raises(kind):
    raise kind("in words")


def dies():
    os._exit(3)


@pytest.mark.parametrize("anew", [True, False])
def test_an_answer_from_another_process(anew):
    """Its value, and not from here."""
    value, pid = apart(answers, 7, anew=anew)
    assert (value, pid != os.getpid()) == (7, True)


def test_what_goes_wrong_apart_is_told_here():
    """Bad input stays bad input; anything else is an error in words."""
    with pytest.raises(UserError, match=r"^in words$"):
        apart(raises, UserError, anew=False)
    with pytest.raises(RuntimeError, match=r"^ValueError: in words$"):
        apart(raises, ValueError, anew=False)
    with pytest.raises(RuntimeError, match="while it measured, its process ended with exit code 3"):
        apart(dies, anew=False)


def waits(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.parametrize("anew", [True, False])
def test_a_process_apart_ends_with_the_one_that_asked(tmp_path, anew):
    """Nothing goes on measuring for nobody."""
    file = tmp_path / "pid"
    asker = multiprocessing.get_context("fork").Process(target=apart, args=(waits, file), kwargs={"anew": anew})
    asker.start()
    while not (file.exists() and (pid := file.read_text())):
        time.sleep(0.05)
    asker.kill()
    asker.join()
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.05)
