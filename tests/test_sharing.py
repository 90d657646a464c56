"""Several runners on one store, and what befalls them: every record whole, nothing twice, the next run completes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from conftest import fakes
from runs import COMMAND, PLUGINS, SETTINGS, SUITE, TASK, alive, go, hanging, more_fakes, of, suite_of, timeless
from slimbench import discover, identity, local, logs, process
from slimbench.core import Budget, Cell
from slimbench.execute import Event, Job, Queue
from slimbench.leases import Claims, Leases
from slimbench.local import Local, Retry
from slimbench.methods.dense import Dense
from slimbench.plan import Filter, plan
from slimbench.run import Options, StoppedError, run
from slimbench.store import Store
from slow import SLOW, STEPS, steps_of, until

CELLS = replace(SUITE, profiles=())  # two seeds, without measuring


def starts(store: Store) -> dict[str, int]:
    """How often each job was started, by its log."""
    return {p.stem: sum(f["event"] == "started" for f in logs.lines(p)) for p in (store.root / "logs").glob("*.log")}


def leased(store: Store) -> list[Path]:
    return [*(store.root / "leases").iterdir(), *(store.root / "runners").iterdir()]


def job_of(method, dense: Store, name: str = "job", keep: float = 0.5) -> Job:
    """A cell of a method on the store's dense network, as a job that is not known by the cell's id."""
    cell = replace(plan(suite_of(method), SETTINGS)[1], budget=Budget(keep, epochs=1))
    return Job(name, method.how, {"do": "compress", "cell": cell, "store": dense.root}, dense.log(name))


# ---------------------------------------------------------------------------------------------------- several runners


def test_two_runners_at_once_share_the_work(finished, store):
    """No cell and no measurement is done twice, both end well, and the records are those of one runner."""
    with ThreadPoolExecutor(2) as pool:
        (one, first), (two, second) = pool.map(lambda root: go(SUITE, Store(root)), [store.root] * 2)
    assert (one.failed, two.failed) == (0, 0)
    jobs = starts(store)
    del jobs["check"]
    assert list(jobs.values()) == [1] * (len(store.records()) + len(store.measurements()))
    assert sorted(first.labels("started") + second.labels("started")) == sorted(
        {*first.labels("done"), *second.labels("done")}
    )
    assert first.labels("elsewhere") or second.labels("elsewhere")
    assert timeless(store) == timeless(finished)
    assert leased(store) == []


class Kills(more_fakes.Recorder):
    """A view that kills another runner as soon as that one is met."""

    def __init__(self, runner):
        super().__init__()
        self.runner = runner

    def show(self, event):
        super().show(event)
        if event.kind == "elsewhere":
            self.runner.kill()
            self.runner.wait()


def test_what_a_dead_runner_had_is_taken_over(dense):
    """By one that was waiting for it: its cell is begun again, and all is made."""
    hangs = Filter((TASK,), (fakes.Misbehaves("hangs"),), (1.0,), (0,)).of(discover.suite("quick"))
    suite = replace(hangs, profiles=())
    with hanging(dense) as (runner, below):
        view = Kills(runner)
        outcome = run(suite, SETTINGS, Options(plugins=PLUGINS, time_limit_s=2.0), dense, view)
        assert alive(below) == []
    assert view.labels("elsewhere") == view.labels("failed") == [of(dense, "misbehaves(how=hangs)").label]
    assert outcome.failed == 1
    assert "time limit" in of(dense, "misbehaves(how=hangs)").reason
    assert not list((dense.root / "leases").iterdir())


class Fails(more_fakes.Recorder):
    """A view that stands in for another runner: it has a job, and leaves a failure."""

    def __init__(self, store, other, job):
        super().__init__()
        self.store, self.other, self.job = store, other, job

    def show(self, event):
        super().show(event)
        if event.kind == "elsewhere":
            self.store.put(replace(self.store.records()[0], id=self.job, status="failed", reason="it failed there"))
            self.other.drop(self.job)


def test_what_failed_with_another_runner_counts_and_is_not_tried_here(dense):
    """The next run tries it again."""
    reference = Cell(TASK, Dense(), Budget(1.0), 0)
    cell = identity.cell_id(Cell(TASK, fakes.Fake(), Budget(0.5), 0, reference=reference))
    with Leases(dense.root) as other:
        assert other.take(cell)
        view = Fails(dense, other, cell)
        outcome = run(suite_of(fakes.Fake()), SETTINGS, Options(plugins=PLUGINS), dense, view)
    assert outcome.failed == 1
    assert view.labels("started") == []
    assert go(suite_of(fakes.Fake()), dense)[0].failed == 0


def test_a_runner_that_lost_its_lease_ends_its_worker(dense, monkeypatch):
    """It stood still for too long: the cell is the other's, whose record it takes."""
    monkeypatch.setattr(local, "_LOOK_S", 0.1)
    job = job_of(fakes.Misbehaves("hangs"), dense)
    with Leases(dense.root, beat_s=0.1) as mine, Leases(dense.root) as other:
        events = Local().run([job], PLUGINS, Claims(mine, dense.record, {}))
        assert next(events).kind == "started"
        other.is_dead = lambda name: True
        assert other.take(job.id)
        assert next(events).kind == "elsewhere"
        dense.put(replace(dense.records()[0], id=job.id, label="the other's"))
        other.drop(job.id)
        (last,) = events
    assert (last.kind, last.value.label) == ("done", "the other's")
    assert logs.last(dense.log("job"))["event"] == "lost"


