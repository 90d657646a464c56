"""A store of 100,000 cells: how long planning, skipping and the report take, and how much memory.

    pytest benchmarks/performance/test_scale.py --benchmark-only -s        BENCH_SCALE=10000 for a smaller one

The aims: plan and skip under 5 s, `bench report` under 10 s, under 1 GB. Each round is a process of its own, with the
index of the store up to date; the first look at a store that nothing has indexed is timed beside.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from slimbench import discover, environment, identity
from slimbench.core import Cost, Record, Scores, Spent, pack
from slimbench.plan import Filter, plan
from slimbench.schema import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

CELLS = int(os.environ.get("BENCH_SCALE", "100000"))
WATCHED = """
import contextlib, io, json, resource, sys, time
from slimbench import discover, environment, identity
from slimbench.plan import Filter, plan
from slimbench.run import left_to_do
from slimbench.store import Store

what, root, seeds = sys.argv[1], sys.argv[2], int(sys.argv[3])
started = time.perf_counter()
if what == "skip":
    suite = Filter(seeds=tuple(range(seeds))).of(discover.suite("quick"))
    cells = identity.by_id(plan(suite, environment.resolve()))
    assert not left_to_do(cells, Store(root))
else:
    from slimbench.cli import main
    command = ["report"] if what == "report" else ["plan", "quick", "--seeds", f"n={seeds}"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*command, "--store", root], standalone_mode=False)
    assert len(printed.getvalue()) > 1000
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
taken = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time()}
print(json.dumps({name: round(value, 2) for name, value in taken.items()} | {"peak_gb": round(peak, 3)}))
"""


def put(root: Path, record: Record) -> None:
    """As ``Store.put``, without waiting for the disk."""
    body = json.loads(json.dumps(dataclasses.asdict(record)))
    document = {"schema": SCHEMA, "body": body, "checksum": identity.digest(body)}
    (root / "records" / f"{record.id}.json").write_text(json.dumps(document, indent=1))
    (folder := root / "artifacts" / record.id).mkdir()
    (folder / "manifest.json").write_text("{}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, int]:
    """A store in which every cell of the quick suite is done, and for how many seeds."""
    root = tmp_path_factory.mktemp("finished")
    for folder in ("records", "artifacts"):
        (root / folder).mkdir()
    settings = environment.resolve()
    seeds = CELLS // len(plan(Filter(seeds=(0,)).of(discover.suite("quick")), settings)) + 1
    suite = Filter(seeds=tuple(range(seeds))).of(discover.suite("quick"))
    dense = Cost(1000, 100, 100, 90, 50, 400, (("relu", 0.1),))
    made: dict[str, str] = {}
    for cell in plan(suite, settings):
        score = {"top1": Scores(90.0 + cell.seed % 7, 360, 400, pack([1.0] * 360 + [0.0] * 40))}
        name = identity.cell_id(cell)
        reference = identity.cell_id(cell.reference) if cell.reference else ""
        made[name] = identity.digest(len(made))
        record = Record(
            id=name,
            label=identity.cell_label(cell),
            cell=identity.describe_cell(cell),
            status="ok",
            splits={"train": 1000, "val": 197, "test": 400},
            quality=score,
            val_quality=score,
            cost=dataclasses.replace(dense, nonzero=90 + cell.seed % 11),  # as pruning by weight has it: seeds differ
            dense_cost=dense,
            spent=Spent(16.0, 0.0, 8.0),
            notes={"widths": {f"layer{i}": [64, 32] for i in range(20)}},
            artifact=made[name],
            reference=reference,
            reference_artifact=made.get(reference, ""),
            environment=environment.environment(),
            seconds=10.0,
        )
        put(root, record)
    return root, seeds


def watched(what: str, finished: tuple[Path, int]) -> dict[str, float]:
    """Seconds and peak memory of a process that plans and skips, or runs `bench plan` or `bench report`."""
    root, seeds = finished
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, what, root, str(seeds)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", ["skip", "plan", "report"])
def test_a_hundred_thousand_cells(benchmark, finished, what) -> None:
    """Each with a fresh process, as a person would start it."""
    first = watched(what, finished)
    seen = [benchmark.pedantic(watched, args=(what, finished), rounds=1)]
    benchmark.extra_info |= {"cells": CELLS, "inside": seen[0], "first": first}
    print(f"\n{what} of {CELLS} cells: first look {first}, then {seen[0]}")
