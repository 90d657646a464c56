"""Tables from records: pure, honest about status, spread, device and speed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from made import NOTHING, measured, record
from slimbench import identity
from slimbench.core import Scores, Settings, Spent
from slimbench.environment import environment
from slimbench.methods.dense import Dense
from slimbench.methods.gpp import GPP
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.resconv import ResConv
from slimbench.reports import _text, audit, render, table
from slimbench.tasks.cifar import CIFAR10
from slimbench.tasks.texture_digits import TextureDigits

NOTE = "these weights have seen the validation split"


def markdown(records, taken) -> str:
    """Every task's tables."""
    return render.markdown(table.tables(records, taken))


def as_csv(records, taken) -> str:
    """Their numbers."""
    return render.csv(table.tables(records, taken))


def row_of(text: str, name: str) -> list[str]:
    """The cells of the row whose method is ``name``, in the first of a section's tables."""
    text = text.partition("Weights, latency and memory")[0]
    lines = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    assert len(lines) == 1, text
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


PAIR = [record(Dense()), record(L1Channels(), 0.5, top1=88.0, macs=500)]


def test_same_records_same_bytes():
    """In whatever order they come."""
    records = [*PAIR, record(Dense(), seed=1, top1=91.0), record(L1Channels(), 0.5, 1, 88.5, 500)]
    timings = [measured(r) for r in records[:2]]
    for make in (markdown, as_csv):
        assert make(records, timings) == make(records[::-1], timings[::-1])


def test_mean_spread_and_paired_difference():
    """Two seeds: mean ± sample deviation (n), and the interval of the paired differences."""
    records = [*PAIR, record(Dense(), seed=1, top1=91.0), record(L1Channels(), 0.5, 1, 90.0, 500)]
    text = markdown(records, [])
    cells = row_of(text, "l1_channels")
    assert "89.00 ± 1.41 (2)" in cells
    assert "-1.50" in cells
    assert "which decides nothing: l1_channels 0.5 macs [-7.85, +4.85]" in text
    assert "indicative: fewer than 6 seeds" in text


def test_one_seed_shows_no_spread():
    """Neither a deviation nor an interval."""
    cells = row_of(markdown(PAIR, []), "l1_channels")
    assert "88.00 (1)" in cells
    assert "-2.00" in cells


def test_counted_and_measured_are_two_columns():
    """Half the MACs, 1.2 times as fast."""
    text = markdown(PAIR, [measured(PAIR[1], 1.2, 1.1, 1.3)])
    cells = row_of(text, "l1_channels")
    assert "2.00x" in cells
    assert "1.20x [1.10, 1.30]" in cells
    assert "0.5000" in cells
    assert "MACs are multiply-accumulates (FLOPs = 2 x MACs)" in text


def test_slower_than_dense_is_said_aloud():
    """And an interval around 1 is no difference."""
    slow = markdown(PAIR, [measured(PAIR[1], 0.8, 0.7, 0.9)])
    assert "0.80x [0.70, 0.90] **slower than dense**" in slow
    same = markdown(PAIR, [measured(PAIR[1], 1.02, 0.98, 1.05)])
    assert "1.02x [0.98, 1.05] no difference" in same


def test_two_machines_never_share_a_column():
    """Each has its own, and its caption."""
    other = environment() | {"cpu": "another processor"}
    text = markdown(PAIR, [measured(PAIR[0]), measured(PAIR[1], env=other)])
    head = next(line for line in text.splitlines() if line.startswith("| method"))
    columns = [cell.strip() for cell in head.split("|") if "measured" in cell]
    assert len(set(columns)) == 2
    assert "another processor" in text


def test_two_versions_of_slimbench_share_a_column():
    """What timed is the machine and its runtimes."""
    here = environment()
    newer = here | {"versions": here["versions"] | {"slimbench": "99.0"}, "commit": "tomorrow"}
    text = markdown(PAIR, [measured(PAIR[0]), measured(PAIR[1], env=newer)])
    head = next(line for line in text.splitlines() if line.startswith("| method"))
    assert head.count("measured") == 1


def test_a_disturbed_timing_is_marked():
    """With its cause in a footnote."""
    text = markdown(PAIR, [measured(PAIR[1], disturbed="other work kept 1.9 of 2 cores busy right before")])
    assert "[1] disturbed: other work kept 1.9 of 2 cores busy" in text
    assert any(cell.endswith("[1]") for cell in row_of(text, "l1_channels"))