def test_a_store_that_is_away_for_a_moment_ends_no_run(dense, monkeypatch):
    """Whether a lease was lost is asked again later."""
    monkeypatch.setattr(local, "_POLL_S", 0.05)
    asked = []

    def away(self):
        asked.append(self)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Leases, "lost", away)
    with Leases(dense.root, beat_s=0.1) as mine:
        events = list(
            Local().run([job_of(more_fakes.Disturbs("naps"), dense)], PLUGINS, Claims(mine, dense.record, {}))
        )
    assert (events[0].kind, events[-1].kind) == ("started", "done")
    assert asked


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_ended_goes_on_at_the_very_step(dense, straight, tmp_path, monkeypatch, number, status):
    """No checkpoint was due: the worker saves as it ends. All steps are made once, to the bits of one run."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    command = ["disturbs(how='trains_slowly')" if part == "fake" else part for part in COMMAND]
    command += ["--plugin", PLUGINS[1], "--store", str(dense.root)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as runner:
        until(lambda: len(steps_of(tmp_path)) > 4 or runner.poll() is not None)
        runner.send_signal(number)
        _, said = runner.communicate()
    assert (runner.returncode, said.count("\n")) == (status, 1), said
    assert 4 < len(steps_of(tmp_path)) < len(STEPS)
    assert leased(dense) == []
    assert go(SLOW, dense)[0].failed == 0
    assert steps_of(tmp_path) == STEPS
    assert timeless(dense)[straight.id] == straight


def test_what_does_not_train_ends_at_once(dense):
    """Nobody waits for a step that never comes; the test's own time limit would end it."""
    events = Local(grace_s=3600.0).run([job_of(more_fakes.Disturbs("trains_and_hangs"), dense)], PLUGINS)
    assert [next(events).kind for _ in range(2)] == ["started", "progress"]
    events.close()
    assert logs.last(dense.log("job"))["event"] == "stopped"


# ---------------------------------------------------------------------------------------------------------------- GPUs


