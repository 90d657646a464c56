"""The auditor reads whatever tables print: another digit anywhere, another word, a row that is not there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from conftest import ROOT
from made import measured, record
from slimbench.benchmarks.papers.claims import PAPERS
from slimbench.core import Budget, Recipe, Scores, Spent
from slimbench.discover import suite
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.reports import across, audit, audit_claims, audit_text, papers, summary, table, tuned
from slimbench.reports.claim import Claim, Paper, Select
from slimbench.store import Store
from slimbench.tasks.digits import Digits

SUITES = ("cifar10-reduced", "cifar10-reduced-rewound")
ONE = [record(Dense(), top1=92.0), record(DCSS(), 0.5, top1=91.0, macs=500), record(L1Channels(), 0.5, 0, 90.0, 500)]
CLAIM = Claim(
    "channels lose a point", "somewhere", "better", Select("dcss"), Select("l1_channels"), least=0.5, claimed=1.5
)  # fmt: skip
CURVE = [
    made
    for s in (0, 1)
    for made in (
        record(Dense(), seed=s, top1=92.0 + s),
        record(DCSS(), 0.5, s, 91.0, 500),
        record(DCSS(), 0.25, s, 85.0 + s, 250),
    )
]


def said(tables, records, taken=()):
    """What the auditor says, in one text."""
    return "; ".join(map(str, audit.tables(tables, records, taken)))


def changed(change, of, records, taken=()):
    """What the auditor says of a table's facts, in one text, once those of DCSS are changed."""
    facts = [{**f, **change} if f["method"] == "dcss" else f for f in of.facts]
    return "; ".join(map(str, audit.against(facts, records, taken)))


# ------------------------------------------------------------------------------------------------------- columns


def made():
    """Every table that the project's own records give, by kind."""
    store = Store(ROOT / "reports", create=False)
    records, taken = store.summaries(), store.shared_timings()
    summaries = summary.summaries([suite(name) for name in SUITES], records, taken)
    kinds = [
        table.tables(records, taken),
        tuned.tables(records, taken),
        across.by_profile(records, taken),
        across.overall(records, taken),
        papers.tables(PAPERS, records, taken, lambda method: "card"),
        papers.overview(PAPERS, records, taken),
        [part for one in summaries for part in (*summary.tables(one), summary._folded(one))],
    ]
    return kinds, audit.Known(records, taken)


def forged(text):
    """A text with its numbers altered, one at a time; of a text without any another word."""
    numbers = list(re.finditer(r"\d+(?:\.\d+)?", text))
    other = {"7": "3"}
    changed = [f"{text[: m.start()]}{other.get(m[0][0], '7')}{text[m.start() + 1 :]}" for m in numbers]
    return changed or [f"{text} or so"]


def kind(head):
    """Heads that differ in a task, a metric, a point or a way of timing are one column to the auditor."""
    start = head.partition(", ")[0]
    if head.endswith((" mean ± sd (n)", ": area under the curve")):
        return head.rpartition(" mean ")[2].rpartition(": ")[2]
    if " % of " in head:
        return "a point"
    return "a task" if re.match(r"[A-Z]\d*: ", head) else start if start.startswith(("meas", "lat")) else head


def test_every_column_is_read():
    """One cell of each column of each kind of table is forged, number by number: all are noticed, but for words."""
    kinds, known = made()
    unread, looked = set(), set()
    for tables in kinds:
        seen = set()
        for at, one in enumerate(tables):
            above = next(i for i in range(at, -1, -1) if tables[i].level != 4)
            for place, head in enumerate(one.heads):
                found = [i for i, row in enumerate(one.body) if row[place].text]
                if not found or kind(head) in seen:
                    continue
                seen.add(kind(head))
                row = one.body[found[-1]]
                for text in forged(row[place].text):
                    body = list(one.body)
                    body[found[-1]] = (*row[:place], replace(row[place], text=text), *row[place + 1 :])
                    part = [*tables[above:at], replace(one, body=tuple(body)), *tables[at + 1 : at + 2]]
                    if not list(audit_text.problems(part, known)):
                        unread.add(kind(head))
        looked |= seen
    assert unread == audit_text.WORDS_ONLY.keys()
    assert {"nonzero", "detectable", "weights", "a point", "a task", "gap to claimed", "area under the curve"} <= looked