def test_every_status_shows_with_its_reason():
    """A failed seed beside a good one, an unsupported row, a missed budget."""
    bad = record(L1Channels(), 0.5, 1, status="failed", reason="killed by SIGKILL", **NOTHING)
    off = record(ResConv(), 0.5, macs=600, status="off_budget", reason="asked to keep 0.5 of macs, kept 0.6000")
    text = markdown([*PAIR, bad, off], [])
    assert "failed 1/2, ok 1/2 [1]" in text
    assert "[1] killed by SIGKILL" in text
    assert "off_budget 1/1 [2]" in text
    assert "88.00 (1)" in text, "the mean is of the seeds that ended well, and n says so"


def test_a_row_of_failures_has_no_numbers():
    """Rather than zeros."""
    bad = record(L1Channels(), 0.5, status="failed", reason="crashed", **NOTHING)
    cells = row_of(markdown([PAIR[0], bad], []), "l1_channels")
    assert cells[2:7] == ["", "", "", "", ""]


def test_fidelity_and_training_columns():
    """ResConv is re-derived, an extension elsewhere alone, and the four columns of training are there."""
    text = markdown([*PAIR, record(ResConv(), 0.5, macs=500)], [])
    assert "re-derived" in row_of(text, "resconv")
    segmented = markdown([record(Dense(), task=TextureDigits()), record(ResConv(), 0.5, task=TextureDigits())], [])
    assert "extension, re-derived" in row_of(segmented, "resconv")
    assert [*row_of(text, "resconv")[-4:]] == ["16.0", "0.0", "8.0", "ok"]


def test_published_weights_show_their_claim():
    """Claimed beside measured, and that they have seen the validation split."""
    published = {
        "claimed": 91.73,
        "source": "https://example.org",
        "note": NOTE,
    }
    dense = record(Dense(), task=CIFAR10(weights="akamaster"), published=published, spent=Spent(None), top1=91.7)
    text = markdown([dense], [])
    assert "Published weights claim 91.73 (https://example.org); measured 91.70. These weights have seen" in text
    assert row_of(text, "dense")[-5:-1] == ["published", "0.0", "0.0", "91.73 (published weights)"]


def test_columns_of_a_csv_are_numbers_or_words():
    """Epochs and claims are numbers or nothing; where weights are from, and what is claimed, stand beside; audited."""
    published = {"claimed": 91.73, "source": "https://example.org", "note": NOTE}
    task = CIFAR10(weights="akamaster")
    found = [record(Dense(), task=task, published=published, spent=Spent(None), top1=91.7), *PAIR]
    lines = list(csv.DictReader(io.StringIO(as_csv(found, []))))
    assert [line["dense_epochs"] for line in lines] == ["", "16.0", "16.0"]
    assert [line["weights"] for line in lines] == ["akamaster", "", ""]
    assert [(line["claimed"], line["claimed_note"]) for line in lines] == [
        ("91.73", "published weights"), ("", ""), ("", ""),
    ]  # fmt: skip
    (first, _) = tables = table.tables(found, [])
    assert audit.tables(tables, found, []) == []
    wrong = ({**first.facts[0], "weights": "others"},)
    assert any("weights is others" in str(p) for p in audit.against(wrong, found, []))


def test_several_claims_of_a_row_are_words():
    """No number says them all."""
    facts = {"claimed": None, "claimed_note": "1 a; 2 b", "is_dense": False}
    assert _text.claimed(facts) == "1 a; 2 b"


def test_other_settings_are_another_table():
    """Rows that were trained otherwise are not compared."""
    bf16 = record(Dense())
    bf16 = replace(bf16, id="f" * 16, cell=bf16.cell | {"settings": identity.describe(Settings("bf16"))})
    text = markdown([*PAIR, bf16], [])
    assert text.count("### digits/resnet20") == 2


def test_round_to_is_a_column_where_it_is_used():
    """And absent where nobody asked."""
    assert "round to" not in markdown(PAIR, [])
    text = markdown([*PAIR, record(L1Channels(round_to=8), 0.5, macs=500)], [])
    assert "round to" in text
    assert row_of(text, "l1_channels(round_to=8)")[3] == "8"