def test_processes_share_the_gpus_evenly(dense, tmp_path, monkeypatch):
    """One sees one GPU, that which fewest use; none is left out, and no id depends on which it was."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    jobs = [job_of(more_fakes.Disturbs("sees_a_gpu"), dense, f"job-{n}", keep=0.5 + n / 10) for n in range(4)]
    assert {event.kind for event in Local(4, gpus=("2", "5")).run(jobs, PLUGINS)} == {"started", "progress", "done"}
    assert sorted((tmp_path / "seen").read_text().split()) == ["2", "2", "5", "5"]
    told = [next(iter(logs.lines(job.log)))["gpu"] for job in jobs]
    assert told == ["2", "5", "2", "5"]


# -------------------------------------------------------------------------------------------------------------- memory


def test_a_cell_that_eats_memory_fails_alone(dense):
    """At its limit; the others finish beside it."""
    how = Local(2, memory_limit_bytes=3 * 2**30, retry=Retry(0))
    outcome, _ = go(
        suite_of(more_fakes.Disturbs("eats_memory"), fakes.Misbehaves("misses_the_budget")), dense, executor=how
    )
    assert outcome.failed == 1
    assert of(dense, "disturbs(how=eats_memory)").reason.startswith("MemoryError: ")
    assert of(dense, "misbehaves(how=misses_the_budget)").status == "off_budget"


def test_what_ran_out_of_memory_beside_others_is_tried_again_alone(dense, tmp_path, monkeypatch):
    """After a wait; the log says why."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    how = Local(2, retry=Retry(1, wait_s=0.01))
    suite = suite_of(more_fakes.Disturbs("runs_out_once"), more_fakes.Disturbs("naps"))
    outcome, view = go(suite, dense, executor=how)
    again = of(dense, "disturbs(how=runs_out_once)")
    assert outcome.failed == 0
    assert again.status == "off_budget"
    (fact,) = (fact for fact in logs.lines(dense.log(again.id)) if fact["event"] == "again")
    assert fact["reason"] == "MemoryError: too little is left"
    assert view.labels("done") == [of(dense, "disturbs(how=naps)").label, again.label]


def test_what_ran_out_of_memory_alone_has_failed(dense, tmp_path, monkeypatch):
    """Another try would meet the same end."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    outcome, _ = go(suite_of(more_fakes.Disturbs("runs_out_once")), dense, executor=Local(retry=Retry(3, 0.0)))
    assert outcome.failed == 1


@pytest.mark.parametrize(("left", "at_once"), [(2**60, 2), (10, 1)], ids=["enough", "too little"])
def test_no_more_start_than_the_memory_is_for(store, monkeypatch, left, at_once):
    """By what jobs like them took; one always runs."""
    monkeypatch.setattr(local.memory, "available_bytes", lambda: left)
    work = {"do": "check", "task": TASK, "store": store.root}
    jobs = [Job(f"check-{n}", "check", work, store.log("check"), memory_bytes=2**20) for n in range(3)]
    under_way = most = 0
    for event in Local(2).run(jobs, PLUGINS):
        under_way += {"started": 1, "done": -1}[event.kind]
        most = max(most, under_way)
    assert (most, under_way) == (at_once, 0)


@pytest.mark.parametrize(
    ("device", "allowed", "method"),
    [("cpu", False, "forkserver"), ("cuda", True, "forkserver"), ("cuda", False, "spawn")],
)
def test_a_worker_is_a_fork_where_its_device_allows_it(store, monkeypatch, device, allowed, method):
    """Any worker does its job, however it starts."""
    used, get = [], process.multiprocessing.get_context
    monkeypatch.setattr(process.multiprocessing, "get_context", lambda name: used.append(name) or get(name))
    monkeypatch.setattr(process, "_forks_may_use_cuda", lambda: allowed)
    job = Job("check", "check", {"do": "check", "task": TASK, "store": store.root}, store.log("check"), device=device)
    assert [event.kind for event in Local().run([job], PLUGINS)] == ["started", "done"]
    assert used[-1] == method


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_forks_may_not_use_what_is_not_there():
    """It is tried, and the answer is no."""
    assert not process._forks_may_use_cuda.__wrapped__()


def test_the_fork_server_never_asks_for_cuda():
    """Once it has, PyTorch refuses CUDA to every fork of it."""
    asks = "import torch; torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = lambda: 1 / 0"
    subprocess.run([sys.executable, "-c", f"{asks}; import slimbench.preload"], check=True, env=os.environ)


def test_jobs_wait_for_what_they_start_from():
    """In order, heirs first; a failure takes all that hang on it, with the first cause."""
    jobs = [Job(name, name, {}, Path(), after) for name, after in ("a ", "b ", "ca", "da", "ec")]
    jobs = [replace(job, after=job.after.strip()) for job in jobs]
    queue = Queue(jobs)
    a, b = (queue.ready.popleft() for _ in range(2))
    assert [e.kind for e in queue.end(Event("done", a))] == ["done"]
    assert [job.id for job in queue.ready] == ["c", "d"]
    ended = list(queue.end(Event("failed", queue.ready.popleft(), "it broke")))
    assert [(e.job.id, e.value) for e in ended] == [("c", "it broke"), ("e", "what it starts from failed: it broke")]
    assert b.id == "b"


# -------------------------------------------------------------------------------------------------------------- faults


def test_what_a_method_forks_ends_with_it(dense, tmp_path, monkeypatch):
    """It holds up nothing, though it holds all that its parent held."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    outcome, _ = go(suite_of(more_fakes.Disturbs("forks"), fakes.Misbehaves("misses_the_budget")), dense)
    assert outcome.failed == 0
    assert of(dense, "disturbs(how=forks)").status == "off_budget"
    child = int((tmp_path / "child").read_text())
    assert alive([process for process in psutil.process_iter() if process.pid == child]) == []


