"""The auditor finds every planted error: in our tables and records, and in published tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

import test_tables
from conftest import ROOT
from made import measured, record
from slimbench.core import Scores, UserError, pack
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.reports import audit, printed, published, render, table
from slimbench.reports._text import bold
from slimbench.store import Store

RECORDS = [
    made
    for s in (0, 1)
    for made in (
        record(Dense(), seed=s, top1=92.0 + s),
        record(DCSS(), 0.5, s, 91.0, 500),
        record(L1Channels(), 0.5, s, 90.0 - s, 500),
        record(RandomChannels(), 0.5, s, 80.0, 500),
    )
]
TAKEN = [measured(RECORDS[0]), measured(RECORDS[1])]


def problems(change, of="dcss"):
    """What the auditor says once the facts of a row are changed."""
    (main, taken) = table.tables(RECORDS, TAKEN)
    facts = tuple({**f, **change(f)} if f["method"] == of else f for f in main.facts)
    return [str(problem) for problem in audit.tables([replace(main, facts=facts), taken], RECORDS, TAKEN)]


def test_a_true_table_passes():
    """And so do the project's own records, and those of the same cells with other instructions."""
    assert problems(lambda f: {}) == []
    found = []
    for folder in ("reports", "reports/avx512"):
        store = Store(ROOT / folder, create=False)
        records, taken = store.records(), store.measurements()
        assert audit.records(records) == []
        assert audit.tables(table.tables(records, taken), records, taken) == []
        found.append({record.id for record in records})
    assert found[1] < found[0]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mean", 91.5, "mean is 91.5, and by the records 91.0"),
        ("sd", 0.3, "sd is 0.3"),
        ("n", 3, "n is 3, and by the records 2"),
        ("difference", -1.0, "difference is -1.0, and by the records -1.5"),
        ("difference_low", -2.0, "difference_low is -2.0"),
        ("control_difference", 2.5, "control_difference is 2.5, and by the records 1.5"),
        ("macs", 400.0, "macs is 400.0, and by the records 500"),
        ("macs_kept", 0.4, "macs_kept is 0.4"),
        ("params_kept", 0.9, "params_kept is 0.9"),
        ("theoretical_speedup", 2.5, "theoretical_speedup is 2.5"),
        ("measured_speedup", 1.8, "measured speed-up 1.8 lies outside its interval"),
        ("measured_speedup", 1.55, "measured_speedup is 1.55, and by the records 1.5"),
        ("measured_low", 0.1, "measured_low is 0.1, and by the records 1.4"),
        ("noise", 0.001, "noise is 0.001, and by the records 0.02"),
        ("p90_ms", 9.0, "p90_ms is 9.0"),
        ("p50_ms", 0.5, "the latencies divide to 3"),
        ("profile", "cpu(batch=1) quick", "measured speed-up 1.5 is of no record"),
        ("machine", "000000", "measured speed-up 1.5 is of no record"),
        ("kept", 0.4, "kept is 0.4, and by the records 0.5"),
        ("dense_epochs", 99.0, "dense_epochs is 99.0, and by the records 16.0"),
        ("control", "nobody", "the control nobody has records of another method"),
        ("control_ids", RECORDS[3].id, "a control in the table is better than l1_channels"),
        ("is_best", True, "is marked best, and is not, or of fewer than six seeds"),
        ("tier", "a", "stands in tier a, and is of fewer than six seeds"),
        ("ids", "0000", "no record 0000"),
    ],
)
def test_a_planted_figure_is_found(name, value, says):
    """Each by itself."""
    assert any(says in problem for problem in problems(lambda f: {name: value})), problems(lambda f: {name: value})


@pytest.mark.parametrize(
    ("letters", "says"),
    [
        (("a", "b", "c"), ""),
        (("b", "a", "c"), "tiers b a c do not follow the means"),
        (("a", "ab", "c"), "dcss 0.5 macs: shares a tier with l1_channels, and p is "),
    ],
)
def test_tiers_are_worked_out_again(letters, says):
    """Of three methods that are told apart; then of two that are not."""
    named = dict(zip(("dcss", "l1_channels", "random_channels"), letters, strict=True))
    found = _said_of_tiers(test_tables.SIX, named)
    assert [says in problem for problem in found] == [True] * bool(says), found


