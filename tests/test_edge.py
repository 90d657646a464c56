"""Edge profiles: the agent's samples, what is made of them, and every way in which a box or a board may fail."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import ROOT
from slimbench import artifact, discover, export, measure
from slimbench.core import DoesNotFitError, Record, UserError
from slimbench.hardware_profiles import _agent, _onnx, _timing, edge_container, edge_remote, onnx_cpu
from slimbench.hardware_profiles.edge_container import EdgeContainer
from slimbench.hardware_profiles.edge_remote import EdgeRemote
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU


def sample(ms: float, count: int = 9) -> list[float]:
    return [ms] * count


MACHINE = {
    "cpu": "Board 3, Chip 7",
    "cores": 4,
    "memory_gib": 1,
    "system": "Linux aarch64",
    "versions": {"python": "3.9.2", "numpy": "1.26.4", "onnxruntime": "1.20.0"},
}


def session(dense=4.0, again=4.0, compressed=2.0, **more):
    """What a process of the agent prints, on an idle machine."""
    samples = {"dense": sample(dense), "again": sample(again), "compressed": sample(compressed)}
    quiet = {"busy_cores": 0.5, "load_average": [1.0, 2.0], "clock_mhz": [None, None]}
    return {"samples": samples} | quiet | more


ANSWER = {"machine": MACHINE, "peak": {"dense": 200, "compressed": 100}, "session": {"0": session()}, "failed": []}
REQUEST = {"threads": 2, "shape": [8, 3, 4, 4], "sessions": 1, "rounds": 9, "warm_s": [0, 0]}
REQUEST["bytes"] = {"dense": 20, "compressed": 10}

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


@pytest.fixture(scope="module")
def packed(stored, tmp_path_factory) -> tuple[Path, dict]:
    """The folder that goes to a board, and its request, for as few rounds as can be."""
    folder = tmp_path_factory.mktemp("packed")
    request = _onnx.package(stored["compressed"], stored["dense"], folder, "quick", threads=1, batch=4)
    request |= {"rounds": 5, "warm_s": [0, 0.05], "sessions": 2}
    (folder / "request.json").write_text(json.dumps(request))
    return folder, request


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


def failure(what="peak", which="dense", code=1, said=""):
    return {"what": what, "which": which, "code": code, "said": said}


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


def test_the_dense_network_is_exported_once(stored, tmp_path, monkeypatch):
    """And kept beside its artifact, whole or not at all."""
    made = []

    def exported(folder, target):
        made.append(folder.name)
        if len(made) == 2:
            raise UserError("a planted error")
        target.write_bytes(b"onnx")

    monkeypatch.setattr(_onnx, "exported", exported)
    dense = shutil.copytree(stored["dense"], tmp_path / "dense")
    (dense / "measured.onnx").unlink(missing_ok=True)
    before = {file.name for file in dense.iterdir()}
    arguments = (stored["compressed"], dense, tmp_path, "quick")
    with pytest.raises(UserError):
        _onnx.package(*arguments, threads=1, batch=1)
    assert {file.name for file in dense.iterdir()} == before
    for _ in range(2):
        _onnx.package(*arguments, threads=1, batch=1)
    assert made == ["compressed", "dense", "compressed", "dense", "compressed"]
    assert {file.name for file in dense.iterdir()} == before | {"measured.onnx"}
    assert artifact.verify(dense)


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


def planted(monkeypatch, code: str) -> None:
    """An agent that does something else."""

    def package(artifact, reference, folder, level, *, threads, batch):
        (folder / "agent.py").write_text(code)
        return REQUEST

    monkeypatch.setattr(_onnx, "package", package)


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
    """The board's processor and libraries, our torch and commit; another board is another id."""
    done = measure.measure(*RECORDS, Elsewhere(), "quick", store)
    assert done.environment["cpu"] == "Board 3, Chip 7"
    assert done.environment["versions"]["onnxruntime"] == "1.20.0"
    assert done.environment["versions"]["torch"] == torch.__version__
    assert "commit" in done.environment
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


# --------------------------------------------------------------------------------------------------- edge_container


