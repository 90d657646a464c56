"""What a board runs, and what is made of its answers: the agent's samples, failures as sentences, records."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from boards import ANSWER, MACHINE, REQUEST, failure, planted, session
from slimbench import discover, export, measure
from slimbench.core import DoesNotFitError, Record, UserError
from slimbench.hardware_profiles import _agent, _onnx, _timing, onnx_cpu
from slimbench.hardware_profiles.edge_container import EdgeContainer
from slimbench.hardware_profiles.edge_remote import EdgeRemote
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU

if TYPE_CHECKING:
    from pathlib import Path

# ------------------------------------------------------------------------------------------------------- the agent

SOURCE = ast.parse(_onnx.AGENT.read_text(), feature_version=(3, 8))


def test_the_agent_is_one_file_for_old_pythons():
    """Its imports at the top are the standard library's, the others numpy and onnxruntime; 3.8 can read it."""
    names = {alias.name for node in SOURCE.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.partition(".")[0] for node in SOURCE.body if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)
    inner = {alias.name for node in ast.walk(SOURCE) if isinstance(node, ast.Import) for alias in node.names}
    assert inner - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    assert not any(isinstance(node, ast.Match) for node in ast.walk(SOURCE))


@pytest.mark.parametrize("seed", [0, 3])
def test_the_agent_takes_rounds_in_the_orders_of_timing(seed):
    """One protocol, two files."""

    def orders(module) -> list[str]:
        ran: list[str] = []
        module.interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, 20, seed)
        return ran

    assert orders(_agent) == orders(_timing)


@pytest.mark.parametrize(
    "steps", [[1], [3] * 12 + [1], [1.003**i for i in range(100)]], ids=["stable", "settles", "never"]
)
def test_the_agent_warms_up_as_timing_does(monkeypatch, steps):
    """As often, by a clock that only moves with the work."""
    counts = []
    for module in (_agent, _timing):
        now, count = [100.0], [0]
        clock = SimpleNamespace(
            perf_counter=lambda now=now: now[0], perf_counter_ns=lambda now=now: round(now[0] * 1e9)
        )
        monkeypatch.setattr(module, "time", clock)

        def run(now=now, count=count) -> None:
            now[0] += steps[min(count[0], len(steps) - 1)] / 64
            count[0] += 1

        module.warm_up(run, 0.25, 1.5)
        counts.append(count[0])
    assert counts[0] == counts[1] > 15


def test_the_agent_keeps_samples_with_their_run_and_rests_the_collector(monkeypatch):
    """In ms, one a round."""
    import gc

    now, seen = [0.0], []
    monkeypatch.setattr(_agent, "time", SimpleNamespace(perf_counter_ns=lambda: round(now[0] * 1e9)))

    def work(seconds):
        seen.append(gc.isenabled())
        now[0] += seconds

    gc.enable()
    samples = _agent.interleaved({"a": lambda: work(0.125), "b": lambda: work(0.25)}, 4)
    assert samples == {"a": [125.0] * 4, "b": [250.0] * 4}
    assert gc.isenabled()
    assert not any(seen)


def files(monkeypatch, **contents: str) -> None:
    """What the agent reads of the system, by the end of the path; nothing else is there."""
    ends = {name.replace("__", "/"): text for name, text in contents.items()}
    monkeypatch.setattr(_agent, "_read", lambda path: next((t for e, t in ends.items() if str(path).endswith(e)), ""))