def test_csv_holds_the_same_numbers_unrounded():
    """One line a row and latency column, with the ids of its records."""
    lines = list(csv.DictReader(io.StringIO(as_csv(PAIR, [measured(PAIR[1], 1.2345, 1.1, 1.3)]))))
    (line,) = [line for line in lines if line["method"] == "l1_channels"]
    assert line["ids"] == PAIR[1].id
    assert float(line["measured_speedup"]) == 1.2345
    assert float(line["kept"]) == 0.5
    assert float(line["difference"]) == -2.0


def test_no_records_say_what_to_do():
    """Rather than an empty page."""
    assert "bench run --all" in markdown([], [])


def test_counted_figures_are_means_over_seeds():
    """Not the first seed's beside the mean of another column."""
    records = [*PAIR, record(Dense(), seed=1), record(L1Channels(), 0.5, 1, macs=250)]
    cells = row_of(markdown(records, []), "l1_channels")
    assert cells[2:4] == ["0.3750", "375 (37.5 %)"]
    assert "3.00x" in cells


def test_seeds_that_missed_the_budget_are_left_out_of_the_mean():
    """Unless all of them did."""
    off = {"status": "off_budget", "reason": "kept 0.9"}
    records = [*PAIR, record(Dense(), seed=1), record(L1Channels(), 0.5, 1, 10.0, 900, **off)]
    assert "88.00 (1)" in row_of(markdown(records, []), "l1_channels")
    alone = markdown([PAIR[0], record(L1Channels(), 0.5, 0, 10.0, 900, **off)], [])
    assert "10.00 (1)" in row_of(alone, "l1_channels")


def test_every_measured_seed_shows():
    """Two networks of one method: the mean ratio and the interval that holds both."""
    second = [record(Dense(), seed=1), record(L1Channels(), 0.5, 1, macs=500)]
    taken = [measured(PAIR[1], 2.0, 1.9, 2.1), measured(second[1], 1.0, 0.9, 1.1)]
    assert "1.50x [0.90, 2.10] (2 seeds) no difference" in markdown([*PAIR, *second], taken)


def test_weights_latency_and_memory_stand_in_a_table_of_their_own():
    """Means over seeds; a profile that cannot tell the peak tells the time."""
    second = [record(Dense(), seed=1), record(L1Channels(), 0.5, 1, macs=500)]
    taken = [
        measured(PAIR[0]),
        measured(PAIR[1], p50_ms=1.0, p90_ms=2.0, peak_bytes=40_000_000, dense_peak_bytes=50_000_000),
        measured(second[1], p50_ms=3.0, p90_ms=4.0, peak_bytes=60_000_000, dense_peak_bytes=50_000_000),
    ]
    taken[0] = replace(taken[0], measurement=replace(taken[0].measurement, peak_bytes=None))
    text = markdown([*PAIR, *second], taken).partition("Weights, latency and memory")[2]
    assert "| 0.0004 MB | 2 ms (p90 3), 50 MB" in text
    assert "1 ms (p90 1.1) " in text
    assert "Weights, latency and memory" not in markdown(PAIR, [])


def test_a_second_aim_shows_beside_the_first():
    """Two rows that differ in nothing else would look the same."""
    cell = PAIR[1].cell
    second = replace(PAIR[1], id="second", cell=cell | {"budget": cell["budget"] | {"params_keep": 0.445}})
    text = markdown([*PAIR, second], [])
    assert "| 0.5 macs " in text
    assert "| 0.5 macs, 0.445 params " in text


def test_within_the_noise_is_no_difference():
    """Dense against its copy reaches as far."""
    text = markdown(PAIR, [measured(PAIR[1], 0.95, 0.94, 0.96, noise=0.05)])
    assert "0.95x [0.94, 0.96] no difference" in text


def test_a_refused_measurement_says_so():
    """Rather than leaving an empty cell."""
    refused = replace(measured(PAIR[1]), status="failed", measurement=None, reason="refused: the clock went")
    text = markdown(PAIR, [refused])
    assert "[1] not measured on cpu: refused: the clock went" in text
    assert row_of(text, "l1_channels")[-1] == "ok [1]"


