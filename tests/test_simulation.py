"""The simulation of many runners: every cell is done once, and no runner's second is lost from the books."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks" / "performance"))
import simulation  # noqa: E402

LENGTHS = [5.0, 20.0, 200.0, 3000.0]
CALM = simulation.Scene("calm", runners=20, cells=600, deaths=0.0)
FATAL = replace(CALM, deaths=0.5)
STALLED = replace(FATAL, stalls=0.5)


@pytest.mark.parametrize("scene", [CALM, FATAL, replace(FATAL, walks=False)], ids=["calm", "fatal", "one cell a job"])
def test_every_cell_is_finished_once(scene):
    """Whoever dies."""
    out = simulation.simulate(scene, LENGTHS)
    assert out.finished == [1] * scene.cells
    assert bool(out.deaths) == bool(scene.deaths)


def test_only_a_runner_that_stood_still_finishes_a_cell_again():
    """In the moment before it looks at its leases."""
    out = simulation.simulate(replace(STALLED, stalls=60.0), [4.0, 8.0])
    assert min(out.finished) == 1
    assert 0 < sum(n - 1 for n in out.finished) <= out.stalls
    assert 0 < out.doubled_s <= 10 * out.stalls


@pytest.mark.parametrize("scene", [CALM, FATAL, STALLED], ids=["calm", "fatal", "stalled"])
def test_every_second_of_every_runner_is_accounted_for(scene):
    """All but the last operations of each, which end after the last cell."""
    out = simulation.simulate(scene, LENGTHS)
    told = out.useful_s + out.store_s + out.idle_s + out.down_s + out.repeated_s + out.doubled_s
    assert told == pytest.approx(scene.runners * out.span_s, rel=0.02)


def test_the_work_is_the_cells_lengths():
    """What dies is done again from its checkpoint, and nothing is left out."""
    calm, fatal = simulation.simulate(CALM, LENGTHS), simulation.simulate(FATAL, LENGTHS)
    assert fatal.useful_s == pytest.approx(calm.useful_s)
    assert calm.repeated_s == 0 < fatal.repeated_s <= simulation.CHECKPOINT_S * fatal.deaths
    assert fatal.span_s > calm.span_s


def test_a_slow_store_costs_runners_that_walk():
    """Those with one cell a job ask for nothing else."""
    slow = replace(CALM, operation_s=0.05)
    walking, single = (simulation.simulate(replace(slow, walks=walks), LENGTHS) for walks in (True, False))
    assert walking.operations > 2 * single.operations
    assert walking.store_s > 2 * single.store_s


def test_the_same_seed_gives_the_same_table():
    """And another seed another one."""
    first, second = (simulation.row(FATAL, simulation.simulate(FATAL, LENGTHS, seed=1)) for _ in range(2))
    assert first == second != simulation.row(FATAL, simulation.simulate(FATAL, LENGTHS, seed=2))


def test_the_document_holds_a_table_of_every_scene():
    """Between markers, for the script to write anew."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    table = text.partition(simulation.BEGIN)[2].partition(simulation.END)[0]
    assert simulation.written_into(text, table.strip("\n")) == text
    for scene in simulation.SCENES:
        assert scene.name in table
    with pytest.raises(ValueError, match="markers"):
        simulation.written_into("nothing", table)
