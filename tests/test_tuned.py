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
from slimbench.core import Arm, Budget, Recipe, Scores, Suite, UserError
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.methods.resconv import ResConv
from slimbench.reports import audit, documents, render, summary, summary_picture, table, tuned
from slimbench.reports.rows import Row, rows
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
        record(method, seed=s, top1=test + s, task=task, val_quality={"top1": Scores(val + s, val + s, 1)}, **more)
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
    (one,) = tuned.tuned(rows(found, [])).values()
    return {row.method: row for row in one.rows}


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
    assert ours["on val by rate (n)"] == "0.01: 80.50 (2); 0.05: 81.50 (2)"
    assert ours["Δ at other rates (n)"] == "0.01: +1.00 (2)"
    assert ours["Δ dense"] == "-5.00"
    assert "chosen on validation" in made.title
    assert any("spent its compression epochs at each" in text for text in made.captions)
    assert audit.tables([made], records(), []) == []


def test_a_row_that_was_not_tried_at_every_rate_is_left_out():
    """It had fewer tries, and a caption names it; what is unsupported at every rate stays, with its reason."""
    assert set(group(records())) == {"dense", "l1_channels", "random_channels", f"resconv v{ResConv.card.version}"}
    made, texts = shown()
    assert made.captions[-1] == "Left out, for they were not tried at every one of these rates: 0.5 macs: dcss."
    assert texts[f"resconv v{ResConv.card.version}"]["status"].startswith("unsupported 1/1 [1]")
    assert texts[f"resconv v{ResConv.card.version}"]["repair rate"] == ""


def test_equal_on_validation_is_either_with_all_its_seeds():
    """Compared over the seed that ran at both; the second one, of the full rate alone, is shown too."""
    _, texts = shown()
    assert texts["random_channels"]["repair rate"] == "either"
    assert texts["random_channels"]["top1 mean ± sd (n)"] == "70.50 ± 0.71 (2)"
    assert texts["dense"]["repair rate"] == ""


def test_of_equals_the_timed_one_shows():
    """Else a row that repairs nothing would lose its timing to a rate that nobody timed."""
    found = [r for r in records() if "random" not in r.label]
    low, full = (tried(RandomChannels(), task, 70, 70) for task in (LOW, FULL))
    for timed in (low[0], full[0]):
        _, texts = shown([*found, *low, *full], [measured(timed, 1.2, 1.1, 1.3)])
        (head,) = [head for head in texts["random_channels"] if head.startswith("measured speed-up")]
        assert texts["random_channels"][head].startswith("1.20x")


def test_published_weights_are_not_chosen_among():
    """Whoever trained them may have seen what is val here."""
    made = [replace(r, cell=r.cell | {"task": r.cell["task"] | {"weights": "somebody"}}) for r in records()]
    assert tuned.tuned(rows(records(), []))
    assert tuned.tuned(rows(made, [])) == {}


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
    assert group(lucky)["l1_channels"].choice.n == 2
    apart = [*tried(L1Channels(), LOW, 80, 86, seeds=(0,)), *tried(L1Channels(), FULL, 81, 85, seeds=(1,))]
    assert tuned.tuned(rows([*records()[:4], *apart], [])) == {}


def test_by_chance_equal_on_val_is_either_and_test_may_differ():
    """Then what the other rate has on test stands beside all the same."""
    found = [r for r in records() if "l1" not in r.label]
    found += [*tried(L1Channels(), LOW, 80, 60), *tried(L1Channels(), FULL, 80, 86)]
    made, texts = shown(found)
    assert texts["l1_channels"]["repair rate"] == "either"
    assert texts["l1_channels"]["Δ at other rates (n)"] == "0.01: -26.00 (2)"
    assert audit.tables([made], found, []) == []


@pytest.mark.parametrize("status", ["failed", "off_budget"])
def test_a_rate_at_which_it_did_not_end_well_loses(status):
    """A cell that crashed, or missed its budget, was tried there; and the text says how it ended."""
    scores = NOTHING if status == "failed" else {"val_quality": {"top1": Scores(99.0, 0, 1)}}
    bad = record(L1Channels(), task=FULL, budget=HALF, status=status, reason="so it was", **scores)
    found = [*(r for r in records() if "l1" not in r.label), *tried(L1Channels(), LOW, 80, 86), bad]
    made, texts = shown(found)
    assert texts["l1_channels"]["repair rate"] == "0.01"
    assert texts["l1_channels"]["on val by rate (n)"] == f"0.01: 80.50 (2); 0.05: {status} 1/1"
    assert audit.tables([made], found, []) == []


def test_of_misses_alone_validation_chooses_too():
    """As where a method cannot meet a budget: its row says so, at the better rate; one that only failed has no rate."""
    missed = {"status": "off_budget", "reason": "kept 0.9"}
    found = [r for r in records() if "l1" not in r.label and "random" not in r.label]
    found += [*tried(L1Channels(), LOW, 80, 60, **missed), *tried(L1Channels(), FULL, 85, 86, **missed)]
    found += [record(RandomChannels(), task=LOW, budget=HALF, status="failed", reason="no", **NOTHING)]
    found += tried(RandomChannels(), FULL, 70, 70, **missed)
    made, texts = shown(found)
    assert texts["l1_channels"]["top1 mean ± sd (n)"] == "86.50 ± 0.71 (2)"
    assert texts["l1_channels"]["repair rate"] == "0.05"
    assert texts["l1_channels"]["status"].startswith("off_budget 2/2")
    assert texts["random_channels"]["top1 mean ± sd (n)"] == "70.50 ± 0.71 (2)"
    assert texts[f"resconv v{ResConv.card.version}"]["repair rate"] == ""
    assert audit.tables([made], found, []) == []