def test_seeds_of_two_environments_are_named():
    """Their mean is shown, and where they come from."""
    second = record(Dense(), seed=1, environment=environment() | {"cpu": "another processor"})
    text = markdown([*PAIR, second], [])
    assert "trained in 2 environments: " in text
    assert "another processor" in text


def test_a_tasks_own_fields_make_a_table_of_their_own():
    """Two scales of one task are not compared."""
    other = record(Dense())
    cell = other.cell | {"task": other.cell["task"] | {"scale": 4}}
    text = markdown([PAIR[0], replace(other, id="e" * 16, cell=cell)], [])
    assert text.count("### digits/resnet20") == 2
    assert "(scale=4)" in text


def test_every_other_metric_stands_in_a_second_table():
    """Each test set by itself, SSIM with four digits, mean and spread over seeds; also in the CSV."""

    def scores(psnr, ssim):
        return {"psnr_y set5": Scores(psnr, psnr, 1.0), "ssim_y set5": Scores(ssim, ssim, 1.0)}

    records = [record(Dense(), seed=s, quality=scores(30.0 + s, 0.9)) for s in (0, 1)]
    records += [record(L1Channels(), 0.5, seed=s, quality=scores(29.0, 0.8 + 0.01 * s)) for s in (0, 1)]
    first, second = markdown(records, []).split("Beside the headline")
    assert "psnr_y set5 mean ± sd (n)" in first
    assert "ssim_y" not in first
    assert row_of(second, "dense") == ["dense", "", "0.9000 ± 0.0000 (2)", "ok"]
    assert row_of(second, "l1_channels") == ["l1_channels", "0.5 macs", "0.8050 ± 0.0071 (2)", "ok"]
    flat = next(r for r in csv.DictReader(io.StringIO(as_csv(records, []))) if r["method"] == "l1_channels")
    assert float(flat["mean of ssim_y set5"]) == 0.805
    assert "Beside" not in markdown([record(Dense())], [])


def test_notes_that_are_numbers_are_drawn(tmp_path):
    """Tables of numbers, one picture each; not texts, lists or pairs. The same record, the same bytes."""
    from slimbench.reports import notes

    told = {"scales": {"a": 0.1, "b": 0.0, "c": 1.0}, "widths": {"a": [16, 8]}, "removed layers": ["a"], "formula": "P"}
    one = record(ResConv(), notes=told)
    (drawn,) = notes.draw(one, tmp_path / "pictures")
    assert drawn.name == f"{one.id}-scales.png"
    first = drawn.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert notes.draw(one, tmp_path / "pictures")[0].read_bytes() == first


def test_before_and_after_are_one_picture(tmp_path):
    """Over the same bins, beside the curves of the push; where numbers lie decades apart, zeros are counted."""
    from slimbench.reports import notes

    def told(largest):
        return {
            "utilities before push 1": {"0": 1.0, "1": 2.0, "2": 0.0},
            "utilities after push 1": {"0": 3.0, "1": largest, "2": 0.0},
        }

    course = {"power": [1.0, 2.0], "correlation": [0.2, 0.1], "effective": [9.0, 8.0]}
    one = record(GPP(), notes={**told(5.0), "push 1": course, "widths": {"a": [16, 8]}})
    drawn = [path.name for path in notes.draw(one, tmp_path)]
    assert drawn == [f"{one.id}-utilities-before-and-after-push-1.png", f"{one.id}-push-1.png"]

    def axes(largest):
        ((name, parts),) = notes._pictures(told(largest)).items()
        (found,) = notes._figure(name, parts, "title").axes
        labels = {text.get_text() for text in found.get_legend().get_texts()}
        counted = sum(bar.get_height() for bar in found.patches if hasattr(bar, "get_height"))
        return found.get_xscale(), labels, counted, found.get_xlabel()

    utility = "utility: variance between classes / variance within"
    assert axes(5.0) == ("linear", {"before (3)", "after (3)"}, 3, utility)
    assert axes(5e4) == ("log", {"before (3, 1 of them 0)", "after (3, 1 of them 0)"}, 2, utility)
    alone = {"utilities before push 1": {"0": 1.0, "1": 2.0}, "genotype before pruning": "dass-99"}
    assert list(notes._pictures(alone)) == list(alone), "no twin"