def test_data_that_change_under_way_are_noticed_and_lose_nothing(store, tmp_path, monkeypatch):
    """Cells after the change fail in words; the file back, the same run completes."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    (tmp_path / "stripes").write_text("whole")
    suite = suite_of(more_fakes.Disturbs("alters_the_data"), fakes.Fake(), task=more_fakes.OnDisk())
    with pytest.raises(StoppedError, match="stripes was altered: fetch it again"):
        outcome, _ = go(suite, store)
        assert outcome.failed == 2
        go(suite, store)
    made = {i: r for i, r in timeless(store).items() if r.status == "ok"}
    assert len(made) == 1
    (tmp_path / "stripes").write_text("whole")
    suite = suite_of(fakes.Fake(), task=more_fakes.OnDisk())
    assert go(suite, store)[0].failed == 0
    assert {i: r for i, r in timeless(store).items() if i in made} == made


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, to fill and to make read-only; and how to mount it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(["mount", *options.split(), str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")

    if not shutil.which("mount") or os.getuid():
        pytest.skip("needs the right to mount a file system")
    mount("-t tmpfs -o size=64m slimbench-test")
    try:
        yield folder, lambda options: mount(f"-o remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(finished, dense, small_disk):
    """The system's own: one sentence, every finished record whole; with room, the same run completes."""
    folder, remount = small_disk
    shutil.copytree(dense.root, folder / "store")
    store = Store(folder / "store")
    before = timeless(store)
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(2**16))
            file.flush()
    filler.write_bytes(filler.read_bytes()[: -2 * 2**16])
    with pytest.raises(StoppedError, match="free some space and run the same command again"):
        go(CELLS, store)
    assert {i: r for i, r in timeless(store).items() if i in before} == before
    assert not store.warnings
    remount("size=128m")
    go(CELLS, store)
    assert timeless(store) == timeless(finished)
    assert leased(store) == []


def test_a_read_only_store_can_be_read_and_not_run(finished, small_disk):
    """Reading commands say what they always say; a run is refused in one sentence."""
    folder, remount = small_disk
    shutil.copytree(finished.root, folder / "store")
    remount("ro")
    bench = COMMAND[0]
    refused = subprocess.run([*COMMAND, "--store", str(folder / "store")], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "cannot be written (Read-only file system): name another with --store" in refused.stderr
    for command in (["status"], ["report"], ["show", next(iter(timeless(finished)))]):
        done = subprocess.run([bench, *command, "--store", str(folder / "store")], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