class Container:
    """A container that ends as it is told to."""

    def __init__(self, said="", complained="", code=0, oom=False, waits=None) -> None:
        self.said, self.complained, self.waits = said, complained, waits
        self.attrs = {"State": {"ExitCode": code, "OOMKilled": oom}}
        self.did: list[str] = []

    def start(self):
        self.did.append("start")

    def wait(self, timeout):
        self.did.append("wait")
        if self.waits:
            raise self.waits

    def reload(self):
        self.did.append("reload")

    def logs(self, *, stdout, stderr):
        assert stdout != stderr
        return (self.said if stdout else self.complained).encode()

    def remove(self, force=False):
        self.did.append("remove" + (" by force" if force else ""))


class Engine:
    """Docker's client, as far as it is used."""

    def __init__(self, container: Container | None = None, image: bool = True, **info) -> None:
        self.container, self.image, self.asked = container or Container(json.dumps(ANSWER)), image, {}
        self.left = [Container()]
        self.told = {"NCPU": 4, "MemTotal": 2 << 30, "MemoryLimit": True, "CPUSet": True} | info
        self.containers = SimpleNamespace(list=self.list, create=self.create)
        self.images = SimpleNamespace(get=self.get)
        self.is_closed = False

    def info(self):
        return self.told

    def get(self, name):
        from docker.errors import ImageNotFound

        assert name == edge_container.IMAGE
        if not self.image:
            raise ImageNotFound("no such image")
        return SimpleNamespace(id="sha256:abc")

    def list(self, *, filters, **more):
        assert more == {"all": True}
        assert filters == {"label": "org.slimbench.edge", "status": "exited"}
        return self.left

    def create(self, image, **options):
        self.asked = {"image": image} | options
        return self.container

    def close(self):
        self.is_closed = True


@pytest.fixture
def engine(monkeypatch):
    """Sets the engine that answers, on a machine of four cores; networks are not exported."""
    import docker

    monkeypatch.setattr(edge_container, "usable", lambda: [0, 1, 2, 3])
    planted(monkeypatch, "")

    monkeypatch.setattr(edge_container, "_listens", lambda: True)
    edge_container.image_id.cache_clear()

    def answers(one):
        monkeypatch.setattr(docker, "from_env", lambda timeout: one)
        return one

    yield answers
    edge_container.image_id.cache_clear()


def test_a_container_is_asked_for_its_limits_and_nothing_else(engine, stored):
    """Cores, memory without swap; no network, no root, no rights; the folder read-only, and readable for nobody."""
    one = engine(Engine())
    modes = {}
    create = one.containers.create

    def seen(image, **options):
        (folder,) = options["volumes"]
        modes.update({path.name: path.stat().st_mode & 0o777 for path in (Path(folder), *Path(folder).iterdir())})
        modes["folder"] = modes.pop(Path(folder).name)
        return create(image, **options)

    one.containers.create = seen
    taken = EdgeContainer(cores=2, memory_mib=1024).measure(stored["compressed"], stored["dense"], "quick")
    assert taken.ratio == 2.0
    (folder,) = one.asked.pop("volumes").items()
    assert folder[1] == {"bind": "/edge", "mode": "ro"}
    assert not Path(folder[0]).exists()
    assert modes == {"folder": 0o755, "agent.py": 0o644}
    assert one.asked == {
        "image": edge_container.IMAGE,
        "cpuset_cpus": "2,3",
        "mem_limit": "1024m",
        "memswap_limit": "1024m",
        "network_mode": "none",
        "read_only": True,
        "user": "65534:65534",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 64,
        "labels": ["org.slimbench.edge"],
    }
    assert one.container.did == ["start", "wait", "reload", "remove by force"]
    assert one.left[0].did == ["remove"]
    assert one.is_closed


def test_a_container_runs_as_many_threads_as_cores(engine, stored, monkeypatch):
    """And the profile's batch."""
    asked = {}

    def package(artifact, reference, folder, level, **more):
        asked.update(more)
        return REQUEST

    monkeypatch.setattr(_onnx, "package", package)
    engine(Engine())
    EdgeContainer(cores=3, batch=7).measure(stored["compressed"], stored["dense"], "quick")
    assert asked == {"threads": 3, "batch": 7}


