"""The area under a curve of quality against MACs: its definition, where there is none, and where it is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made import record
from slimbench.core import Budget
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.reports import across, area, audit, pictures, printed, render, table
from slimbench.reports.rows import rows

DENSE = [record(Dense(), seed=s, top1=92.0 + s, macs=1000) for s in (0, 1)]
HALF = [record(DCSS(), 0.5, s, 90.0 + s, 500) for s in (0, 1)]
QUARTER = [record(DCSS(), 0.25, s, 80.0 + s, 250) for s in (0, 1)]
EVERY = (DENSE, HALF, QUARTER)


def areas(found):
    (group,) = rows(found, []).values()
    return list(area.areas(group).values())


def test_trapezoids_divided_by_the_width():
    """(80 + 90) / 2 over a quarter, (90 + 92) / 2 over a half; a second seed that is one point better throughout."""
    (found,) = areas([*DENSE, *HALF, *QUARTER])
    first = (85.0 * 0.25 + 91.0 * 0.5) / 0.75
    assert found.taken.mean == pytest.approx(first + 0.5)
    assert (found.points, found.low, found.high, found.taken.n) == (3, 0.25, 1.0, 2)
    assert found.taken.low < first + 0.5 < found.taken.high


def test_a_level_curve_has_its_own_height():
    """Whatever the points' places."""
    flat = [replace(r, quality=DENSE[0].quality) for r in (DENSE[0], HALF[0], QUARTER[0])]
    (found,) = areas(flat)
    assert found.taken.mean == pytest.approx(92.0)


def test_where_there_is_none():
    """Two points, points without a common seed, points of another training, points that missed their budget."""
    assert areas([*DENSE, *HALF]) == []
    assert areas([*DENSE, HALF[0], QUARTER[1]]) == []
    assert areas([*DENSE, *HALF, *(replace(r, status="off_budget", reason="missed") for r in QUARTER)]) == []
    assert areas([*HALF, *QUARTER]) == [], "without the dense network no curve ends anywhere"
    equal = [replace(r, cost=DENSE[0].cost) for r in (*HALF, *QUARTER)]
    assert areas([*DENSE, *equal]) == [], "no width"


def test_points_that_were_asked_for_otherwise_are_no_curve():
    """Of MACs alone, and of MACs and params: one operating point is not two."""
    both = Budget(0.25, epochs=8, params_keep=0.5)
    beside = [record(DCSS(), seed=s, top1=80.0, macs=260, budget=both) for s in (0, 1)]
    assert areas([*DENSE, *QUARTER, *beside]) == []
    (found,) = areas([*DENSE, *HALF, *QUARTER, *beside])
    assert found.points == 3


def test_curves_of_the_same_networks_are_one():
    """Where the seeds gave one at every point; one that differs at one point makes another curve."""
    once = [[replace(r, quality=part[0].quality, artifact=str(i)) for r in part] for i, part in enumerate(EVERY)]
    (found,) = areas([r for part in once for r in part])
    assert (found.taken.n, len(found.ids)) == (1, 3)
    (found,) = areas([*once[0], *once[1], *QUARTER])
    assert found.taken.n == 2


def test_only_the_seeds_that_every_point_has():
    """A point of one seed leaves one, which has no interval."""
    (found,) = areas([*DENSE, *HALF, QUARTER[0]])
    assert found.taken.n == 1
    (line,) = [f for f in table.tables([*DENSE, *HALF, QUARTER[0]], [])[0].facts if f["keep_asked"] == 0.25]
    assert line["area"] is not None
    assert line["area_low"] is None


def test_where_it_is_shown(tmp_path):
    """A column of the overall table, nothing where no curve is long enough, and the words below the picture."""
    every = [*DENSE, *HALF, *QUARTER, record(L1Channels(), 0.5, macs=500)]
    (overall,) = across.overall(every, [])
    place = overall.heads.index("A: area under the curve")
    shown = {(row[0].text, row[1].text): row[place].text for row in overall.body}
    assert shown["l1_channels", "0.5 macs, 8 epochs"] == ""
    assert shown["dcss", "0.5 macs, 8 epochs"] == shown["dcss", "0.25 macs, 8 epochs"]
    assert shown["dcss", "0.5 macs, 8 epochs"].startswith("89.50 [")
    assert shown["dcss", "0.5 macs, 8 epochs"].endswith("] (2) over 0.25 to 1")
    assert "area under the curve" not in " ".join(across.overall([*DENSE, *HALF], [])[0].heads)
    (group,) = rows(every, []).values()
    (under,) = pictures.areas(table.lines("heading", group))
    assert under.startswith("area under the curve of dcss, 8 epochs: 89.50 [")


def test_it_is_audited(tmp_path):
    """Of tables and of a CSV that was read back; a wrong one is found."""
    every = [*DENSE, *HALF, *QUARTER]
    found = table.tables(every, [])
    assert audit.tables(found, every, []) == []
    (file := tmp_path / "table.csv").write_text(render.csv(found))
    assert audit.against(printed.ours(file), every, []) == []
    facts = [{**line, "area": line["area"] + 0.1} if line["area"] else line for line in found[0].facts]
    assert any("area is" in str(problem) for problem in audit.against(facts, every, []))