def test_the_agent_knows_a_board(monkeypatch):
    """By its device tree, and an Arm's /proc/cpuinfo."""
    files(
        monkeypatch,
        **{"device-tree__model": "Board 3\0", "proc__cpuinfo": "processor : 0\nHardware\t: Chip 7\n"},
        proc__meminfo="MemTotal:        1020304 kB\n",
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    machine = _agent.machine()
    assert (machine["cpu"], machine["cores"], machine["memory_gib"]) == ("Board 3, Chip 7", 4, 1)
    assert machine["versions"]["onnxruntime"] == __import__("onnxruntime").__version__
    assert _agent._version("no-such-package") == "absent"
    assert machine["cpu_design"] == ""
    files(monkeypatch, proc__cpuinfo="model name\t: EPYC\nCPU part\t: 0xd0b\nCPU implementer\t: 0x41\n")
    assert _agent.machine()["cpu_design"] == "CPU implementer 0x41, CPU part 0xd0b"


def test_the_agent_counts_cores_not_threads(monkeypatch):
    """Two of four processors share a core each."""
    files(monkeypatch, cpu0__topology__thread_siblings_list="0,2", cpu1__topology__thread_siblings_list="1,3")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert _agent.cores() == 2
    files(monkeypatch, cpu0__topology__thread_siblings_list="0-1", cpu1__topology__thread_siblings_list="0-1")
    assert _agent.cores() == 1


def test_the_agent_reads_clocks(monkeypatch):
    """x86 lists them in /proc/cpuinfo; silence is None."""
    files(monkeypatch, proc__cpuinfo="cpu MHz\t\t: 2000.0\ncpu MHz\t\t: 3000.0\n")
    assert _agent.clock_mhz() == 2500.0
    files(monkeypatch)
    assert _agent.clock_mhz() is None


def test_the_agent_counts_busy_cores(monkeypatch):
    """All but idle and waiting time, in cores: 2 s of user and 1 s of system in a quarter of a second are twelve."""
    hertz = os.sysconf("SC_CLK_TCK")
    lines = iter([f"cpu  {u * hertz} 0 {s * hertz} {i} {i} 0 0 0 5 5\n" for u, s, i in ((5, 5, 7), (7, 6, 900))])
    monkeypatch.setattr(_agent, "_read", lambda path: next(lines))
    monkeypatch.setattr(_agent, "time", SimpleNamespace(sleep=lambda seconds: None))
    assert _agent.busy_cores() == 12.0


def test_the_package_is_four_files(packed):
    """Nothing else travels."""
    folder, request = packed
    assert sorted(file.name for file in folder.glob("[!.]*")) == [
        "agent.py",
        "compressed.onnx",
        "dense.onnx",
        "request.json",
    ]
    assert request["shape"] == [4, 1, 8, 8]
    sizes = [(folder / f"{name}.onnx").stat().st_size for name in ("dense", "compressed")]
    assert sizes[0] > sizes[1] > 0


def agent(folder: Path, **environ: str) -> dict:
    """What the folder's agent answers, by a Python that knows nothing of this project."""
    command = [sys.executable, "-B", folder / "agent.py", folder]
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environ
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    return _onnx.answer(done.stdout)


def test_the_agent_measures_in_processes_of_its_own(packed):
    """Two peaks and two sessions of five rounds."""
    folder, request = packed
    found = agent(folder)
    assert found["failed"] == []
    assert set(found["session"]) == {"0", "1"}
    for one in found["session"].values():
        assert {name: len(values) for name, values in one["samples"].items()} == dict.fromkeys(
            ("dense", "again", "compressed"), 5
        )
        assert all(value > 0 for values in one["samples"].values() for value in values)
    assert found["peak"]["dense"] is None or found["peak"]["dense"] > 0
    found["machine"]["cores"] = 99  # that other work keeps some busy is no matter here
    taken = _onnx.measurement(found, request, "full")
    assert (taken.samples, taken.batch, taken.threads, taken.input_shape) == (10, 4, 1, (4, 1, 8, 8))
    assert 0 < taken.ratio_low <= taken.ratio <= taken.ratio_high


def test_a_process_that_fails_is_part_of_the_agents_answer(packed, tmp_path):
    """Both networks are tried, no session is; the last line of what it said is kept."""
    folder = shutil.copytree(packed[0], tmp_path / "broken")
    (folder / "dense.onnx").write_bytes(b"no network")
    found = agent(folder)
    (failed,) = found["failed"]
    assert (failed["what"], failed["which"], failed["code"]) == ("peak", "dense", 1)
    assert "dense.onnx" in failed["said"]
    assert set(found["peak"]) == {"compressed"}
    assert found["session"] == {}
    with pytest.raises(UserError, match=r"onnxruntime failed on Mars \(.*dense.onnx.*\): run `bench export`"):
        _onnx.refuse(found["failed"], "on Mars", "Mars")


def test_a_process_that_is_killed_is_part_of_the_answer(packed, tmp_path):
    """As a system does that runs out of memory."""
    folder = shutil.copytree(packed[0], tmp_path / "killed")
    library = tmp_path / "library"
    library.mkdir()
    (library / "onnxruntime.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    found = agent(folder, PYTHONPATH=str(library))
    assert [one["code"] for one in found["failed"]] == [-9, -9]
    with pytest.raises(DoesNotFitError, match="neither the dense nor the compressed network fits in 1 MiB"):
        _onnx.refuse(found["failed"], "there", "1 MiB")


def test_the_agent_ends_when_nobody_listens_any_more(packed, monkeypatch):
    """Whoever started it was killed: it does not go on to time networks."""
    parents = iter([7, 7, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    found = _agent.measure(str(packed[0]))
    assert (set(found["peak"]), found["session"], found["failed"]) == ({"dense"}, {}, [])


# ------------------------------------------------------------------------------------------- what comes of answers


@pytest.mark.parametrize(
    ("failed", "kind", "why"),
    [
        ([failure(code=-9)], DoesNotFitError, "the dense network does not fit in R, the compressed one does"),
        (
            [failure(which="compressed", code=-9)],
            DoesNotFitError,
            "the compressed network does not fit in R, the dense",
        ),
        ([failure("session", "0", -9)], DoesNotFitError, "the networks fit in R one at a time, but not side by side"),
        ([failure(said="RuntimeError: std::bad_alloc")], DoesNotFitError, "the dense network does not fit in R"),
        ([failure(said="MemoryError")], DoesNotFitError, "the dense network does not fit in R"),
        (
            [failure(said="ModuleNotFoundError: No module named 'onnxruntime'")],
            UserError,
            "onnxruntime is missing W: `py",
        ),
        ([failure(said="No module named 'numpy'"), failure(code=-9)], UserError, "numpy is missing W: `python3 -m pip"),
        ([failure(code=-11)], UserError, r"onnxruntime failed W \(signal 11\): run `bench export` and try the file"),
        ([failure(code=3)], UserError, r"onnxruntime failed W \(exit 3\)"),
    ],
)
def test_failures_become_one_sentence(failed, kind, why):
    """What is wrong and what to do; too little memory is a result."""
    with pytest.raises(UserError, match=why) as error:
        _onnx.refuse(failed, "W", "R")
    assert type(error.value) is kind


def test_nothing_failed_is_nothing_raised():
    """An empty list."""
    _onnx.refuse([], "W", "R")


def test_samples_become_fields():
    """4 ms dense, 2 ms compressed: twice as fast, over nine rounds of one process."""
    taken = _onnx.measurement(ANSWER, REQUEST, "quick")
    assert (taken.ratio, taken.ratio_low, taken.ratio_high, taken.noise) == (2.0, 2.0, 2.0, 0.0)
    assert (taken.p50_ms, taken.dense_p50_ms, taken.samples) == (2.0, 4.0, 9)
    assert (taken.batch, taken.threads, taken.input_shape) == (8, 2, (8, 3, 4, 4))
    assert (taken.peak_bytes, taken.dense_peak_bytes) == (100, 200)
    assert (taken.artifact_bytes, taken.dense_artifact_bytes) == (10, 20)
    assert (taken.processes, taken.device) == (1, {"runtime": "onnxruntime 1.20.0"})
    assert (taken.busy_cores, taken.load_average, taken.clock_mhz) == (0.5, (1.0, 2.0), (None, None))
    assert taken.disturbed is None


def test_processes_are_resampled_too():
    """Ratios 2 and 4 of two processes: the mean of medians, and an interval that reaches both."""
    found = ANSWER | {"session": {"0": session(), "1": session(dense=8.0, again=8.0)}}
    taken = _onnx.measurement(found, REQUEST, "full")
    assert (taken.dense_p50_ms, taken.ratio) == (6.0, 3.0)
    assert (taken.ratio_low, taken.ratio_high) == (2.0, 4.0)
    assert (taken.samples, taken.processes) == (18, 2)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"busy_cores": 2.29}, None),
        ({"busy_cores": 2.31}, "other work kept 2.3 of 4 cores busy"),
        ({"clock_mhz": [1500.0, 1649.0]}, None),
        ({"clock_mhz": [1500.0, 1000.0]}, "the clock went from 1500 to 1000 MHz"),
        ({"again": 5.0}, "dense against itself varies by 20 %"),
    ],
)
def test_what_disturbs(more, why):
    """Two threads on the board's four cores; a process that is doubted is the last that counts."""
    found = ANSWER | {"session": {"0": session(**more)}}
    assert _onnx.measurement(found, REQUEST, "quick").disturbed == why
    if "again" not in more:
        found["session"]["1"] = session()
        taken = _onnx.measurement(found, REQUEST, "full")
        assert (taken.disturbed, taken.processes) == (why, 1 if why else 2)