@pytest.mark.parametrize("method", [L1Channels(), Dense()])
def test_a_stray_try_at_another_rate_changes_nothing(method):
    """The rates are those that most rows were tried at."""
    other = Digits(recipe=Recipe(fine_tune_lr=0.1))
    stray = tried(method, other, 99, 99, **({"macs": 1000} if isinstance(method, Dense) else {}))
    assert shown([*records(), *stray])[1] == shown()[1]


def test_what_lacks_val_scores_is_left_out():
    """An old record, say: it has nothing to choose by; a recipe that does not say its rate had the default."""
    blind = [replace(r, val_quality={}) if "l1" in r.label else r for r in records()]
    assert "l1_channels" not in group(blind)
    assert (
        "Left out, for they were not tried at every one of these rates: 0.5 macs: dcss, l1_channels."
        in shown(blind)[0].captions
    )
    half = [replace(r, val_quality={}) if "l1" in r.label and r.cell["seed"] else r for r in records()]
    made, texts = shown(half)
    assert texts["l1_channels"]["on val by rate (n)"] == "0.01: 80.00 (1); 0.05: 81.00 (1)"
    assert audit.tables([made], half, []) == []
    assert tuned._rate(replace(half[0], cell={**half[0].cell, "task": {"recipe": {}}})) == Recipe().fine_tune_lr


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
    assert "another rate was better on val than 0.01" in wrong(ids=low.partition(": ")[2])
    assert "the records at the rate 0.3 are others" in wrong(repair_tries=f"{low}; 0.3: {full.partition(': ')[2]}")
    assert "the records at the rate 0.05 are others" in wrong(
        repair_tries=" ".join(right["repair_tries"].split()[:-1]), ids=right["ids"].split()[0]
    )
    assert "are of none of the rates" in wrong(repair_tries=low)
    assert "was tried at the rates 0.01, other rows at 0.01, 0.05" in wrong(
        repair_tries=low, ids=low.partition(": ")[2]
    )
    assert "the rate is None, and by the records 0.05" in wrong(repair_rate=None)
    assert "the rate is 0.01, and by the records 0.05" in wrong(repair_rate=0.01)
    assert "99 is printed at the rate 0.01" in wrong(repair_on_val="0.01: 99; 0.05: 81.50")
    assert "+1.20 (2) is printed at the rate 0.01" in wrong(repair_elsewhere="0.01: +1.20 (2)")
    strange = next(f for f in made.facts if f["method"] == "random_channels")["repair_tries"]
    assert "or of more than one cell" in wrong(repair_tries=f"{strange.split('; ')[0]}; {full}")


def test_the_auditor_finds_a_choice_by_test(monkeypatch):
    """What is chosen otherwise is found, whatever the table says of itself."""
    monkeypatch.setattr(Row, "val_scores", Row.scores)
    made, texts = shown()
    monkeypatch.undo()
    assert texts["l1_channels"]["repair rate"] == "0.01"
    found = " ".join(map(str, audit.tables([made], records(), [])))
    assert "another rate was better on val than 0.01" in found


def test_documents_show_both_suites_as_one():
    """Which rates were chosen, at a glance; every try's records below; a picture of its own that says so."""
    (one,) = summary.summaries(SUITES, records(), [])
    text = summary.markdown(["low", "full"], one, "x.svg")
    assert (
        "Validation chose each row's rate of repair: 1 row at 0.05, 1 the same at every rate; "
        "left out: 1 not tried at every rate." in text
    )
    assert "Suites `low` and `full`, digits/resnet20" in text
    assert "`bench report tuned --store reports`" in text
    (line,) = [line for line in one.found if line.facts["method"] == "l1_channels"]
    assert all(r.id in text for t in line.row.choice.tries.values() for r in t.records)
    assert "dcss" not in text, "it had one rate"
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


def test_a_store_of_one_rate_says_so(tmp_path):
    """Not that it has no records; a document too."""
    store = Store(tmp_path / "reports")
    for one in records()[:2]:
        store.put(one)
    run = CliRunner().invoke(main, ["report", "tuned", "--store", str(store.root)])
    assert run.exit_code == 2
    assert "ran at several rates of repair: run a suite" in run.output
    with pytest.raises(UserError, match=r"no records of quick \+ smoke at several rates of repair: `bench run quick`"):
        documents.written_into(
            "<!-- results of quick + smoke: written by `bench check --write` -->\n<!-- end of results -->\n", tmp_path
        )


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
    assert all("0.01: 80.50 (2); 0.05: 81.50 (2)" in page.read_text() for page in pages)
    first, *others = re.findall(r"<h2>(.*?)</h2>", pages[1].read_text())
    assert "chosen on validation" in first
    assert len(others) == 2