@pytest.mark.parametrize(
    ("spec", "engine_is", "why"),
    [
        ({}, {}, None),
        ({"cores": 4, "memory_mib": 1024}, {}, None),
        ({"cores": 4}, {"NCPU": 2}, "4 cores were asked for, the container engine has 2"),
        ({"cores": 5}, {"NCPU": 8}, "5 cores were asked for, the container engine has 4"),
        ({"memory_mib": 4096}, {}, "4096 MiB were asked for, the container engine has 2048 MiB"),
        ({}, {"MemoryLimit": False}, "the container engine cannot limit memory or cores: run one with cgroups"),
        ({}, {"CPUSet": False}, "the container engine cannot limit memory or cores: run one with cgroups"),
        ({}, {"image": False}, "the image slimbench-edge:1 is not built: `docker build -f docker/edge.Dockerfile -t"),
    ],
)
def test_a_container_is_unavailable_with_a_reason(engine, spec, engine_is, why):
    """What is missing, and how to get it."""
    one = engine(Engine(**engine_is))
    found = EdgeContainer(**spec).unavailable()
    assert found == why or found.startswith(why)
    assert one.is_closed


def test_no_engine_is_a_reason(monkeypatch, tmp_path):
    """A socket that is not there or that nobody listens on, and another machine that is not there."""
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(f"{tmp_path}/deaf")
    for address in (f"unix://{tmp_path}/none", f"unix://{tmp_path}/deaf", "tcp://127.0.0.1:1"):
        monkeypatch.setenv("DOCKER_HOST", address)
        assert EdgeContainer().unavailable() == (
            "no container engine answers: start Docker until `docker info` works, or set DOCKER_HOST"
        )


def ends(**how) -> Engine:
    return Engine(Container(**how))


def errors():
    import requests
    from docker.errors import APIError

    gone, late = requests.exceptions.ConnectionError("connection reset"), requests.exceptions.ReadTimeout("late")
    unix = requests.exceptions.ConnectionError("UnixHTTPConnectionPool: Read timed out. (read timeout=1)")
    memory = json.dumps(ANSWER | {"failed": [failure(code=-9)]})
    return [
        (ends(code=137, oom=True), DoesNotFitError, "the networks do not fit in 512 MiB"),
        (ends(code=137), DoesNotFitError, "the networks do not fit in 512 MiB"),
        (ends(said=memory), DoesNotFitError, "the dense network does not fit in 512 MiB, the compressed one does"),
        (
            ends(code=1, complained="x\nno such file\n"),
            UserError,
            r"The container failed \(no such file\): build its im",
        ),
        (ends(code=3), UserError, r"The container failed \(exit 3\)"),
        (
            ends(waits=gone),
            UserError,
            r"The container engine failed \(connection reset\): see that `docker info` works",
        ),
        (ends(waits=late), UserError, "The container took more than 1200 s: use a smaller batch"),
        (ends(waits=unix), UserError, "The container took more than 1200 s: use a smaller batch"),
        (ends(waits=APIError("bad", explanation="no space")), UserError, r"The container engine failed \(no space\)"),
    ]


@pytest.mark.parametrize(("one", "kind", "why"), errors())
def test_a_container_that_fails_is_one_sentence_and_is_removed(engine, stored, one, kind, why):
    """Memory is a result; the rest says what to do."""
    engine(one)
    with pytest.raises(UserError, match=why) as error:
        EdgeContainer().measure(stored["compressed"], stored["dense"], "quick")
    assert type(error.value) is kind
    assert one.container.did[-1] == "remove by force"
    assert one.is_closed


def test_another_image_is_another_machine(engine):
    """It may hold other libraries."""
    engine(Engine(image=False))
    with pytest.raises(UserError, match="The container engine failed"):
        EdgeContainer().machine()
    engine(Engine())
    assert EdgeContainer().machine()["image"] == "sha256:abc"
    engine(Engine(image=False))
    assert EdgeContainer().machine()["image"] == "sha256:abc"


@pytest.fixture(scope="module")
def real_engine():
    """A real engine with the image built from the Dockerfile; skips where there is none."""
    import docker
    from docker.errors import APIError, BuildError, DockerException

    if not edge_container._listens():  # where nobody does, the SDK leaves its own end open
        pytest.skip("needs a container engine: start Docker, or set DOCKER_HOST")
    try:
        client = docker.from_env(timeout=600)
    except DockerException:
        pytest.skip("needs a container engine: start Docker, or set DOCKER_HOST")
    try:
        client.images.build(
            path=str(ROOT), dockerfile="docker/edge.Dockerfile", tag=edge_container.IMAGE, network_mode="host", rm=True
        )
    except (APIError, BuildError) as error:
        client.close()
        if "FROM" in str(error) or "pull" in str(error) or "resolve" in str(error) or "registry" in str(error):
            pytest.skip(f"needs the base image: {error}")
        raise
    yield client
    client.close()