def test_rows_that_cannot_be_told_apart_share_a_tier():
    """Means follow; letters need not: a row of wide spread may share the first tier behind one that does not."""
    close = [*test_tables.SIX[:6], *test_tables.seeds(DCSS(), 89.02), *test_tables.seeds(L1Channels(), 89.0, sign=-1)]
    assert _said_of_tiers(close, {"dcss": "a", "l1_channels": "a"}) == []
    (said,) = _said_of_tiers(close, {"dcss": "a", "l1_channels": "b"})
    assert "shares no tier with l1_channels, and p is " in said
    wide = [record(RandomChannels(), 0.5, s, 90.5 + 3 * x, 500) for s, x in enumerate((1, -1, 1, -1, 1, -1))]
    apart = [*test_tables.SIX[:6], *test_tables.seeds(DCSS(), 91.0), *test_tables.seeds(L1Channels(), 90.8), *wide]
    found, *_ = table.tables(apart, [])
    assert {f["method"]: f["tier"] for f in found.facts if f["tier"]} == {
        "dcss": "a",
        "l1_channels": "b",
        "random_channels": "ab",
    }
    assert audit.tables([found], apart, []) == []


def _said_of_tiers(records, letters):
    """What the auditor says of these letters."""
    facts = tuple({**f, "tier": letters.get(f["method"], "")} for f in table.tables(records, [])[0].facts)
    return [str(p) for p in audit.against(facts, records, []) if "tier" in str(p)]


@pytest.mark.parametrize(
    ("head", "text", "says"),
    [
        ("top1 mean ± sd (n)", "91.10 ± 0.00 (2)", "91.10 is printed for 91"),
        ("Δ dense", "-1.4", "-1.4 is printed for -1.5"),
        ("Δ dense", "", "'' is printed for -1.5"),
        ("theoretical speed-up", "2.10x", "2.10 is printed for 2"),
        ("top1 mean ± sd (n)", bold("91.00 ± 0.00 (2)"), "dcss is bold, and not beyond the spread"),
    ],
)
def test_a_planted_text_is_found(head, text, says):
    """What is printed must be what the facts say, as far as it is printed."""
    (main, _) = table.tables(RECORDS, TAKEN)
    place = main.heads.index(head)
    body = tuple(
        tuple(table.Entry(text) if i == place and row[0].text == "dcss" else e for i, e in enumerate(row))
        for row in main.body
    )
    assert any(says in str(p) for p in audit.tables([replace(main, body=body)], RECORDS, TAKEN))


SSIM = [
    replace(r, quality={**r.quality, "ssim": Scores(0.9 + 0.01 * r.cell["seed"], 90.0 + r.cell["seed"], 100.0)})
    for r in RECORDS
]


def test_other_metrics_are_worked_out_again():
    """Beside the headline, in the facts and as they are printed."""
    (main, beside, _) = table.tables(SSIM, TAKEN)
    assert audit.tables([main, beside], SSIM, TAKEN) == []
    facts = tuple({**f, "mean of ssim": 0.99} for f in main.facts)
    assert any("mean of ssim is 0.99" in str(p) for p in audit.against(facts, SSIM, TAKEN))
    wrong = replace(beside, body=tuple((*row[:2], table.Entry("0.99 ± 0.01 (2)"), *row[3:]) for row in beside.body))
    found = audit.tables([main, wrong], SSIM, TAKEN)
    assert len(found) == len(main.body)
    assert "0.99 is printed for 0.905" in str(found[0])


@pytest.mark.parametrize("head", ["measured speed-up, cpu quick", "latency and memory, cpu quick"])
def test_a_planted_time_is_found(head):
    """Another ratio, another median."""
    shown = table.tables(RECORDS, TAKEN)
    (one,) = (one for one in shown if head in one.heads)
    place = one.heads.index(head)
    body = tuple(
        (*row[:place], table.Entry("7.77x [7, 8]"), *row[place + 1 :]) if row[0].text == "dcss" else row
        for row in one.body
    )
    changed = [replace(one, body=body) if part is one else part for part in shown]
    assert any("7.77 is printed for" in str(p) for p in audit.tables(changed, RECORDS, TAKEN))


def test_a_metric_of_somebodys_own_may_be_no_quotient():
    """A root of a mean, and an mIoU that keeps no areas."""
    rmse = Scores(3.0, 900.0, 100.0)
    bare = {"mIoU": Scores(50.0, 1.0, 2.0), "pixel_accuracy": Scores(50.0, 1.0, 2.0)}
    assert audit.records([replace(RECORDS[0], quality=q) for q in ({"rmse": rmse}, bare)]) == []


def test_areas_of_scenes_are_summed_again():
    """mIoU by the intersections and unions of two images' classes, pixel accuracy by the intersections."""
    areas = pack([3.0, 1.0, 4.0, 2.0, 1.0, 0.0, 2.0, 1.0])  # by image: two intersections, two unions
    iou = (3 + 1) / (4 + 2) + 1 / 3
    miou, right = Scores(50 * iou, iou, 2.0, areas), Scores(100 * 5 / 8, 5.0, 8.0, pack([0.7, 0.5]))
    first = RECORDS[0]
    assert audit.records([replace(first, quality={"mIoU": miou, "pixel_accuracy": right})]) == []
    bad = replace(miou, value=90.0, numerator=1.8)
    (problem,) = audit.records([replace(first, quality={"mIoU": bad, "pixel_accuracy": right})])
    assert "mIoU says 1.8, and its images' areas give 1" in str(problem)
    (problem,) = audit.records([replace(first, quality={"mIoU": replace(miou, value=99.0)})])
    assert "is 99" in str(problem)


