"""What runs a suite of fakes and looks at what came of it: for the tests of runners, on one machine and on many."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from conftest import FAKES, HERE, fakes
from slimbench import discover
from slimbench.core import Arm, Budget, Record, Settings, Suite
from slimbench.methods.dense import Dense
from slimbench.plan import Filter
from slimbench.run import Options, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.store import Store

discover.load_plugin(str(HERE / "more_fakes.py"))
more_fakes = sys.modules["slimbench_plugin_more_fakes"]
PLUGINS = (str(FAKES), str(HERE / "more_fakes.py"))
TASK = fakes.Stripes()
SETTINGS = Settings()
# what `bench run --task stripes --method fake --keep 1 --seeds 0,1` means
SUITE = Filter((TASK,), (fakes.Fake(),), (1.0,), (0, 1)).of(discover.suite("quick"))
COMMAND = [str(Path(sys.executable).with_name("bench")), "run", "--plugin", str(FAKES), "--task", "stripes"]
COMMAND += ["--method", "fake", "--keep", "1", "--seeds", "0", "--precision", "fp32", "--json", "--jobs", "1"]


def go(suite: Suite, store: Store, **options):
    """Run a suite; its outcome and what was seen of it."""
    view = more_fakes.Recorder()
    return run(suite, SETTINGS, Options(plugins=PLUGINS, **options), store, view), view


def suite_of(*methods, seeds=(0,), reference=None, task=TASK) -> Suite:
    """A suite of methods asked to keep half, without training and without measuring."""
    return Suite("fakes", "Fakes", (task,), reference or Dense(), (Arm(methods, (Budget(0.5),)),), seeds)


def of(store: Store, name: str) -> Record:
    """The one record whose label names this method."""
    (record,) = (record for record in store.records() if f" {name} " in record.label)
    return record


def timeless(store: Store) -> dict[str, Record]:
    """Records by id, without what differs from run to run: times, memory, the commit of the checkout."""
    return {
        r.id: replace(
            r,
            seconds=0.0,
            finished="",
            spent=replace(r.spent, seconds=0.0, peak_bytes=None, added_bytes=None),
            environment={k: v for k, v in r.environment.items() if k != "commit"},
        )
        for r in store.records()
    }


@contextlib.contextmanager
def hanging(store: Store) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A runner whose last cell hangs, once it does; and every process below it."""
    command = [*COMMAND, "--method", "misbehaves(how='hangs')", "--store", str(store.root)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **streams, start_new_session=True) as runner:
        try:
            events = map(json.loads, runner.stdout)
            assert any(e["event"] == "started" and "hangs" in e["label"] for e in events), runner.stderr.read()
            yield runner, psutil.Process(runner.pid).children(recursive=True)
        finally:
            runner.kill()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end; patience, because a busy machine is slow."""
    for _ in range(600):
        processes = [process for process in processes if runs(process)]
        if not processes:
            break
        time.sleep(0.1)
    return processes


def runs(process: psutil.Process) -> bool:
    """Neither gone nor waiting to be buried."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