def test_a_real_container_measures(real_engine, stored):
    """End to end, and nothing is left behind."""
    profile = EdgeContainer()
    assert profile.unavailable() is None
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.threads, taken.batch) == (30, 1, 1)
    assert taken.p50_ms > 0
    assert real_engine.containers.list(all=True, filters={"label": "org.slimbench.edge"}) == []
    assert profile.machine()["image"].startswith("sha256:")


def test_too_little_memory_is_a_result_in_a_real_container(real_engine, stored):
    """ONNX Runtime itself takes more than 24 MiB."""
    with pytest.raises(DoesNotFitError, match="fits in 24 MiB"):
        EdgeContainer(memory_mib=24).measure(stored["compressed"], stored["dense"], "quick")


def test_a_real_container_can_do_nothing_else(real_engine, tmp_path):
    """No network but loopback, no writing, no rights, one core, 512 MiB."""
    probe = (
        "import json, os, pathlib\n"
        "def writes(path):\n"
        "    try: pathlib.Path(path).write_text('x')\n"
        "    except OSError: return False\n"
        "    return True\n"
        "status = dict(l.split(':', 1) for l in pathlib.Path('/proc/self/status').read_text().splitlines())\n"
        "devices = pathlib.Path('/proc/net/dev').read_text().splitlines()[2:]\n"
        "print(json.dumps({'machine': {}, 'devices': [l.split(':')[0].strip() for l in devices],\n"
        "    'uid': os.getuid(), 'rights': int(status['CapEff'], 16), 'no_new': status['NoNewPrivs'].strip(),\n"
        "    'writes': [p for p in ('/x', '/tmp/x', '/edge/x') if writes(p)],\n"
        "    'cores': len(os.sched_getaffinity(0))}))\n"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "agent.py").write_text(probe)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    _onnx.readable(folder)
    _, said, complained = edge_container.run(real_engine, EdgeContainer().options(folder), 60)
    found = _onnx.answer(said)
    assert found, complained
    assert (found["devices"], found["uid"], found["rights"], found["no_new"]) == (["lo"], 65534, 0, "1")
    assert (found["writes"], found["cores"]) == ([], 1)


# ------------------------------------------------------------------------------------------------------ edge_remote

# An ssh that takes the options and host apart and runs the command here, in a shell, as sshd would.
LOOPBACK = """
import subprocess, sys
host, command = sys.argv[sys.argv.index("--") + 1:]
assert host == "board", host
for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5"):
    assert option in sys.argv, option
sys.exit(subprocess.call(["sh", "-c", command]))
"""


@pytest.fixture
def board(monkeypatch, tmp_path):
    """Sets what BENCH_SSH runs; the board is called board, and its temporary folders lie apart."""
    edge_remote.told.cache_clear()
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("BENCH_BOARD", "board")
    monkeypatch.setenv("TMPDIR", str(there))

    def runs(code: str) -> Path:
        client = tmp_path / "client.py"
        client.write_text(code)
        monkeypatch.setenv("BENCH_SSH", f"{sys.executable} {client}")
        return there

    yield runs
    edge_remote.told.cache_clear()


def test_a_board_measures_and_nothing_stays_there(board, stored):
    """One connection; the machine is the board's."""
    there = board(LOOPBACK)
    profile = EdgeRemote(python=sys.executable, batch=2)
    assert profile.unavailable() is None
    assert profile.machine()["versions"]["torch"] == torch.__version__
    assert profile.machine()["cores"] >= 1
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch, taken.threads, taken.input_shape) == (30, 2, 1, (2, 1, 8, 8))
    assert list(there.iterdir()) == []


def test_no_board_is_a_reason(monkeypatch):
    """A field comes before the variable."""
    monkeypatch.delenv("BENCH_BOARD", raising=False)
    assert EdgeRemote().unavailable().startswith("no board is named: set BENCH_BOARD")
    monkeypatch.setenv("BENCH_BOARD", "one")
    assert (EdgeRemote().board, EdgeRemote(host="two").board) == ("one", "two")


