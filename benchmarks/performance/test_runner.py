"""The runner's own speed: a finished suite of a thousand cells, planned, skipped and reported; and a worker's start.

BENCH_SCALE=100 makes it of a hundred.
"""

from __future__ import annotations

import os
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

CELLS = int(os.environ.get("BENCH_SCALE", "1000"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, int, int]:
    """A store in which every cell of the quick suite is done, for how many seeds, and how many cells that are."""
    store, settings = Store(tmp_path_factory.mktemp("finished")), environment.resolve()
    seeds = max(1, CELLS // len(plan(Filter(seeds=(0,)).of(discover.suite("quick")), settings)))
    suite = Filter(seeds=tuple(range(seeds))).of(discover.suite("quick"))
    cost = Cost(1000, 100, 100, 90, 50, 400, (("relu", 0.1),))
    made: dict[str, Record] = {}
    for cell in plan(suite, settings):
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
    return store.root, seeds, len(made)


def timing() -> Measurement:
    return Measurement(
        1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 0.9, 1.1, 0.1, "quick", None, 32, 1, 30, 1, 1, 0.0,
        (0.0, 0.0), (None, None), (32, 1, 8, 8),
    )  # fmt: skip


def test_second_run_of_a_thousand_cells(benchmark, finished) -> None:
    """`bench run`, from the shell to the table."""
    bench = Path(sys.executable).with_name("bench")
    root, seeds, cells = finished
    command = [bench, "run", "quick", "--seeds", f"n={seeds}", "--store", root]
    done = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, text=True, check=True), rounds=5)
    assert f"{cells} cells, {cells} done, 0 to do" in done.stdout
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