def test_records_that_cannot_be_are_found():
    """Scores that are not what was divided; more nonzero params than params."""
    right = Scores(75.0, 3.0, 4.0, pack([1.0, 1.0, 1.0, 0.0]))
    first = RECORDS[0]
    assert audit.records([replace(first, quality={"top1": right})]) == []
    for bad, says in (
        (replace(right, value=76.0), "top1 is 76, and 3 / 4 is 0.75"),
        (replace(right, numerator=4.0, value=100.0), "samples that sum to 3, and says 4"),
    ):
        (problem,) = audit.records([replace(first, quality={"top1": bad})])
        assert says in str(problem)
    (problem,) = audit.records([replace(first, cost=replace(first.cost, nonzero=101))])
    assert "100 params, 101 nonzero" in str(problem)
    (problem,) = audit.records([replace(first, cost=None)])
    assert "nothing was counted" in str(problem)


def test_a_csv_of_ours_is_checked_against_the_records(tmp_path):
    """As it was written, and with one figure changed."""
    path = tmp_path / "ours.csv"
    path.write_text(render.csv(table.tables(RECORDS, TAKEN)))
    assert audit.against(printed.ours(path), RECORDS, TAKEN) == []
    path.write_text(path.read_text().replace("-1.5,", "-1.6,", 1))
    assert any("difference is -1.6" in str(p) for p in audit.against(printed.ours(path), RECORDS, TAKEN))


# ---------------------------------------------------------------------------------------------- published tables


def found(tmp_path, text, name="table.md"):
    """What the auditor says of a published table."""
    path = tmp_path / name
    path.write_text(text)
    return [str(problem) for problem in published.audit(path)[1]]


def one(tmp_path, text):
    """The only thing that it says."""
    (problem,) = found(tmp_path, text)
    return problem


TRUE = """
| Method | Model | Base | Pruned | Δ Acc | FLOPs (base) | FLOPs | FLOPs ↓ (%) | Speed-up |
|---|---|---|---|---|---|---|---|---|
| SFP | ResNet-56 | 93.59 | 93.36 | -0.23 | 125.49M | 59.48M | 52.6% | 2.11x |
| ours | ResNet-56 | 93.53 | **93.77** | +0.24 | 125.49M | 58.92M | 53.05% | 2.13x |
"""


def test_a_true_published_table_passes(tmp_path):
    """In Markdown and in CSV."""
    assert found(tmp_path, TRUE) == []
    rows = [line.strip("|").split("|") for line in TRUE.splitlines() if line and "---" not in line]
    assert found(tmp_path, "\n".join(",".join(c.strip() for c in row) for row in rows), "table.csv") == []


def test_wrong_deltas(tmp_path):
    """Two that were printed: 93.53 to 93.77 is not +0.38, 75.61 to 74.90 is not -0.69. Rounding is no error."""
    assert "wrong delta: +0.38 is printed, 93.77 - 93.53 is +0.24" in one(tmp_path, TRUE.replace("+0.24", "+0.38"))
    text = "| Method | Base | Pruned | Δ |\n|-|-|-|-|\n| HRank | 75.61 | 74.90 | -0.69 |\n| L1 | 75.61 | 75.8 | 0.2 |\n"
    assert "row 1 (HRank): wrong delta: -0.69 is printed" in one(tmp_path, text)
    drop = "| Method | Baseline acc | Acc | Acc drop |\n|-|-|-|-|\n| A | 93.26 | 92.17 | 0.09 |\n| B | 93 | 92 | 1 |\n"
    assert "wrong drop: 0.09 is printed, 93.26 - 92.17 is 1.09" in one(tmp_path, drop)


def test_impossible_ratios(tmp_path):
    """Shares that the counts do not give, and speed-ups."""
    assert "52.6 % of macs removed" not in "".join(found(tmp_path, TRUE))
    wrong = one(tmp_path, TRUE.replace("52.6%", "62.6%"))
    assert "impossible ratio: 62.6 % of macs removed is printed, and 59.48 M of 125.49 M is 52.6 %" in wrong
    wrong = one(tmp_path, TRUE.replace("2.11x", "2.51x"))
    assert "impossible ratio: a speed-up of 2.51 is printed, and the counts divide to 2.11" in wrong


