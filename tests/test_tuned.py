"""Rows at several rates of repair: validation chooses, test images never do, and the auditor chooses again."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from made import NOTHING, measured, record
from slimbench.cli import main
from slimbench.core import Arm, Budget, Recipe, Scores, Suite
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.methods.resconv import ResConv
from slimbench.reports import audit, render, summary, summary_picture, table, tuned
from slimbench.reports.rows import rows
from slimbench.store import Store
from slimbench.tasks.digits import Digits

LOW, FULL = (Digits(recipe=Recipe(fine_tune_lr=rate)) for rate in (0.01, 0.05))
HALF = Budget(0.5, epochs=8)
SUITES = [
    Suite(name, name, (task,), Dense(), (Arm((DCSS(), L1Channels(), RandomChannels(), ResConv()), (HALF,)),))
    for name, task in (("low", LOW), ("full", FULL))
]


def tried(method, task, val, test, seeds=(0, 1), **more):
    """A row's records at one rate; the means on val and on test are of seed 0, each next seed has one more."""
    more = {"budget": HALF, "macs": 500} | more
    return [
        record(method, seed=s, top1=test + s, task=task, val_quality={"top1": Scores(val + s, 0, 1)}, **more)
        for s in seeds
    ]


def records():
    """Val and test disagree on l1; random channels differ at neither; DCSS ran at one rate only."""
    return [
        *tried(Dense(), LOW, 90, 90, macs=1000),
        *tried(Dense(), FULL, 90, 90, macs=1000),
        *tried(L1Channels(), LOW, 80, 86),
        *tried(L1Channels(), FULL, 81, 85),
        *tried(RandomChannels(), LOW, 70, 70, seeds=(0,)),
        *tried(RandomChannels(), FULL, 70, 70),
        *tried(DCSS(), FULL, 99, 99),
        *(record(ResConv(), task=t, budget=HALF, status="unsupported", reason="no", **NOTHING) for t in (LOW, FULL)),
    ]


def group(found):
    """Its one comparison, by method."""
    ((_, part),) = tuned.tuned(rows(found, [])).items()
    return {row.method: row for row in part}


def shown(found=None, taken=()):
    """Its main table, as texts by method and head."""
    (made, *_) = tuned.tables(found or records(), taken)
    return made, {row[0].text: dict(zip(made.heads, map(made.shown, row), strict=True)) for row in made.body}


def test_validation_chooses_and_not_test():
    """Of the l1 norm the full rate, though the low one is better on test; the other rate's result stands beside."""
    made, texts = shown()
    ours = texts["l1_channels"]
    assert ours["repair rate"] == "0.05"
    assert ours["top1 mean ± sd (n)"] == "85.50 ± 0.71 (2)"
    assert ours["on val by rate"] == "0.01: 80.50; 0.05: 81.50"
    assert ours["on test at other rates"] == "0.01: 86.50 ± 0.71 (2)"
    assert ours["Δ dense"] == "-5.00"
    assert "chosen on validation" in made.title
    assert any("spent its compression epochs at each" in text for text in made.captions)
    assert audit.tables([made], records(), []) == []


def test_a_row_that_was_not_tried_at_every_rate_is_left_out():
    """It had fewer tries; what is unsupported at every rate stays, with its reason."""
    assert set(group(records())) == {"dense", "l1_channels", "random_channels", "resconv v2"}
    _, texts = shown()
    assert texts["resconv v2"]["status"].startswith("unsupported 1/1 [1]")
    assert texts["resconv v2"]["repair rate"] == ""


def test_equal_on_validation_is_either_with_all_its_seeds():
    """Compared over the seed that ran at both; the second one, of the full rate alone, is shown too."""
    _, texts = shown()
    assert texts["random_channels"]["repair rate"] == "either"
    assert texts["random_channels"]["top1 mean ± sd (n)"] == "70.50 ± 0.71 (2)"
    assert texts["dense"]["repair rate"] == ""


def test_rounding_chooses_nothing():
    """The same network may score otherwise in the last digit."""
    found = [r for r in records() if "l1" not in r.label]
    found += [*tried(L1Channels(), LOW, 80.1 + 1e-12, 80, seeds=(0,)), *tried(L1Channels(), FULL, 80.1, 80)]
    made, texts = shown(found)
    assert texts["l1_channels"]["repair rate"] == "either"
    assert texts["l1_channels"]["top1 mean ± sd (n)"].endswith("(2)")
    assert audit.tables([made], found, []) == []


def test_only_seeds_of_every_rate_are_compared():
    """A lucky third seed of one rate chooses nothing; without a common seed there is no choice."""
    lucky = [*records(), *tried(L1Channels(), LOW, 97, 97, seeds=(2,))]
    assert group(lucky)["l1_channels"].choice.means == {0.01: 80.5, 0.05: 81.5}
    apart = [*tried(L1Channels(), LOW, 80, 86, seeds=(0,)), *tried(L1Channels(), FULL, 81, 85, seeds=(1,))]
    assert tuned.tuned(rows([*records()[:4], *apart], [])) == {}


def test_a_rate_at_which_it_failed_loses():
    """A cell that crashed at one rate was tried there."""
    crashed = record(L1Channels(), task=FULL, budget=HALF, status="failed", reason="killed", **NOTHING)
    found = [*(r for r in records() if "l1" not in r.label), *tried(L1Channels(), LOW, 80, 86), crashed]
    assert group(found)["l1_channels"].choice.rate == 0.01


