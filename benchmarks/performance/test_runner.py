"""The runner's own speed: a finished suite of a thousand cells, planned, skipped and reported; and a worker's start."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slimbench import discover, environment, identity
from slimbench.core import Cost, Measurement, MeasurementRecord, Record, Scores, Spent, pack
from slimbench.execute import Job
from slimbench.local import Local
from slimbench.measure import measurement_id
from slimbench.plan import Filter, plan
from slimbench.store import Store

SEEDS = 112  # times nine cells a seed


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A store in which every cell of the quick suite is done, for 112 seeds."""
    store = Store(tmp_path_factory.mktemp("finished"))
    suite = Filter(seeds=tuple(range(SEEDS))).of(discover.suite("quick"))
    cost = Cost(1000, 100, 100, 90, 50, 400, (("relu", 0.1),))
    made: dict[str, Record] = {}
    for cell in plan(suite, environment.resolve()):
        record = Record(
            id=identity.cell_id(cell),
            label=identity.cell_label(cell),
            cell=identity.describe_cell(cell),
            status="ok",
            quality={"top1": Scores(90.0, 360, 400, pack([1.0] * 400))},
            val_quality={"top1": Scores(90.0, 177, 197, pack([1.0] * 197))},
            cost=cost,
            dense_cost=cost,
            spent=Spent(16.0, 0.0, 8.0),
            notes={"widths": {f"layer{i}": [64, 32] for i in range(20)}},
            artifact=identity.digest(len(made)),
            reference=(reference := identity.cell_id(cell.reference) if cell.reference else ""),
            reference_artifact=made[reference].artifact if reference else "",
            environment=environment.environment(),
        )
        made[record.id] = record
        store.put(record)
        store.artifact(record.id).mkdir()
        (store.artifact(record.id) / "manifest.json").write_text("{}")
        if cell.seed == 0:
            for profile in (profile for profile in suite.profiles if not profile.unavailable()):
                dense = made.get(record.reference, record)
                described = identity.describe(profile) | {"version": 1, "label": identity.label(profile)}
                name = measurement_id(record, dense, profile, "quick")
                store.put(
                    MeasurementRecord(name, record.id, dense.id, described, "ok", "", timing(), record.environment)
                )
    return store.root


def timing() -> Measurement:
    return Measurement(
        1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 0.9, 1.1, 0.1, "quick", None, 32, 1, 30, 1, 1, 0.0,
        (0.0, 0.0), (None, None), (32, 1, 8, 8),
    )  # fmt: skip


def test_second_run_of_a_thousand_cells(benchmark, finished) -> None:
    """`bench run`, from the shell to the table."""
    bench = Path(sys.executable).with_name("bench")
    command = [bench, "run", "quick", "--seeds", f"n={SEEDS}", "--store", finished]
    done = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, text=True, check=True), rounds=5)
    assert "1008 cells, 1008 done, 0 to do" in done.stdout
    assert "compress" not in done.stdout.split("###")[0]


def test_start_of_a_worker(benchmark, tmp_path) -> None:
    """From a job in hand to its end, with the fork server up: what a cell pays for being apart."""
    store = Store(tmp_path)
    task = replace(discover.suite("quick").tasks[0])
    work = {"do": "check", "task": task, "store": store.root}

    def one() -> None:
        (_, event) = Local().run([Job("check", "check", work, store.log("check"))])
        assert event.kind == "done", event.value

    one()
    benchmark.pedantic(one, rounds=10)
