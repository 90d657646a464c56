"""A metric that is better when lower: ranks, controls, fronts, comparisons and verdicts turn; differences do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from made import record
from slimbench import identity
from slimbench.core import Budget, Cell, Metric, Scores
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.reports import audit, judging, pictures, table
from slimbench.reports._text import BOLD
from slimbench.reports.claim import Claim, Select
from slimbench.reports.rows import headline, rows
from slimbench.reports.site import compare, curves
from slimbench.statistics import paired
from slimbench.tasks.digits import Digits
from test_tables import NOISE, cells


@dataclass(frozen=True)
class Wrong(Digits):
    """Digits, scored by how many are wrong."""

    name: ClassVar[str] = "wrong"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("error", "%", higher_is_better=False),)


def seeds(method, error, sign=1, keep=0.5, macs=500):
    return [
        record(method, keep, s, task=Wrong(), macs=macs, quality={"error": Scores(error + sign * NOISE[s], 0.0, 0.0)})
        for s in range(6)
    ]


DENSE = seeds(Dense(), 8.0, keep=1.0, macs=1000)
SIX = [*DENSE, *seeds(DCSS(), 9.0), *seeds(L1Channels(), 11.0, sign=-1), *seeds(RandomChannels(), 15.0)]


def test_records_tell_the_direction_only_where_it_is_the_other_one():
    """So that no record of the tasks that ship changes; the id does not depend on it."""
    assert DENSE[0].cell["task"]["lower_is_better"] == ["error"]
    assert "lower_is_better" not in identity.describe_cell(Cell(Digits(), Dense(), Budget(1.0), 0))["task"]


def test_ranks_turn():
    """The least error is of the first tier and bold, and the control of the least error is the best."""
    (found,) = table.tables(SIX, [])
    assert "error, lower is better, mean ± sd (n)" in found.heads
    by_method = {name: cells(found, name) for name in ("dcss", "l1_channels", "random_channels")}
    assert [row["tier"] for row in by_method.values()] == ["a", "b", "c"]
    assert [BOLD in row["error, lower is better, mean ± sd (n)"] for row in by_method.values()] == [True, False, False]
    assert by_method["dcss"]["Δ best control"].endswith("] (l1_channels)")
    assert by_method["dcss"]["Δ dense"].startswith("+1.00"), "ours - theirs, whichever is better"
    assert audit.tables([found], SIX, []) == []


def test_the_auditor_knows_it_by_itself():
    """Facts that rank the larger error first are found."""
    (found,) = table.tables(SIX, [])
    facts = [line | {"is_best": line["method"] == "random_channels"} for line in map(dict, found.facts)]
    problems = audit.tables([replace(found, facts=tuple(facts))], SIX, [])
    assert any("marked best, and is not" in str(problem) for problem in problems)


def test_the_front_turns():
    """Of equal cost the lower stays; what costs more and is no lower is left out."""
    points = [(0.5, 10.0), (0.5, 9.0), (0.3, 12.0), (0.6, 9.5), (1.0, 8.0)]
    assert pictures.front(points, -1) == [(0.3, 12.0), (0.5, 9.0), (1.0, 8.0)]
    (group,) = rows(SIX, []).values()
    drawn = curves.points(table.lines("wrong", group))
    assert [round(mean) for _, mean in drawn["fronts"][0]] == [9, 8]


def test_compared_rows_and_verdicts_turn():
    """The lower one is better, and a claim that ours is better holds for it."""
    groups = rows(SIX, [])
    ours, theirs = (row for row in next(iter(groups.values())) if row.method in {"dcss", "l1_channels"})
    difference = paired(headline(ours.counted), headline(theirs.counted))
    assert compare.says(difference, ours.sign) == "first is better"
    claim = Claim("ours is better", "", "", Select("dcss"), Select("l1_channels"))
    (finding,) = judging.findings(claim, groups)
    assert finding.verdict == "supported"
    assert finding.estimate.mean > 1