def test_a_count_that_implies_another_base(tmp_path):
    """17.56 M (68.70 %) implies ResNet-50's 25.56 M in a table of ResNet-18."""
    text = """
| Method | Base | Pruned | #Params |
|---|---|---|---|
| L1 | 69.76 | 67.00 | 5.84 M (50.00%) |
| L2 | 69.76 | 67.10 | 8.03 M (68.70%) |
| BNScale | 69.76 | 66.00 | 17.56 M (68.70%) |
"""
    wrong = one(tmp_path, text)
    assert "row 3 (BNScale): impossible ratio: implies a base of 25.56 M params, other rows 11.6" in wrong


def test_mixed_conventions(tmp_path):
    """One network of 125 M and of 251 M; a speed-up of FLOPs over MACs; FLOPs that equal MACs."""
    text = TRUE.replace("| 125.49M | 58.92M | 53.05% |", "| 250.98M | 117.84M | 53.05% |")
    assert "mixed conventions: a base of 250.98 M, and 125.49 M in other rows" in one(tmp_path, text)
    text = TRUE.replace("| 59.48M | 52.6% | 2.11x", "| 118.96M |  | 2.11x")
    assert "mixed conventions: a speed-up of 2.11 is printed and the counts divide to 1.05" in one(tmp_path, text)
    text = "| Method | MACs | FLOPs |\n|-|-|-|\n| A | 125M | 125M |\n| B | 62M | 124M |\n"
    assert "row 1 (A): mixed conventions: 125.00 M MACs and 125.00 M FLOPs" in one(tmp_path, text)


def test_rows_out_of_reach(tmp_path):
    """Quality above 100, a negative share, an operating point that was missed."""
    assert any("out of reach: pruned quality 933.6" in p for p in found(tmp_path, TRUE.replace("93.36", "933.6")))
    text = "| Method | Acc | Params remaining (%) |\n|-|-|-|\n| A | 90.0 | 105.0 |\n| B | 90.0 | 50.0 |\n"
    assert "row 1 (A): out of reach: 105 % of params kept" in one(tmp_path, text)
    text = "| Method | Target | Speed-up | Acc |\n|-|-|-|-|\n| A | 4x | 2.1x | 90.0 |\n| B | 4x | 4.05x | 89.0 |\n"
    assert "row 1 (A): out of reach: 4x was asked for, and 2.1x is printed" in one(tmp_path, text)


def test_wrong_ranks(tmp_path):
    """Bold print that is not the best, and an order that is not the quality's."""
    text = "| Method | Acc |\n|-|-|\n| A | **93.1** |\n| B | 93.4 |\n"
    assert "row 1 (A): wrong rank: bold, and another row has 93.4" in one(tmp_path, text)
    text = "| Rank | Method | Acc |\n|-|-|-|\n| 1 | A | 93.1 |\n| 2 | B | 93.4 |\n| 3 | C | 90.0 |\n"
    assert "row 2 (B): wrong rank: below a row of 93.1, and has 93.4" in one(tmp_path, text)


def test_a_table_that_was_printed(tmp_path):
    """Rows of Torch-Pruning's: two wrong deltas, and bold print that is right at its speed-up."""
    text = """
| method | base | pruned | delta printed | speed-up |
|---|---|---|---|---|
| NISP | - | - | -0.03 | 1.76x |
| Polar | 93.80 | 93.83 | +0.03 | 1.88x |
| HRank | 93.26 | 92.17 (typo) | -0.09 | 2.00x |
| ResRep | 93.71 | 93.71 | 0.00 | 2.12x |
| DepGraph | 93.53 | **93.77** | +0.38 (is +0.24) | 2.13x |
"""
    assert [problem.partition(":")[0] for problem in found(tmp_path, text)] == [
        "table 1, row 3 (HRank)",
        "table 1, row 5 (DepGraph)",
    ]


def test_counts_are_no_percentages(tmp_path):
    """72.77 M kept, and two numbers in one cell, which are not read."""
    text = (
        "| method | base to pruned | FLOPs kept |\n|-|-|-|\n| A | 93.96 to 92.34 | 72.77 M |\n| B | -0.03 | 56.4 % |\n"
    )
    assert found(tmp_path, text) == []


def test_a_base_that_is_printed_once_is_of_the_rows_below(tmp_path):
    """An empty cell means the one above."""
    text = "| Method | Base | Pruned | Δ |\n|-|-|-|-|\n| A | 93.0 | 92.0 | -1.0 |\n| B |  | 91.0 | -1.0 |\n"
    assert "row 2 (B): wrong delta" in one(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("empty.md", "no table here\n", "holds no table"),
        ("ragged.csv", "a,b\n1,2,3\n", "row 1 has 3 cells, its table 2 heads"),
    ],
)
def test_files_without_a_table_are_refused_in_words(tmp_path, name, text, says):
    """One sentence."""
    with pytest.raises(UserError, match=says):
        found(tmp_path, text, name)
