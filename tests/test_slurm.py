"""Slurm itself: a controller and a node are started here, and cells go through its queue."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import HERE, fakes
from runs import PLUGINS, SETTINGS, go, more_fakes, of, suite_of, timeless
from slimbench import logs, slurm
from slimbench.run import Options, run
from slimbench.slurm import Slurm
from slow import SLOW, STEPS, AtStep, steps_of, until

CELLS = suite_of(fakes.Fake(), fakes.Misbehaves("segfaults"))  # one of them fails

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def told(*command: str) -> str:
    """What a command of Slurm says."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A controller and one node, on ports of their own, without munge: whoever asks is believed."""
    pytest.importorskip("submitit", reason="needs submitit: pip install 'slimbench[slurm]'")
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs Slurm, e.g. Debian's slurm-wlm: {', '.join(missing)} not on PATH")
    folder = tmp_path_factory.mktemp("slurm")
    root = Path(shutil.which("slurmctld")).parents[1]
    plugins = next((file.parent for file in root.glob("lib/**/auth_none.so")), None)
    if plugins is None:
        pytest.skip(f"needs Slurm's plug-in auth/none: none below {root / 'lib'}")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    facts = {"host": platform.node(), "user": getpass.getuser(), "ports": free_ports(2)}
    (folder / "slurm.conf").write_text(CONF.format(**facts, plugins=plugins, folder=folder))
    stepd = Path(shutil.which("slurmd")).with_name("slurmstepd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))
        commands = [["slurmctld", "-D", "-c"], ["slurmd", "-D", "-d", str(stepd)]]
        daemons = []
        try:
            for command in commands:
                with (folder / f"{command[0]}.log").open("w") as log:
                    daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            while told("sinfo", "--noheader", "--format=%T") != "idle":  # a node that waits for work
                for command, daemon in zip(commands, daemons, strict=True):
                    if daemon.poll() is not None:
                        said = (folder / f"{command[0]}.log").read_text().strip().splitlines()
                        pytest.skip(f"Slurm does not start here: {command[0]}: {said[-1] if said else 'no word'}")
                time.sleep(0.2)
            yield folder
        finally:
            told("scancel", "--user", getpass.getuser())
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait()


def arrays_of(store, **more) -> Slurm:
    return Slurm(store.root / "submitted", **{"minutes": 60} | more)


def test_the_queue_makes_the_same_records(finished, store, cluster):
    """Heirs after their dense networks; a failure is recorded on the node, and the others go on."""
    outcome, view = go(CELLS, store, executor=arrays_of(store))
    assert (outcome.failed, len(view.labels("started")), len(view.labels("done"))) == (1, 3, 3)
    assert timeless(store) == timeless(finished)
    assert not list((store.root / "leases").iterdir())


def test_a_cell_whose_time_is_over_is_put_back_and_goes_on_at_the_very_step(
    dense, cluster, straight, tmp_path, monkeypatch
):
    """The signal goes to every process of the job, as before the end of an allocation: no step is made twice."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))

    def time_is_over():
        told("scancel", "--signal=USR2", "--user", getpass.getuser())
        until(lambda: told("squeue", "--noheader", "--format=%T") == "PENDING")
        job = told("squeue", "--noheader", "--array", "--format=%i")
        told("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait for two minutes

    view = AtStep(tmp_path, time_is_over)
    outcome = run(SLOW, SETTINGS, Options(plugins=PLUGINS, executor=arrays_of(dense)), dense, view)
    assert outcome.failed == 0
    assert steps_of(tmp_path) == STEPS
    assert timeless(dense)[straight.id] == straight
    assert sum(fact["event"] == "started" for fact in logs.lines(dense.log(straight.id))) == 2
    assert not list((dense.root / "leases").iterdir())


def test_a_job_that_dies_without_a_word_is_a_failure(dense, cluster, tmp_path, monkeypatch):
    """Slurm keeps no accounts here: what has left the queue is known to be over; the next run completes."""
    monkeypatch.setattr(slurm, "_QUEUE_S", 1.0)
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    suite = suite_of(more_fakes.Disturbs("kills_its_runner_once"))
    assert go(suite, dense, executor=arrays_of(dense))[0].failed == 1
    assert "left the queue without a result" in of(dense, "disturbs(how=kills_its_runner_once)").reason
    assert go(suite, dense)[0].failed == 0


def test_what_is_cancelled_goes_on_at_the_very_step(dense, cluster, straight, tmp_path, monkeypatch):
    """Whoever submitted ends: so do the jobs, which save first; here the next run completes them."""
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        options = Options(plugins=PLUGINS, executor=arrays_of(dense))
        run(SLOW, SETTINGS, options, dense, AtStep(tmp_path, interrupt))
    until(lambda: not list((dense.root / "leases").iterdir()))
    assert 4 < len(steps_of(tmp_path)) < len(STEPS)
    assert go(SLOW, dense)[0].failed == 0
    assert steps_of(tmp_path) == STEPS
    assert timeless(dense)[straight.id] == straight