def test_less_is_better_where_the_task_says_so():
    """Then the lower mean on val is chosen."""
    found = [replace(r, cell={**r.cell, "task": {**r.cell["task"], "lower_is_better": ["top1"]}}) for r in records()]
    assert group(found)["l1_channels"].choice.rate == 0.01
    assert audit.tables(tuned.tables(found, []), found, []) == []


@pytest.mark.parametrize(
    "other", [Digits(recipe=Recipe(epochs=1, fine_tune_lr=0.05)), Digits("resnet14", Recipe(fine_tune_lr=0.05))]
)
def test_other_differences_are_no_choice(other):
    """More epochs or another network is another comparison."""
    found = [*tried(Dense(), LOW, 90, 90), *tried(L1Channels(), LOW, 80, 80), *tried(L1Channels(), other, 99, 99)]
    assert tuned.tuned(rows(found, [])) == {}


def test_one_rate_alone_is_no_comparison():
    """As in every store that never tried another."""
    assert tuned.tables([r for r in records() if r.cell["task"]["recipe"]["fine_tune_lr"] == 0.01], []) == []


def test_the_auditor_chooses_again():
    """It finds a row whose other rate was better on val, one that is no try, and a rate that is not its records'."""
    made, _ = shown()
    ((at, right),) = [(i, f) for i, f in enumerate(made.facts) if f["method"] == "l1_channels"]
    low, full = right["repair_tries"].split("; ")

    def wrong(**changes):
        facts = (*made.facts[:at], {**right, **changes}, *made.facts[at + 1 :])
        found = audit.tables([replace(made, body=(), facts=facts)], records(), [])
        return " ".join(map(str, found))

    assert wrong() == ""
    assert "on val 81.5 was better" in wrong(ids=low.partition(": ")[2])
    assert "is not what its records trained at" in wrong(repair_tries=f"{low}; 0.3: {full.partition(': ')[2]}")
    assert "what counts is none of them" in wrong(repair_tries=low)
    assert "is said to be open" in wrong(repair_rate=None)
    strange = next(f for f in made.facts if f["method"] == "random_channels")["repair_tries"]
    assert "were not tried on one cell" in wrong(repair_tries=f"{low}; {strange.split('; ')[1]}")


def test_documents_show_both_suites_as_one():
    """Which rates were chosen, at a glance; every try's records below; a picture of its own that says so."""
    (one,) = summary.summaries(SUITES, records(), [])
    text = summary.markdown(["low", "full"], one, "x.svg")
    assert "Repair rate of each row chosen on validation: 0.05 in 1; no difference in 1." in text
    assert "Suites `low` and `full`, digits/resnet20" in text
    assert "`bench report tuned --store reports`" in text
    (line,) = [line for line in one.found if line.facts["method"] == "l1_channels"]
    assert all(r.id in text for t in line.row.choice.tries.values() for r in t.records)
    assert "99.00" not in text, "DCSS had one rate"
    assert "chosen on validation" in summary_picture.svg(one)
    assert len(summary.summaries(SUITES[:1], records(), [])) == 1


def test_a_timing_follows_its_row():
    """The speed of the network that was chosen, not of the other."""
    found = records()
    low, full = (
        next(r for r in found if "l1" in r.label and r.cell["task"]["recipe"]["fine_tune_lr"] == rate)
        for rate in (0.01, 0.05)
    )
    _, texts = shown(found, [measured(low, 1.5), measured(full, 1.2, 1.1, 1.3)])
    (head,) = [head for head in texts["l1_channels"] if head.startswith("measured speed-up")]
    assert texts["l1_channels"][head].startswith("1.20x")


def test_the_command_prints_it(tmp_path):
    """Also as CSV, which the auditor reads back; the index of the store holds what the choice needs."""
    store = Store(tmp_path)
    for one in records():
        store.put(one)
    run = CliRunner().invoke(main, ["report", "tuned", "--store", str(tmp_path), "--format", "csv"])
    assert run.exit_code == 0, run.output
    (ours,) = [line for line in csv.DictReader(io.StringIO(run.stdout)) if line["method"] == "l1_channels"]
    assert ours["repair_rate"] == "0.05"
    (tmp_path / "ours.csv").write_text(run.stdout)
    for words in (["audit", "--store", str(tmp_path)], ["audit", str(tmp_path / "ours.csv"), "--store", str(tmp_path)]):
        checked = CliRunner().invoke(main, words)
        assert checked.exit_code == 0, checked.output
    (tmp_path / "ours.csv").write_text(run.stdout.replace(",0.05,", ",,"))
    assert CliRunner().invoke(main, ["audit", str(tmp_path / "ours.csv"), "--store", str(tmp_path)]).exit_code == 1


def test_other_tables_say_nothing_of_it():
    """A column that only a choice fills is in no other table."""
    made = table.tables(records(), [])
    assert not any("rate" in head for one in made for head in one.heads)
    assert "repair" not in render.csv(made)


def test_pages_show_it_before_the_tables_of_each_rate(tmp_path):
    """On the task's page and on the first."""
    store = Store(tmp_path / "store")
    for one in records():
        store.put(one)
    words = ["report", "site", "--store", str(store.root), "--out", str(tmp_path / "site")]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 0, run.output
    pages = [tmp_path / "site" / "index.html", *(tmp_path / "site" / "tasks").glob("*.html")]
    assert all("0.01: 80.50; 0.05: 81.50" in page.read_text() for page in pages)
    first, *others = re.findall(r"<h2>(.*?)</h2>", pages[1].read_text())
    assert "chosen on validation" in first
    assert len(others) == 2
