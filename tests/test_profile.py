"""Profiles: what disturbs them, what a measurement of stored networks comes to, and other runtimes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slimbench import artifact, environment
from slimbench.core import UserError
from slimbench.hardware_profiles import _host, _protocol, _timing
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.executorch_cpu import ExecuTorchCPU
from slimbench.hardware_profiles.openvino import OpenVINO
from zoo import relative

# ---------------------------------------------------------------------------------------------------------- the doubts


@pytest.mark.parametrize(
    ("busy", "spare", "clocks", "why"),
    [
        (0.0, 1, (None, None), None),
        (1.29, 1, (2000.0, 2199.0), None),
        (1.31, 1, (None, None), "other work kept 1.3 of 2 cores busy"),
        (0.31, 0, (None, None), "other work kept 0.3 of 2 cores busy"),
        (0.0, 1, (2000.0, 2201.0), "the clock went from 2000 to 2201 MHz"),
        (0.0, 1, (2000.0, 1799.0), "the clock went from 2000 to 1799 MHz"),
        (0.0, 1, (2000.0, None), None),
    ],
)
def test_what_disturbs(busy, spare, clocks, why):
    """Foreign load first, then a drifting clock; the limits themselves do not."""
    assert _host.disturbed(busy, spare, 2, clocks) == why


@pytest.mark.parametrize(("left", "why"), [(8, None), (1, "other work kept 0.9 of 8 cores busy")])
def test_what_is_pinned_shares_no_core(monkeypatch, left, why):
    """In level full a process keeps to its own cores, and all others have to be quiet; it tells how many there are."""
    monkeypatch.setattr(_host, "busy_cores", lambda: 0.9)
    monkeypatch.setattr(_host, "physical_cores", lambda: 8)
    monkeypatch.setattr(_host, "clock_mhz", lambda: None)
    watch = CPU().watch()
    monkeypatch.setattr(_host, "physical_cores", lambda: left)
    watch.begin()
    assert watch.end().disturbed == why


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
    monkeypatch.setattr(environment, "CORES", tmp_path)
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


# --------------------------------------------------------------------------------------------------------- the profile


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
    """Five, each with an order of rounds of its own, and one a network for its memory; quick: one, all forked."""
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
    assert asked == [("_peak_here", None, False)] * 2 + [("session", 0, False)]


def test_a_gpu_is_measured_where_it_may_have_been_used(stored, told, monkeypatch):
    """What is forked from a process that has used a GPU has none."""
    asked = []
    monkeypatch.setattr(_protocol, "apart", lambda function, *args, anew: asked.append(function) or function(*args))
    monkeypatch.setattr(CPU, "device", "cuda")
    CPU().measure(stored["compressed"], stored["dense"], "quick")
    assert _protocol.session not in asked


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


# ------------------------------------------------------------------------------------------------------ other runtimes


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