def test_a_column_that_nobody_reads_is_a_problem():
    """Of whatever head; an empty one says nothing."""
    (main,) = table.tables(ONE, [])
    for text, says in (("1.0", "'1.0' is read by nobody"), ("", "")):
        body = tuple((*row, table.Entry(text)) for row in main.body)
        assert says in said([replace(main, heads=(*main.heads, "luck"), body=body)], ONE)
        assert says or not said([replace(main, heads=(*main.heads, "luck"), body=body)], ONE)


def test_a_word_that_a_measurement_does_not_say_is_found():
    """Neither of the three may stand for another."""
    taken = [measured(ONE[0]), measured(ONE[1])]
    main, *rest = table.tables(ONE, taken)
    place = next(i for i, head in enumerate(main.heads) if head.startswith("measured"))
    for text, says in (
        ("1.50x [1.40, 1.60]", ""),
        ("1.50x [1.40, 1.60] no difference", "no difference' is printed for"),
        ("1.50x [1.40, 1.60] slower than dense", "slower than dense' is printed for"),
        ("1.50x", "'1.50x' is printed for"),
    ):
        body = tuple(
            (*row[:place], table.Entry(text), *row[place + 1 :]) if row[0].text == "dcss" else row for row in main.body
        )
        found = said([replace(main, body=body), *rest], ONE, taken)
        assert says in found
        assert bool(says) == bool(found)


# ---------------------------------------------------------------------------------------------------------- rows


def test_rows_that_are_not_those_of_the_facts_are_found():
    """One less, one twice, two in each other's place; in the tables behind the main one too."""
    taken = [measured(ONE[0]), measured(ONE[1])]
    main, behind = table.tables(ONE, taken)
    for one, tables in ((main, lambda changed: [changed, behind]), (behind, lambda changed: [main, changed])):
        assert said(tables(one), ONE, taken) == ""
        for body, says in (
            (one.body[:-1], "has 2 rows, and facts of 3"),
            ((*one.body, one.body[-1]), "has 4 rows, and facts of 3"),
            (one.body[::-1], "dense, method: 'l1_channels' is printed for dense"),
        ):
            assert says in said(tables(replace(one, body=body)), ONE, taken)


def test_a_table_of_dense_networks_alone_is_read():
    """Though no operating point is asked for in it."""
    dense = [record(Dense(), seed=s, top1=92.0) for s in (0, 1)]
    (main,) = table.tables(dense, [])
    assert "keep asked" not in main.heads
    assert said([main], dense) == ""
    wrong = tuple(tuple(replace(e, text=e.text.replace("92.00", "93.00")) for e in row) for row in main.body)
    assert "93.00 is printed for 92" in said([replace(main, body=wrong)], dense)


def test_a_finding_that_is_not_printed_is_found():
    """Of claims each fact is a row."""
    _, evidence = papers.overview((Paper("X", "Methods", ("dcss",), (CLAIM,)),), ONE, [])
    assert said([evidence], ONE) == ""
    assert "has 2 rows, and facts of 1" in said([replace(evidence, body=evidence.body * 2)], ONE)


# --------------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"difference_low": -3.0, "difference_high": 1.0}, "difference_low is -3.0, and by the records None"),
        ({"control_difference_low": 0.5}, "control_difference_low is 0.5, and by the records None"),
        ({"difference_n": 6}, "difference_n is 6, and by the records 1"),
        ({"difference_indicative": False}, "difference_indicative is False, of 1 pairs"),
        ({"detectable": 0.01}, "detectable is 0.01, and by the records None"),
    ],
)
def test_one_pair_has_no_interval(change, says):
    """An invented one is found, and so is all that would follow from more pairs."""
    (main,) = table.tables(ONE, [])
    assert says in changed(change, main, ONE)