def test_an_answer_is_the_last_line():
    """Whatever a login script printed before; half an answer is none."""
    assert _onnx.answer(f"Welcome!\n{json.dumps(ANSWER)}\n") == ANSWER
    for text in ("", "Welcome!\n", json.dumps(ANSWER)[:-5], "[1]\n", "{}\n"):
        assert _onnx.answer(text) is None


def test_levels_ask_for_the_protocol(stored, tmp_path, monkeypatch):
    """quick: one process; full: five, at least a hundred samples together, two seconds of warm-up."""
    monkeypatch.setattr(_onnx, "exported", lambda folder, target: target.write_bytes(b""))
    quick, full = (_onnx.package(*stored.values(), tmp_path, level, threads=1, batch=1) for level in ("quick", "full"))
    assert (quick["sessions"], quick["rounds"], quick["warm_s"]) == (1, 30, (0.1, 1.0))
    assert full["sessions"] >= 5
    assert full["sessions"] * full["rounds"] >= 100
    assert full["warm_s"][0] >= 2.0
    assert json.loads((tmp_path / "request.json").read_text())["sessions"] == full["sessions"]


def test_both_networks_are_exported_for_each_measurement(stored, tmp_path, monkeypatch):
    """By one exporter; what an earlier version left beside an artifact is not read, and nothing is left there."""
    monkeypatch.setattr(_onnx, "exported", lambda folder, target: target.write_text(f"{folder.name}, exported now"))
    dense = shutil.copytree(stored["dense"], tmp_path / "dense")
    (dense / "measured.onnx").write_bytes(b"of another network, or cut off")
    before = {file.name for file in dense.iterdir()}
    for _ in range(2):
        _onnx.package(stored["compressed"], dense, tmp_path, "quick", threads=1, batch=1)
        for name in ("compressed", "dense"):
            assert (tmp_path / f"{name}.onnx").read_text() == f"{name}, exported now"
    assert {file.name for file in dense.iterdir()} == before


