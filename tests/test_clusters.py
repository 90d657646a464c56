"""Slurm and Ray: the same records as here, and what befalls a node costs no more than its cell's last minute."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from conftest import HERE, fakes
from runs import PLUGINS, SETTINGS, go, more_fakes, of, suite_of, timeless
from slimbench import apart, environment, executors, identity, logs
from slimbench.apart import Apart
from slimbench.core import Settings, UserError
from slimbench.execute import Job
from slimbench.leases import Claims, Leases
from slimbench.local import Local
from slimbench.on_ray import OnRay
from slimbench.plan import plan
from slimbench.run import Options, run
from slimbench.slurm import Slurm
from slow import SLOW, STEPS, AtStep, steps_of, until

if TYPE_CHECKING:
    from slimbench.core import Cell
    from slimbench.store import Store

CELLS = suite_of(fakes.Fake(), fakes.Misbehaves("segfaults"))  # one of them fails


@pytest.fixture
def nodes_find_the_tests(monkeypatch):
    """Processes on "nodes" import what this one imports."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))


def job_of(cell: Cell, store: Store) -> Job:
    work = {"do": "compress", "cell": cell, "store": store.root}
    return Job(identity.cell_id(cell), identity.cell_label(cell), work, store.log(identity.cell_id(cell)))


def hung(store: Store) -> Job:
    """A job that hangs the first time."""
    return job_of(plan(suite_of(more_fakes.Disturbs("hangs_once")), SETTINGS)[1], store)


def started(store: Store, job: Job) -> int:
    """How often a job was started, by its log."""
    path = store.log(job.id)
    return sum(fact["event"] == "started" for fact in logs.lines(path)) if path.exists() else 0


# --------------------------------------------------------------------------------------------------- a job on a node


def test_a_job_apart_is_done_with_its_own_lease(finished, dense):
    """Pickled and called elsewhere: the record is stored there, once, and nothing stays leased."""
    job = job_of(plan(CELLS, SETTINGS)[1], dense)
    with Leases(dense.root) as leases:
        call = pickle.dumps(Apart.of(job, PLUGINS, Local(), Claims(leases, dense.record, {})))
    kind, record = pickle.loads(call)()
    assert (kind, timeless(dense)[job.id]) == ("done", timeless(finished)[job.id])
    assert pickle.loads(call)() == ("done", record)
    assert started(dense, job) == 1
    assert not list((dense.root / "leases").iterdir())


def test_a_job_apart_that_fails_leaves_the_result_of_before(dense):
    """And says that it failed."""
    job = job_of(plan(CELLS, SETTINGS)[2], dense)
    good = replace(dense.records()[0], id=job.id)
    dense.put(good)
    with Leases(dense.root) as leases:
        call = Apart.of(job, PLUGINS, Local(), Claims(leases, dense.record, {job.id: good}))
    assert call() == ("failed", "its process was killed by SIGSEGV")
    assert dense.record(job.id) == good


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "local", "slurm": ["partition=gpu"]}, "say --executor slurm too"),
        ({"name": "local", "memory_gb": float("inf")}, "--memory inf is no number of GiB"),
        ({"name": "slurm", "memory_gb": float("nan")}, "--memory nan is no number of GiB"),
        ({"name": "slurm", "slurm": ["partition"]}, "write NAME=VALUE"),
        ({"name": "slurm", "slurm": ["minutes=soon"]}, "minutes=soon is impossible"),
        ({"name": "slurm", "slurm": ["minutes=-1"]}, "minutes=-1 is impossible"),
        ({"name": "slurm", "slurm": ["minutes=4"]}, "the whole minutes of one allocation, 5 or more"),
    ],
)
def test_bad_options_are_one_sentence(given, words):
    """Before anything is submitted."""
    options = {"jobs": None, "memory_gb": None, "address": "auto", "slurm": ()} | given
    with pytest.raises(UserError, match=words):
        executors.executor(options.pop("name"), SETTINGS, Path("scripts"), **options)


def test_options_reach_the_executor():
    """Of sbatch as they are; a GPU where cells are trained on one; memory as this machine's limit."""
    common = {"jobs": None, "memory_gb": 2.0, "address": "auto"}
    cuda = Settings("bf16", "cuda", 4)
    told = ["minutes=30", "partition=gpu", "ntasks-per-node=1"]
    slurm = executors.executor("slurm", cuda, Path("scripts"), **common, slurm=told)
    assert (slurm.minutes, slurm.cpus, slurm.gpus, slurm.memory_gb) == (30, 4, 1, 2.0)
    assert slurm.extra == {"partition": "gpu", "ntasks_per_node": "1"}
    ray = executors.executor("ray", SETTINGS, Path("scripts"), **common | {"jobs": 7, "address": "head:1"}, slurm=())
    assert (ray.address, ray.at_once, ray.gpus) == ("head:1", 7, 0)
    here = executors.executor("local", SETTINGS, Path("scripts"), **common | {"jobs": 3}, slurm=())
    assert here == Local(3, 2 * 2**30)