def test_a_difference_of_nothing_is_found():
    """Of the dense network to itself, and to a control that is not there."""
    (main,) = table.tables(ONE, [])
    dense = [{**main.facts[0], "difference": 1.0}]
    assert "difference is 1.0, and by the records None" in str(audit.against(dense, ONE, [])[0])
    (best,) = [f for f in main.facts if f["method"] == "l1_channels"]
    assert best["control"] is None
    found = audit.against([{**best, "control_difference": 1.0, "control_difference_n": 1}], ONE, [])
    assert [str(p).partition(": ")[2] for p in found] == [
        "control_difference is 1.0, and by the records None",
        "control_difference_n is 1, and by the records 0",
    ]


def test_the_same_pair_of_networks_counts_once():
    """At however many seeds; the auditor would say so of a table that counts more."""
    alike = [replace(r, artifact=r.cell["method"]["is"]) for s in (0, 1, 2) for r in _seed(s)]
    (main,) = table.tables(alike, [])
    assert said([main], alike) == ""
    assert "difference_n is 3, and by the records 1" in changed({"difference_n": 3}, main, alike)


def _seed(s):
    return [record(Dense(), seed=s, top1=92.0), record(DCSS(), 0.5, s, 91.0, 500)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keep_asked": 0.11}, "keep_asked is 0.11, and by the records 0.5"),
        ({"epochs_asked": 99}, "epochs_asked is 99, and by the records 8"),
        ({"params_keep_asked": 0.5}, "params_keep_asked is 0.5, and by the records None"),
        ({"resource": "params"}, "resource is params, and by the records macs"),
        ({"network": "vgg16"}, "network is vgg16, and by the records resnet20"),
        ({"method": "etpf"}, "its records are of dcss"),
        ({"status": "failed 1/2"}, "status is 'failed 1/2', and by the records 'ok'"),
        ({"reasons": "no"}, "reasons is 'no', and by the records ''"),
        ({"refused": "no"}, "refused is 'no', and by the records ''"),
        ({"fidelity": "control"}, """fidelity is 'control', and by the records "authors' code, extension\""""),
        ({"offline": "a day"}, "offline is a day, and by the records None"),
        ({"threads": 8}, "threads is 8, and by the records 1"),
        ({"disturbed": "a neighbour"}, "disturbed is 'a neighbour', and by the records ''"),
    ],
)
def test_what_a_row_is_of_is_that_of_its_records(change, says):
    """Its operating point, its method, how it ended, and what was told of its timing."""
    taken = [measured(ONE[0]), measured(ONE[1])]
    assert says in changed(change, table.tables(ONE, taken)[0], ONE, taken)


def test_what_could_not_be_timed_is_told():
    """Why, beside what was timed."""
    taken = [measured(ONE[0]), replace(measured(ONE[1]), measurement=None, reason="no such device")]
    main, *speeds = table.tables(ONE, taken)
    assert said([main, *speeds], ONE, taken) == ""
    assert "by the records 'not measured on cpu: no such device'" in changed({"refused": ""}, main, ONE, taken)


def test_seeds_that_ended_otherwise_are_told():
    """How many, and why."""
    found = [
        *ONE,
        *_seed(1)[:1],
        record(DCSS(), 0.5, 1, status="failed", reason="out of memory", cost=None, quality={}),
    ]
    (main,) = table.tables(found, [])
    assert said([main], found) == ""
    told = changed({"status": "ok", "reasons": ""}, main, found)
    assert "status is 'ok', and by the records 'failed 1/2, ok 1/2'" in told
    assert "reasons is '', and by the records 'out of memory'" in told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"area_n": 6}, "area_n is 6, and by the records 2"),
        ({"area_points": 4}, "area_points is 4, and by the records 3"),
        ({"area_from": 0.1}, "area_from is 0.1, and by the records 0.25"),
        ({"area_to": 0.9}, "area_to is 0.9, and by the records 1.0"),
        ({"area_low": None}, "area_low is None, and by the records 8"),
        ({"epochs_asked": 9}, "the area under its curve is of other rows' records"),
    ],
)
def test_what_an_area_is_of_is_worked_out_again(change, says):
    """Its ends, its points and its seeds."""
    (main,) = table.tables(CURVE, [])
    assert said([main], CURVE) == ""
    assert says in changed(change, main, CURVE)


