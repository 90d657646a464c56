"""Two nights are compared: what must be equal, what goes to a test, and what is said where neither can tell."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from scipy.stats import ttest_1samp

from nights import PROXY, night, record
from slimbench.baseline import newest
from slimbench.regression import (
    FALSE_DISCOVERIES,
    Finding,
    Proxy,
    compare,
    exit_status,
    is_worse,
    pairs_of,
    scores,
)


def verdicts(base, head, *, is_same_machine=True, **known) -> dict[str, set[str]]:
    """By kind."""
    found = compare(newest(base), newest(head), is_same_machine=is_same_machine, **known)
    return {kind: {f.verdict for f in found if f.kind == kind} for kind in dict.fromkeys(f.kind for f in found)}


def test_equal_nights_are_fine():
    """Nothing is tested: every sample scored as it did."""
    found = compare(newest(night()), newest(night()), is_same_machine=True)
    assert exit_status(found) == 0
    assert {f.text for f in found if f.kind == "counts"} == {"equal"}
    (said,) = (f.text for f in found if f.kind == "scores")
    assert "every sample as it was" in said
    assert "detectable" in said


@pytest.mark.parametrize(
    "change",
    [
        {"cost": replace(record(0).cost, macs=1001)},
        {"cost": replace(record(0).cost, params=101)},
        {"id": "another"},
        {"status": "off_budget"},
        {"status": "failed", "cost": None, "quality": {}},
    ],
)
def test_one_mac_is_a_regression(change):
    """So are a parameter, an id and a status, in one cell of six."""
    head = [replace(one, **change) if one.cell["seed"] == 3 else one for one in night()]
    found = compare(newest(night()), newest(head), is_same_machine=True)
    assert [f.what for f in found if f.verdict == "regression"] == [f"{PROXY} seed 3"]
    assert exit_status(found) == 1


def test_counts_that_hang_on_the_machines_arithmetic_cannot_be_told():
    """Other outputs on another machine may come with other channels; the same outputs may not."""
    other = night(7, noise=1, macs=1001)  # no seed scores as it did
    assert verdicts(night(), other, is_same_machine=False)["counts"] == {"cannot tell"}
    assert verdicts(night(), other)["counts"] == {"regression"}
    assert verdicts(night(), night(macs=1001), is_same_machine=False)["counts"] == {"regression"}


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("stopped after its time limit of 120 s", "cannot tell"),
        ("what it starts from failed: its process was killed by SIGKILL (out of memory?)", "cannot tell"),
        ("its process was killed by SIGSEGV", "regression"),
        ("ValueError: no such layer", "regression"),
    ],
)
def test_a_busy_machine_is_no_regression(reason, verdict):
    """A cell that was not given the time or the memory says nothing of the code; the finding says why it failed."""
    head = [*night()[:-1], replace(night()[-1], status="failed", reason=reason, cost=None, quality={})]
    found = [f for f in compare(newest(night()), newest(head), is_same_machine=True) if f.verdict != "fine"]
    assert [(f.verdict, f.text) for f in found] == [(verdict, f"ok became failed: {reason}")]
    (scored,) = (f.text for f in compare(newest(night()), newest(head), is_same_machine=True) if f.kind == "scores")
    assert "in 5 of 6 seeds" in scored


def test_a_cell_that_was_not_made_cannot_be_told():
    """And a new one is no fault."""
    assert verdicts(night(), night()[:-1])["run"] == {"cannot tell"}
    assert verdicts(night()[:-1], night())["run"] == {"fine"}


def test_a_night_that_made_nothing_is_no_good_night():
    """The run broke, whatever it said itself; another suite's records are none of the baseline's."""
    for head in ([], [replace(one, label=f"other {one.label}") for one in night()]):
        found = [f for f in compare(newest(night()), newest(head), is_same_machine=True) if f.kind == "run"]
        assert [(f.what, f.verdict) for f in found] == [("cells", "regression")]
        assert "none of the baseline's 6 cells was made" in found[0].text


def test_records_of_another_commit_cannot_be_told():
    """A store that was filled yesterday says nothing of today's code."""
    made = [replace(one, environment=one.environment | {"commit": "yesterday"}) for one in night()]
    assert verdicts(night(), made, commit="today")["run"] == {"cannot tell"}
    assert "run" not in verdicts(night(), made, commit="yesterday")


def test_the_newest_record_of_a_label_counts():
    """One id is of an older version of the method."""
    old = record(0)
    new = replace(record(0, 150), id="new", finished="2026-02-02T00:00:00+00:00")
    assert [cell.id for cell in newest([new, old])] == ["new"]


def test_too_few_seeds_cannot_be_told():
    """Five that changed are no test; five that did not are fine."""
    few = [one for one in night() if one.cell["seed"] < 5]
    assert verdicts(few, few)["scores"] == {"fine"}
    other = [one for one in night(noise=1) if one.cell["seed"] < 5]
    assert verdicts(few, other)["scores"] == {"cannot tell"}


def test_the_test_is_scipys():
    """One-sided, paired; a metric of which less is better is turned round."""
    pairs = pairs_of(newest(night()), newest(night(noise=1)))
    proxy = Proxy.of(PROXY, pairs)
    gains = [head.value - base.value for base, head in pairs]
    assert proxy.p_worse() == pytest.approx(ttest_1samp(gains, 0, alternative="less").pvalue)
    turned = Proxy.of(PROXY, [(replace(b, higher_is_better=False), h) for b, h in pairs])
    assert turned.p_worse() == pytest.approx(1 - proxy.p_worse())


def test_detectable_difference_is_found_four_times_in_five():
    """By drawing nights: normal scores, one of ten proxies lost as much, at the strictest level it can meet."""
    draw = random.Random(0)
    base = Proxy(PROXY, "top1", dict(enumerate((-1.2, -0.8, -0.1, 0.3, 0.7, 1.1))), {}, 1, 6)
    loss, sd, found = base.detectable(10), base.spread, 0
    for _ in range(2000):
        before, after = ({s: draw.gauss(0, sd) - d for s in range(6)} for d in (0.0, loss))
        found += Proxy(PROXY, "top1", before, after, 1, 6).p_worse() <= FALSE_DISCOVERIES / 10
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_a_planted_loss_of_twice_the_detectable_is_found():
    """In one proxy of forty whose every score moved as another seed's would; no other is blamed."""
    base = newest(night(proxies=40))
    detectable = Proxy.of(PROXY, [(cell, cell) for cell in base if cell.proxy == PROXY]).detectable(40)
    head = newest(night(round(2 * detectable * 2), proxies=40, noise=1))  # two samples of 200 are a point
    found = scores(pairs_of(base, head), 40)
    assert [f.what for f in found if f.verdict == "regression"] == [PROXY]
    assert {f.verdict for f in scores(pairs_of(base, newest(night(proxies=40, noise=1))), 40)} == {"fine"}


def test_a_loss_that_nobody_would_see_is_none():
    """All seeds lost a hundredth of their spread: certain, and not worth a word."""
    base = {s: float(s) for s in range(6)}
    proxy = Proxy(PROXY, "psnr", base, {s: v - 0.01 - 1e-4 * s for s, v in base.items()}, 1, 6)
    assert proxy.p_worse() < 1e-6
    assert not is_worse(proxy, proxy.p_worse())


def test_exit_status_of_findings():
    """A regression outweighs what could not be told."""
    fine, bad, open_ = (Finding("scores", "it", v, "") for v in ("fine", "regression", "cannot tell"))
    assert [exit_status(f) for f in ([], [fine], [fine, open_], [open_, bad, fine])] == [0, 0, 2, 1]