@pytest.mark.parametrize(
    ("visible", "count", "jobs", "expected"),
    [
        (None, 3, None, Local(3, gpus=("0", "1", "2"))),
        (None, 2, 4, Local(4, gpus=("0", "1"))),
        ("4, 6", 2, None, Local(2, gpus=("4", "6"))),
        ("GPU-a1,GPU-b2,GPU-c3", 2, 1, Local(1, gpus=("GPU-a1", "GPU-b2"))),  # the driver knows no third
    ],
)
def test_one_process_a_gpu(monkeypatch, visible, count, jobs, expected):
    """By the names under which the user left them visible; several share one where more are asked for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert executors.local(Settings("bf16", "cuda", 1), jobs) == expected


def test_one_process_for_as_many_cores_as_a_cell_has_threads(monkeypatch):
    """No GPU is asked for."""
    monkeypatch.setattr(environment, "physical_cores", lambda: 8)
    assert [executors.local(Settings(threads=n), None) for n in (1, 3, 16)] == [Local(8), Local(2), Local(1)]


# --------------------------------------------------------------------------------------------------------------- Slurm


def arrays_of(store: Store) -> Slurm:
    """Submitit with its own local executor: the same scripts and signals as Slurm's."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'slimbench[slurm]'")
    return Slurm(store.root / "submitted", minutes=60, cluster="local")


def test_slurm_makes_the_same_records(finished, store, nodes_find_the_tests):
    """Heirs after their dense networks; failures are recorded on the nodes, and the others go on."""
    outcome, view = go(CELLS, store, executor=arrays_of(store))
    assert (outcome.failed, len(view.labels("started")), len(view.labels("done"))) == (1, 3, 3)
    assert timeless(store) == timeless(finished)
    assert not list((store.root / "leases").iterdir())


def test_a_cell_that_runs_out_of_time_is_put_back_and_goes_on(dense, nodes_find_the_tests, tmp_path, monkeypatch):
    """The signal that Slurm sends before the end of an allocation: the same job is done by the next one."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    job = hung(dense)
    executor = arrays_of(dense)._executor()
    submitted = executor.submit(Apart.of(job, PLUGINS, Local(), None))
    until((tmp_path / "hung").exists)
    (node,) = (f["pid"] for f in logs.lines(dense.log(job.id)) if f["event"] == "started")
    (task,) = psutil.Process(submitted._process.pid).children()
    task.send_signal(signal.SIGUSR2)
    until(lambda: started(dense, job) == 2)
    kind, record = submitted.result()
    assert (kind, record.status) == ("done", "off_budget")
    assert not Path(f"/proc/{node}").exists()
    assert not list((dense.root / "leases").iterdir())


def test_a_job_that_is_killed_is_a_failure_in_words(dense, nodes_find_the_tests, tmp_path, monkeypatch):
    """A node that died says nothing; the driver records it, and the next run completes."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    suite = suite_of(more_fakes.Disturbs("kills_its_runner_once"))
    outcome, _ = go(suite, dense, executor=arrays_of(dense))
    assert outcome.failed == 1
    assert "ended without a result" in of(dense, "disturbs(how=kills_its_runner_once)").reason
    assert go(suite, dense)[0].failed == 0


def test_what_sbatch_answers_besides_jobs_is_one_sentence(store, monkeypatch, tmp_path):
    """A wrapper of a site's own, say."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'slimbench[slurm]'")
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'queued as number seven'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"^What sbatch answered is no job \(.*number seven.*\): cancel .* is kept\.$"):
        go(CELLS, store, executor=Slurm(store.root / "submitted"))


def test_without_sbatch_slurm_is_refused(store, monkeypatch):
    """In one sentence."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'slimbench[slurm]'")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="this machine cannot submit"):
        go(CELLS, store, executor=Slurm(store.root / "submitted"))