def test_too_many_threads_for_a_board_are_a_reason(board):
    """By its own cores."""
    board(LOOPBACK)
    assert EdgeRemote(python=sys.executable, threads=999).unavailable().startswith("999 threads on ")


def fails(code: int, complained: str, said: str = "") -> str:
    return f"import sys\nprint({said!r})\nprint({complained!r}, file=sys.stderr)\nsys.exit({code})\n"


SENTENCES = {
    "unreachable": (
        fails(255, "ssh: connect to host board port 22: No route to host"),
        r"board cannot be reached \(ssh: .* No route to host\): see that it is on, and that `ssh board` works\.",
    ),
    "refused key": (
        fails(255, "me@board: Permission denied (publickey)."),
        "board refuses your key: `ssh-copy-id board`, so that `ssh board` asks for no password",
    ),
    "unknown host": (
        fails(255, "No ED25519 host key is known for board.\r\nHost key verification failed."),
        "board is not a known host, or not the one that is known: `ssh board` once, and compare its key",
    ),
    "no Python": (
        fails(127, "sh: 1: python3: not found"),
        r"board has no python3 \(sh: 1: python3: not found\): install Python 3.8 or newer there, or name it",
    ),
    "old Python": (
        fails(1, "SyntaxError: invalid syntax"),
        r"python3 failed on board \(SyntaxError: invalid syntax\): it",
    ),
    "gone": (
        fails(255, "Connection to board closed by remote host.", edge_remote.HERE),
        r"board disappeared in the middle \(Connection to board closed by remote host\): see that it is on, and",
    ),
    "no disk": (
        fails(1, "OSError: [Errno 28] No space left on device", edge_remote.HERE),
        r"The agent failed on board \(OSError: \[Errno 28\] No space left on device\): see its memory and disk",
    ),
    "nothing": (fails(0, "", edge_remote.HERE), r"The agent failed on board \(exit 0\)"),
}


@pytest.mark.parametrize(("client", "why"), SENTENCES.values(), ids=SENTENCES)
def test_a_board_that_fails_is_one_sentence(board, stored, client, why):
    """As a reason beforehand, and as an error in the middle."""
    board(client)
    import re

    assert re.match(why, EdgeRemote().unavailable())
    with pytest.raises(UserError, match=why) as error:
        EdgeRemote().measure(stored["compressed"], stored["dense"], "quick")
    assert "\n" not in str(error.value)


def test_a_board_without_onnxruntime_is_told_how_to_get_it(board, monkeypatch):
    """By its own Python."""
    lacks = MACHINE | {"versions": MACHINE["versions"] | {"onnxruntime": "absent"}}
    board(fails(0, "", json.dumps({"machine": lacks})))
    assert EdgeRemote(python="venv/bin/python").unavailable() == (
        "board lacks onnxruntime: `ssh board venv/bin/python -m pip install numpy onnxruntime`."
    )


def test_a_board_that_was_asked_once_is_not_asked_again(board, tmp_path):
    """Listing, planning and ids come of one connection; a failure is no answer."""
    board(fails(255, "ssh: No route to host"))
    assert EdgeRemote().unavailable()
    board(fails(0, "", json.dumps({"machine": MACHINE})))
    assert EdgeRemote().machine()["cpu"] == "Board 3, Chip 7"
    board(fails(255, "ssh: No route to host"))
    assert EdgeRemote().unavailable() is None


def test_a_silent_board_and_an_absent_client(board, stored, monkeypatch):
    """Each has its sentence."""
    board("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(edge_remote, "_LIMIT_S", 0.5)
    assert EdgeRemote().unavailable().startswith("board took more than 0.5 s")
    monkeypatch.setenv("BENCH_SSH", "/no/such/ssh")
    assert EdgeRemote().unavailable().startswith("/no/such/ssh is not installed here")


def test_a_board_with_too_little_memory_is_a_result(board, stored):
    """The process was killed there."""
    board(fails(0, "", json.dumps(ANSWER | {"failed": [failure(which="compressed", code=-9)]})))
    with pytest.raises(DoesNotFitError, match="the compressed network does not fit in the memory of board"):
        EdgeRemote().measure(stored["compressed"], stored["dense"], "quick")


def test_no_owner_travels(packed):
    """Names and contents alone."""
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(edge_remote.packed(packed[0].glob("[!.]*")))) as archive:
        entries = archive.getmembers()
    assert sorted(e.name for e in entries) == ["agent.py", "compressed.onnx", "dense.onnx", "request.json"]
    assert {(e.uid, e.gid, e.uname, e.mtime) for e in entries} == {(0, 0, "", 0)}