def test_an_area_of_too_little_is_found():
    """Of two points, and of one operating point that was asked for in two ways."""
    (main,) = table.tables(CURVE, [])
    first = next(f for f in main.facts if f["method"] == "dcss")
    two = " ".join(r.id for r in CURVE if r.cell["budget"]["keep"] != 0.25)
    assert "is of 2, 2 points" in "; ".join(map(str, audit.against([{**first, "area_ids": two}], CURVE, [])))
    beside = record(DCSS(), seed=0, macs=260, budget=Budget(0.25, epochs=8, params_keep=0.5))
    more = {**first, "area_ids": f"{first['area_ids']} {beside.id}"}
    assert "of other rows' records" in "; ".join(map(str, audit.against([more], [*CURVE, beside], [])))


def test_an_area_that_counts_networks_twice_is_found():
    """Two seeds of one network at every point are one curve."""
    names = {record.id: str(record.cell["budget"]["keep"]) for record in CURVE}
    (main,) = table.tables(CURVE, [])
    alike = [replace(r, artifact=names[r.id]) for r in CURVE]
    assert "counts networks twice" in "; ".join(map(str, audit.against(main.facts, alike, [])))


# -------------------------------------------------------------------------------------------------------- claims


def finding(monkeypatch, claim=CLAIM, more=(), **changes):
    """What the auditor says of the finding about a claim, once it is changed."""
    found = [r for s in (0, 1, 2) for r in (*_seed(s), record(L1Channels(), 0.5, s, 90.0 + 0.1 * s, 500))]
    found = [replace(r, spent=Spent(16.0, 0.0, 8.0)) for r in [*found, *more]]
    paper = Paper("X", "Methods", ("dcss",), (claim,))
    monkeypatch.setattr(audit_claims, "PAPERS", (paper,))
    claims, evidence = papers.overview((paper,), found, [])
    assert said([claims, evidence], found) == ""
    line = evidence.facts[0]
    return line, "; ".join(map(str, audit.against([{**line, **changes}], found, [])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"least": 0.1}, "least is 0.1, and the claim says 0.5"),
        ({"slack_sd": 3.0}, "slack_sd is 3.0, and the claim says 0.0"),
        ({"claimed": 1.0}, "claimed is 1.0, and the claim says 1.5"),
        ({"figure": "speed"}, "figure is speed, and the claim says quality"),
        ({"errors": -0.1}, "errors is -0.1, and by the records -10.3923"),
        ({"low": None}, "low is None, and by the records 0.6515"),
        ({"keep_asked": 0.4}, "keep_asked is 0.4, and by the records 0.5"),
        ({"version": 9}, "version is 9, and by the records 1"),
    ],
)
def test_a_claim_is_not_taken_from_the_finding(monkeypatch, change, says):
    """Threshold, slack and number are the paper's, errors are worked out again."""
    assert says in finding(monkeypatch, **change)[1]


def test_a_verdict_that_its_findings_do_not_give_is_found(monkeypatch):
    """In the table of a paper and in that of all; so is another figure, and a claim that one of two rows lacks."""
    found = [r for s in (0, 1, 2) for r in (*_seed(s), record(L1Channels(), 0.5, s, 90.0 + 0.1 * s, 500))]
    paper = Paper("X", "Methods", ("dcss",), (CLAIM,))
    claims, evidence = papers.overview((paper,), found, [])
    own, behind, *_ = papers.tables((paper,), found, [], lambda method: "card")
    assert said([claims, evidence, own, behind], found) == ""
    for one, below in ((claims, evidence), (own, behind)):
        place = one.heads.index("verdict")
        (row,) = one.body
        for text, says in (
            ("not supported (indicative: 3 seeds)", "is printed, and its findings say supported"),
            ("supported (indicative: 5 seeds)", "'indicative: 3 seeds' is to be told"),
            ("supported (reduced recipe; indicative: 3 seeds)", "'reduced recipe' is not to be told"),
        ):
            wrong = replace(one, body=((*row[:place], table.Entry(text), *row[place + 1 :]),))
            assert says in said([wrong, below], found)
    text = claims.body[0][3].text
    wrong = replace(claims, body=((*claims.body[0][:3], table.Entry(text.replace("0.90", "1.90")), claims.body[0][4]),))
    assert "1.90 is printed for 0.9" in said([wrong, evidence], found)
    both = replace(CLAIM, each="is", ours=Select("", {"is": ("dcss", "etpf")}))
    monkeypatch.setattr(audit_claims, "PAPERS", (replace(paper, claims=(both,)),))
    assert "its findings say cannot tell" in said([claims, evidence], found)