# ------------------------------------------------------------------------------------------------- quick exporting


def test_the_quick_exporter_computes_the_same(stored, tmp_path, monkeypatch):
    """Without the slow one."""
    monkeypatch.setattr(export, "to_onnx", None)
    gap = export.export(stored["dense"], "onnx", tmp_path / "net.onnx", quick=True)
    assert gap <= export.TOLERANCE
    assert (tmp_path / "net.onnx").stat().st_size > 10_000


def test_what_the_quick_exporter_cannot_the_slow_one_does(stored, tmp_path, monkeypatch):
    """Where tracing raises; and what computes something else is refused from either."""
    slow = []
    to_onnx = export.to_onnx
    monkeypatch.setattr(export, "to_onnx", lambda *args: (slow.append(1), to_onnx(*args)))
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "trace", lambda *args, **more: 1 / 0)
        export.export(stored["compressed"], "onnx", tmp_path / "net.onnx", quick=True)
    assert slow == [1]
    honest = export.run
    monkeypatch.setattr(export, "run", lambda *args: 1.01 * honest(*args))
    with pytest.raises(UserError, match="computes something else"):
        export.export(stored["compressed"], "onnx", tmp_path / "other.onnx", quick=True)


# -------------------------------------------------------------------------------------------------------- onnx_cpu


def test_onnx_cpu_measures_stored_networks(stored):
    """End to end at level quick: every field is there and consistent with the others."""
    taken = OnnxCPU(batch=4).measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.threads, taken.batch, taken.level) == (30, 1, 4, "quick")
    assert taken.input_shape == (4, 1, 8, 8)
    assert taken.ratio == pytest.approx(taken.dense_p50_ms / taken.p50_ms)
    assert 0 < taken.p50_ms <= taken.p90_ms <= taken.p99_ms
    assert all(peak is None or peak > 0 for peak in (taken.peak_bytes, taken.dense_peak_bytes))


def test_onnx_cpu_says_what_went_wrong(stored, monkeypatch):
    """The agent crashed, lacks something, or takes for ever."""
    for code, why in (
        ("raise ValueError('a planted error')", "The measuring process failed: ValueError: a planted error"),
        ("import os; os.kill(os.getpid(), 9)", "The measuring process failed: it was killed"),
        (f"print({json.dumps(json.dumps(ANSWER | {'failed': [failure(said='boom')]}))})", "onnxruntime failed here"),
        ("import time; time.sleep(60)", "The measurement took more than 0.5 s: use a smaller batch"),
    ):
        planted(monkeypatch, code)
        monkeypatch.setattr(_onnx, "LIMIT_S", 0.5 if "sleep" in code else 60.0)
        with pytest.raises(UserError, match=why):
            OnnxCPU().measure(stored["compressed"], stored["dense"], "quick")