# ------------------------------------------------------------------------------------------------ over a real sshd


class Server:
    """An sshd on loopback with keys of its own, and a client's configuration for it."""

    def __init__(self, folder: Path, sshd: str) -> None:
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
            subprocess.run(command, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "authorized").chmod(0o600)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        )
        self.know("host")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)

    def know(self, key: str) -> None:
        """Which host key the client knows."""
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def client(self, key: str = "user") -> str:
        """What BENCH_SSH is, with this private key."""
        config = self.folder / f"config-{key}"
        config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {self.port}\n User {os.environ.get('USER') or 'root'}\n"
            f" IdentityFile {self.folder}/{key}\n IdentitiesOnly yes\n UserKnownHostsFile {self.folder}/known_hosts\n"
            " GlobalKnownHostsFile /dev/null\n"
        )
        return f"ssh -F {config}"

    def answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real sshd; skips where there is none."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not sshd or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("needs OpenSSH: on Debian `apt-get install openssh-server openssh-client`")
    one = Server(tmp_path_factory.mktemp("sshd"), sshd)
    for _ in range(50):
        if one.answers() or one.process.poll() is not None:
            break
        time.sleep(0.1)
    if not one.answers():
        one.process.kill()
        pytest.skip(f"sshd does not start here: {one.process.communicate()[1].decode().strip()}")
    yield one
    one.process.terminate()
    one.process.communicate()


@pytest.fixture
def over_ssh(server, monkeypatch):
    """Reaches the real sshd as board."""
    edge_remote.told.cache_clear()
    monkeypatch.setenv("BENCH_BOARD", "board")
    monkeypatch.setenv("BENCH_SSH", server.client())
    yield server
    server.know("host")
    edge_remote.told.cache_clear()


def test_a_real_connection_measures(over_ssh, stored):
    """With the user's configuration: name, port, key and known hosts are from there."""
    profile = EdgeRemote(python=sys.executable)
    assert profile.unavailable() is None
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch) == (30, 1)
    assert taken.p50_ms > 0


def test_a_real_connection_refuses_strangers(over_ssh, monkeypatch):
    """A key that the board does not know, a board whose key is not the known one or not known, no board."""
    monkeypatch.setenv("BENCH_SSH", over_ssh.client("stranger"))
    assert EdgeRemote().unavailable().startswith("board refuses your key")
    monkeypatch.setenv("BENCH_SSH", over_ssh.client())
    over_ssh.know("stranger")
    assert EdgeRemote().unavailable().startswith("board is not a known host")
    (over_ssh.folder / "known_hosts").write_text("")
    assert EdgeRemote().unavailable().startswith("board is not a known host")
    assert EdgeRemote(host="no-such-host.invalid").unavailable().startswith("no-such-host.invalid cannot be reached")


def test_a_real_board_lacks_things(over_ssh, tmp_path):
    """Python, or the libraries."""
    assert EdgeRemote(python="no-such-python").unavailable().startswith("board has no no-such-python")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I -S "$@"\n')
    bare.chmod(0o755)
    assert "board lacks onnxruntime" in EdgeRemote(python=str(bare)).unavailable()


def test_a_real_board_disappears_in_the_middle(over_ssh, stored, tmp_path):
    """Its end of the connection dies after it has begun."""
    dying = tmp_path / "dying"
    dying.write_text(f'#!/bin/sh\necho "{edge_remote.HERE}"\nsleep 0.3\nkill -9 $PPID\n')
    dying.chmod(0o755)
    with pytest.raises(UserError, match=r"board disappeared in the middle \(.*\): see that it is on, and run again"):
        EdgeRemote(python=f"{dying}").measure(stored["compressed"], stored["dense"], "quick")


def test_profiles_are_listed_with_what_they_are():
    """`bench list profiles` shows the first line of the docstring."""
    for name in ("onnx_cpu", "edge_container", "edge_remote"):
        cls = discover.found("hardware_profiles")[name]
        assert "ONNX Runtime" in cls.__doc__.splitlines()[0]