def test_a_word_that_is_no_verdict_is_found(monkeypatch):
    """Of another case, say."""
    assert "'Supported' is no verdict" in finding(monkeypatch, verdict="Supported")[1]


# ---------------------------------------------------------------------------------------------- what stands beside


def test_what_is_claimed_of_a_row_is_what_somebody_claims():
    """Of published weights, and of a method by a paper."""
    (main,) = table.tables(ONE, [])
    dense, dcss = ({**line, "claimed": 99.0, "claimed_note": "top-1"} for line in main.facts[:2])
    assert "claimed is 99.0, and by the records None" in str(audit.against([dense], ONE, [])[0])
    assert "claimed is 99.0, top-1, and no paper says so" in str(audit.against([dcss], ONE, [])[0])
    first = next(claim for paper in PAPERS for claim in paper.claims if claim.claimed is not None)
    assert audit.against([{**dcss, "claimed": first.claimed, "claimed_note": first.convention}], ONE, []) == []


def test_each_timing_of_a_row_says_the_same_control():
    """A fact of the first of two lines is looked at as that of the last."""
    taken = [measured(r, **more) for r in ONE[:2] for more in ({}, {"level": "full"})]
    taken = [replace(m, id=f"{i}") for i, m in enumerate(taken)]
    facts = table.tables(ONE, taken)[0].facts
    at = [i for i, f in enumerate(facts) if f["method"] == "dcss"]
    assert len(at) == 2
    for i in at:
        changed = [{**f, "control_difference": 9.0} if j == i else f for j, f in enumerate(facts)]
        (problem,) = audit.against(changed, ONE, taken)
        assert "control_difference is 9.0, and by the records 1.0" in str(problem)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repair_on_val": "0.01: 80.00 (3); 0.05: 81.00 (2)"}, "80.00 (3) is printed at the rate 0.01"),
        ({"repair_on_val": "0.05: 81.00 (2)"}, "nothing is printed at the rate 0.01, and by the records it is 80 (2)"),
        ({"repair_elsewhere": "0.01: +1.00 (1)"}, "+1.00 (1) is printed at the rate 0.01"),
        ({"repair_elsewhere": ""}, "nothing is printed at the rate 0.01, and by the records it is 1 (2)"),
    ],
)
def test_of_how_many_seeds_a_rate_of_repair_is(change, says):
    """No rate may be left out, and each says its seeds."""
    found = []
    for rate, val, test in ((0.01, 80.0, 86.0), (0.05, 81.0, 85.0)):
        task = Digits(recipe=Recipe(fine_tune_lr=rate))
        for s in (0, 1):
            found += [record(Dense(), seed=s, task=task), record(L1Channels(), 0.5, s, test, 500, task=task)]
            found[-1] = replace(found[-1], val_quality={"top1": Scores(val, val, 1)})
    (made,) = tuned.tables(found, [])
    assert said([made], found) == ""
    facts = [{**f, **change} if f["method"] == "l1_channels" else f for f in made.facts]
    assert says in "; ".join(map(str, audit.against(facts, found, [])))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.00 points (2), v3, cifar10/resnet56", "cifar10/resnet56"),
        ("1.00 points (2), v3, cifar10/resnet56 (3 dense epochs)", "cifar10/resnet56 (3 dense epochs)"),
        ("1.00 points (2), v3, cifar10/resnet56 (bf16 on cuda)", "cifar10/resnet56 (3 dense epochs, bf16 on cpu)"),
        ("1.00 points (2), v3, cifar10/resnet20", "cifar10/resnet56 (3 dense epochs, bf16 on cpu)"),
    ],
)
def test_where_a_finding_is_from_may_be_told_in_short(text, said):
    """Where less parts it from the others that decide; another recipe or network is no short form."""
    assert audit_text._shorter("cifar10/resnet56 (3 dense epochs, bf16 on cpu)", text) == said