def test_what_slurm_refuses_is_one_sentence(store, monkeypatch, tmp_path, capsys):
    """Nothing is under way yet: there is nothing to wait for."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'slimbench[slurm]'")
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'sbatch: error: well' >&2\necho 'no such partition' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"^Slurm takes no jobs \(no such partition\): see --slurm, and .* is kept\.$"):
        go(CELLS, store, executor=Slurm(store.root / "submitted", extra={"partition": "nope"}))
    assert capsys.readouterr().err == ""


class Fickle:
    """A cluster that refuses some submissions, by number; what it takes is done at the next look."""

    def __init__(self, *refused: int) -> None:
        self.refused, self.asked, self.looks, self.cancelled = refused, 0, 0, []

    def submit(self, calls):
        self.asked += 1
        if self.asked in self.refused:
            raise apart.RefusedError("not now")
        return [(call.job.id, self.looks) for call in calls]

    def ended(self, handles):
        self.looks += 1
        return [(handle, ("done", None)) for handle in handles[:1]]

    def cancel(self, handles):
        self.cancelled += handles


def driven(cluster: Fickle, count: int = 4) -> list[tuple[str, str]]:
    jobs = [Job(str(n), f"job {n}", {}, Path("log")) for n in range(count)]
    return [(event.kind, event.job.id) for event in apart.drive(cluster, jobs, (), None, at_once=2)]


@pytest.mark.parametrize("again_s", [0.0, 1e6])
def test_a_cluster_that_refuses_for_a_while_is_asked_again(monkeypatch, again_s):
    """What is under way goes on; what was refused is sent in its order, at the latest when nothing is under way."""
    monkeypatch.setattr(apart, "_AGAIN_S", again_s)
    cluster = Fickle(2)
    events = driven(cluster)
    assert [name for kind, name in events if kind == "started"] == ["0", "1", "2", "3"]
    assert sorted(name for kind, name in events if kind == "done") == ["0", "1", "2", "3"]
    assert cluster.cancelled == []


def test_a_cluster_that_takes_nothing_ends_the_run():
    """Where nothing is under way, at the start or later."""
    for refused in ((1,), range(2, 99)):
        with pytest.raises(UserError, match="not now"):
            driven(Fickle(*refused))


# ----------------------------------------------------------------------------------------------------------------- Ray


@pytest.fixture(scope="module")
def ray_cluster():
    """A head and a second node, two raylets on this machine."""
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'slimbench[ray]'")
    from ray.cluster_utils import Cluster

    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=2)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ["PYTHONPATH"] = path


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_ray_makes_the_same_records(finished, store, ray_cluster):
    """On the node that has processors."""
    assert go(CELLS, store, executor=OnRay(ray_cluster.address))[0].failed == 1
    assert timeless(store) == timeless(finished)
    assert not list((store.root / "leases").iterdir())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_ray_node_that_is_killed_costs_one_cell_its_last_minute(dense, ray_cluster, tmp_path, monkeypatch):
    """Kill -9 of all its processes: the cell is done by another node, which takes the dead one's lease over."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    victim = ray_cluster.worker_nodes.copy().pop()

    class Kills(more_fakes.Recorder):
        def show(self, event):
            super().show(event)
            if event.kind == "started":
                until((tmp_path / "hung").exists)
                ray_cluster.add_node(num_cpus=2)
                ray_cluster.remove_node(victim, allow_graceful=False)

    options = Options(plugins=PLUGINS, executor=OnRay(ray_cluster.address))
    outcome = run(suite_of(more_fakes.Disturbs("hangs_once")), SETTINGS, options, dense, Kills())
    assert outcome.failed == 0
    record = of(dense, "disturbs(how=hangs_once)")
    assert record.status == "off_budget"
    assert sum(fact["event"] == "started" for fact in logs.lines(dense.log(record.id))) == 2
    assert not list((dense.root / "leases").iterdir())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_ray_cancels_goes_on_at_the_very_step(dense, ray_cluster, straight, tmp_path, monkeypatch):
    """Whoever sent it ends: so does the task, which saves first; here the next run completes it."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            SLOW,
            SETTINGS,
            Options(plugins=PLUGINS, executor=OnRay(ray_cluster.address)),
            dense,
            AtStep(tmp_path, interrupt),
        )
    until(lambda: not list((dense.root / "leases").iterdir()))
    assert 4 < len(steps_of(tmp_path)) < len(STEPS)
    assert go(SLOW, dense)[0].failed == 0
    assert steps_of(tmp_path) == STEPS
    assert timeless(dense)[straight.id] == straight


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_no_ray_cluster_is_one_sentence(store, address):
    """Nothing answers there."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'slimbench[ray]'")
    with pytest.raises(UserError, match=f"No Ray cluster answers at {address}: see --address"):
        go(CELLS, store, executor=OnRay(address))