def test_onnx_cpu_that_takes_too_long_leaves_nothing_behind(stored, monkeypatch, tmp_path):
    """Neither the agent nor the session that it waits for, which would go on beside the next measurement."""
    pid = tmp_path / "pid"
    session = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    planted(monkeypatch, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {session!r}])")
    monkeypatch.setattr(_onnx, "LIMIT_S", 3.0)
    with pytest.raises(UserError, match="took more than 3 s"):
        OnnxCPU().measure(stored["compressed"], stored["dense"], "quick")
    until = time.monotonic() + 10
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(int(pid.read_text()))
        while left.status() != psutil.STATUS_ZOMBIE:  # which nobody may be there to bury
            assert time.monotonic() < until
            time.sleep(0.05)


def test_impossible_counts_are_refused(monkeypatch):
    """None, or more threads than cores."""
    for make in (
        lambda: OnnxCPU(threads=0),
        lambda: OnnxCPU(batch=0),
        lambda: EdgeContainer(cores=0),
        lambda: EdgeContainer(memory_mib=0),
        lambda: EdgeRemote(threads=0),
    ):
        with pytest.raises(UserError, match="=0 is impossible: give one or more"):
            make()
    monkeypatch.setattr(onnx_cpu, "physical_cores", lambda: 2)
    assert OnnxCPU(threads=2).unavailable() is None
    assert OnnxCPU(threads=3).unavailable() == "3 threads on 2 cores would wait for each other"


# -------------------------------------------------------------------------------------------------------- the record


class Elsewhere:
    """Times another machine, on which a network may not fit."""

    name, version = "elsewhere", 1

    def __init__(self, fits: bool = True) -> None:
        self.fits = fits

    def machine(self):
        return _onnx.fingerprint(MACHINE)

    def measure(self, artifact, reference, level):
        if not self.fits:
            raise DoesNotFitError("the dense network does not fit in 1 MiB")
        return _onnx.measurement(ANSWER, REQUEST, level)


RECORDS = (Record("small", "small", {}, "ok", artifact="a"), Record("dense", "dense", {}, "ok", artifact="b"))


@pytest.fixture
def described(monkeypatch):
    """Profiles that are no dataclasses, as specs."""
    monkeypatch.setattr(measure.identity, "describe", lambda profile, **more: {"is": profile.name})
    monkeypatch.setattr(measure.identity, "label", lambda profile: profile.name)


def test_a_network_that_does_not_fit_is_a_result(store, described):
    """A record without a number, with the reason, that no run tries again."""
    done = measure.measure(*RECORDS, Elsewhere(fits=False), "full", store)
    assert (done.status, done.reason, done.measurement) == (
        "unsupported",
        "the dense network does not fit in 1 MiB",
        None,
    )
    assert done.finished
    assert store.measurement(done.id) == done


def test_a_record_says_which_machine_was_timed(store, described):
    """The board's processor and libraries, our torch and commit, nothing else of ours; another board is another id."""
    done = measure.measure(*RECORDS, Elsewhere(), "quick", store)
    assert done.environment["cpu"] == "Board 3, Chip 7"
    assert done.environment["versions"]["onnxruntime"] == "1.20.0"
    assert done.environment["versions"]["torch"] == torch.__version__
    assert done.environment["versions"].keys() == {"slimbench", "torch", *MACHINE["versions"]}
    assert done.environment.keys() == {*MACHINE, "commit"}
    other = Elsewhere()
    other.machine = lambda: _onnx.fingerprint(MACHINE | {"cpu": "Board 4"})
    assert measure.measurement_id(*RECORDS, other, "quick") != done.id
    assert json.loads(json.dumps(done.environment)) == done.environment


def test_a_network_that_does_not_fit_is_not_measured_again(store, monkeypatch):
    """Its record is final, as that of a number is."""
    from slimbench import run
    from slimbench.core import MeasurementRecord

    monkeypatch.setattr(type(store), "has_network", lambda self, name: True)
    monkeypatch.setattr(run, "measurement_id", lambda record, reference, profile, level: f"m-{record.id}")
    monkeypatch.setattr(run.identity, "label", lambda profile: profile.name)
    for record in RECORDS:
        store.put(record)
    cells = {record.id: SimpleNamespace(seed=0) for record in RECORDS}
    for status, left in (("failed", ["m-small", "m-dense"]), ("unsupported", ["m-dense"]), ("ok", ["m-dense"])):
        store.put(MeasurementRecord("m-small", "small", "dense", {}, status, "why"))
        jobs = run._measurements(cells, [Elsewhere()], run.Options(), store)
        assert sorted(job.id for job in jobs) == sorted(left)


def test_profiles_are_listed_with_what_they_are():
    """`bench list profiles` shows the first line of the docstring."""
    for name in ("onnx_cpu", "edge_container", "edge_remote"):
        cls = discover.found("hardware_profiles")[name]
        assert "ONNX Runtime" in cls.__doc__.splitlines()[0]
