"""One table model, six formats: the same numbers; controls, tiers, bold print; tables across tasks and profiles."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from made import measured, record
from slimbench import measure
from slimbench.core import Recipe, Scores, pack
from slimbench.hardware_profiles import _host
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.methods.resconv import ResConv
from slimbench.reports import _text, across, audit, figures, latex, render, table, terminal
from slimbench.reports._text import BOLD, PLAIN
from slimbench.reports.rows import Choice, compared, distinct_pairs, rows, short
from slimbench.reports.site import compare
from slimbench.store import Store, shared
from slimbench.tasks.digits import Digits
from slimbench.tasks.texture_digits import TextureDigits

NOISE = (0.1, -0.2, 0.15, 0.0, -0.1, 0.05)


def seeds(method, mean, count=6, sign=1, **more):
    """Some seeds of a method at half the MACs, around a mean."""
    return [record(method, 0.5, s, mean + sign * NOISE[s], 500, **more) for s in range(count)]


def dense(count=6):
    return [record(Dense(), seed=s, top1=92.0) for s in range(count)]


SIX = [*dense(), *seeds(DCSS(), 91.0), *seeds(L1Channels(), 89.0, sign=-1), *seeds(RandomChannels(), 85.0)]


def test_words_below_a_table_are_of_its_columns():
    """What has no column is not explained; of whole layers what was kept is said, where it is not what was asked."""
    (full,) = table.tables(SIX, [])
    assert all(word in full.captions[0] for word in ("Δ:", "Best control", "Detectable"))
    (one,) = table.tables([dense(1)[0], record(ResConv(), 0.5, 0, 91.0, 640), record(DCSS(), 0.5, 0, 91.0, 504)], [])
    assert not any(word in one.captions[0] for word in ("Best control", "Detectable", "Measured"))
    (said,) = [caption for caption in one.captions if "half of the largest" in caption]
    assert said.endswith(" 0.5 macs, 0.6400.")
    assert "resconv" in said
    assert "dcss" not in said


@pytest.mark.parametrize(("count", "said"), [(1, "1 epoch"), (2.5, "2.5 epochs")])
def test_one_epoch_is_no_epochs(count, said):
    """In pictures and across tasks."""
    assert _text.epochs({"epochs_asked": count}) == said


def cells(found, method):
    """A row's cells by their heads."""
    (row,) = [row for row in found.body if row[0].text == method]
    return dict(zip(found.heads, map(found.shown, row), strict=True))


def altered(records, **fields):
    """As if another file, or another default, had made them."""
    return [
        replace(r, id=f"{r.id[:-1]}{'x' if fields else 'y'}", cell=r.cell | fields.get("cell", {})) for r in records
    ]


def test_two_sources_of_one_file_are_two_rows():
    """A user's edit raises no version: the row says which source; seeds of one never count for the other."""
    first = [replace(r, cell=r.cell | {"user": {"mine": "aaaa"}}) for r in seeds(DCSS(), 91.0, 2)]
    second = altered(seeds(DCSS(), 89.0, 3), cell={"user": {"mine": "bbbb"}})
    found = [*dense(), *first, *second]
    (main,) = table.tables(found, [])
    names = [row[0].text for row in main.body[1:]]
    assert [name.partition(" [source=")[0] for name in names] == ["dcss", "dcss"]
    assert [line["n"] for line in main.facts[1:]] == [2, 3] or [line["n"] for line in main.facts[1:]] == [3, 2]
    (overall,) = across.overall(found, [])
    assert len(overall.body) == 2
    assert audit.tables([main, overall], found, []) == []


def test_planted_texts_across_tasks_and_profiles_are_found():
    """A difference, and a part of the theoretical speed-up."""
    found, taken = SIX, [measured(SIX[0]), measured(SIX[6])]
    (overall,), (timed,) = across.overall(found, taken), across.by_profile(found, taken)
    for one, place, text in ((overall, 2, "-9.99 (6)"), (timed, 7, "0.99"), (timed, 6, "9.99x"), (timed, 8, "9 ms")):
        assert audit.tables([one], found, taken) == []
        row = next(row for row in one.body if "dcss" in {entry.text for entry in row[:2]})
        wrong = tuple(replace(entry, text=text) if i == place else entry for i, entry in enumerate(row))
        body = tuple(wrong if other is row else other for other in one.body)
        problems = audit.tables([replace(one, body=body)], found, taken)
        assert problems
        assert all("is printed for" in str(problem) for problem in problems)


def test_a_changed_default_parts_rows_by_its_field():
    """Labels leave defaults out."""
    other = altered(seeds(DCSS(), 89.0, 2), cell={"method": record(DCSS(), 0.5).cell["method"] | {"penalty": 7.0}})
    (main,) = table.tables([*dense(), *seeds(DCSS(), 91.0, 2), *other], [])
    assert {row[0].text for row in main.body[1:]} == {f"dcss [penalty={DCSS().penalty}]", "dcss [penalty=7.0]"}


def test_a_field_that_is_newer_than_some_records_parts_nothing():
    """Its default does nothing; what both tell, and tell otherwise, does."""
    old = altered(seeds(DCSS(), 91.0, 2), cell={"method": {**record(DCSS(), 0.5).cell["method"]}})
    old = [
        replace(r, cell=r.cell | {"method": {k: v for k, v in r.cell["method"].items() if k != "pull"}}) for r in old
    ]
    new = [record(DCSS(), 0.25, s, 85.0, 250) for s in range(2)]
    (main,) = table.tables([*dense(), *old, *new], [])
    assert {row[0].text for row in main.body[1:]} == {"dcss"}


def test_networks_that_missed_are_timed_in_their_own_row_alone():
    """Numbers of a row, its timings too, are of the seeds that met the budget."""
    missed = replace(SIX[6], status="off_budget", reason="kept 0.9")
    found = [missed if r is SIX[6] else r for r in SIX]
    main, *rest = table.tables(found, taken := [measured(missed)])
    assert audit.tables([main, *rest], found, taken) == []
    assert cells(main, "dcss").get("measured speed-up, cpu quick", "") == ""


def test_seeds_of_one_network_share_one_timing():
    """Which is one, not three: published weights are the same in every seed."""
    alike = [replace(r, artifact="n", reference_artifact="d") for r in seeds(DCSS(), 91.0, 3)]
    found = [*(replace(r, artifact="d") for r in dense(3)), *alike]
    taken = shared([measured(alike[0])], {r.id: r for r in found})
    assert len(taken) == 3
    main, *rest = table.tables(found, taken)
    assert audit.tables([main, *rest], found, taken) == []
    assert [line["measured_seeds"] for line in main.facts if line["method"] == "dcss"] == [1]


def test_how_many_images_a_test_set_has_is_told():
    """Papers' means are over all of Set14; whatever else is scored has no such set."""
    scores = {
        name: Scores(30.0, 30.0 * n, n, pack([30.0] * n)) for name, n in (("psnr_y set5", 5), ("psnr_y set14", 13))
    }
    (_, beside) = table.tables([replace(r, quality=scores) for r in dense(1)], [])
    assert "Images: 5 of set5, 13 of set14." in beside.captions
    (_, beside) = table.tables([replace(r, quality=r.quality | {"top 5": scores["psnr_y set5"]}) for r in dense(1)], [])
    assert beside.captions == ()


def test_one_network_of_several_seeds_is_no_sample():
    """Its mean has neither spread nor seeds beside it; differences stay paired by seed; the auditor counts so too."""
    alike = [replace(r, artifact="d") for r in dense(3)]
    with_ssim = {"top1": alike[0].quality["top1"], "ssim": alike[0].quality["top1"]}
    found = [*(replace(r, quality=with_ssim) for r in alike), *seeds(DCSS(), 91.0, 3)]
    main, beside = tables = table.tables(found, [])
    assert cells(main, "dense")["top1 mean ± sd (n)"] == "92.00 (1)"
    assert cells(beside, "dense")["ssim"] == "92.0000 (1)"
    assert (main.facts[0]["n"], main.facts[0]["sd"], main.facts[1]["difference_n"]) == (1, None, 3)
    assert audit.tables(tables, found, []) == []
    for name, value in (("n", 3), ("sd", 0.0), ("sd of ssim", 0.0)):
        facts = ({**main.facts[0], name: value}, *main.facts[1:])
        assert any(f"{name} is {value}" in str(p) for p in audit.against(facts, found, []))


def test_one_network_of_six_seeds_is_not_beyond_any_spread():
    """Bold print is of six networks."""
    alike = [replace(r, quality=dense(1)[0].quality, artifact="n") for r in seeds(DCSS(), 91.0)]
    found = [*dense(), *alike, *seeds(L1Channels(), 85.0)]
    (main,) = table.tables(found, [])
    assert not any(line["is_best"] for line in main.facts)
    assert audit.tables([main], found, []) == []


def cloned(records, artifact):
    """As if every seed had given the first one's network."""
    return [replace(r, quality=records[0].quality, artifact=artifact) for r in records]


def test_two_networks_at_six_seeds_are_one_pair():
    """Nothing is told of differences, controls and tiers that one pair does not say; other pairs stay."""
    ours = cloned(seeds(DCSS(), 91.0), "n")
    found = [*cloned(dense(), "d"), *ours, *cloned(seeds(L1Channels(), 89.0), "l"), *seeds(RandomChannels(), 85.0)]
    lines = {line["method"]: line for line in table.tables(found, [])[0].facts}
    for name in ("difference", "control_difference"):
        line = lines["dcss"]
        assert (line[f"{name}_n"], line[f"{name}_low"], line[f"{name}_indicative"]) == (1, None, True)
    assert lines["dcss"]["detectable"] is None
    assert lines["dcss"]["difference"] == pytest.approx(-0.9)
    assert not any(line["tier"] or line["is_best"] for line in lines.values())
    assert lines["random_channels"]["difference_n"] == 6, "six networks beside one are six pairs"
    assert lines["random_channels"]["control_difference_n"] == 6


def test_a_pair_that_comes_again_counts_once():
    """At whatever seeds, and beside a third side that differs."""
    ours = [replace(r, artifact=name) for r, name in zip(seeds(DCSS(), 91.0), "aabbab", strict=True)]
    theirs = [replace(r, artifact=name) for r, name in zip(seeds(L1Channels(), 89.0), "xxxyxy", strict=True)]
    assert [list(side) for side in distinct_pairs(ours, theirs)] == [[0, 2, 3], [0, 2, 3]]
    assert compared(ours, theirs).n == 3
    assert [list(side) for side in distinct_pairs(ours, seeds(RandomChannels(), 85.0), theirs)] == [[0, 2, 3]] * 3
    assert list(distinct_pairs(ours)[0]) == list(range(6)), "one side is no pair"
    assert compared(ours[:2], theirs[2:]) is None


def test_rates_of_repair_are_compared_by_pairs_of_networks():
    """A rate that gave one network, beside the chosen one that did."""
    (group,) = rows([*cloned(seeds(DCSS(), 91.0, 3), "n"), *cloned(seeds(L1Channels(), 89.0, 3), "l")], []).values()
    best, other = group
    choice = Choice(0.1, {0.1: 70.0, 0.2: 60.0}, 3, {0.1: best, 0.2: other})
    assert figures._tried(replace(best, choice=choice))["repair_elsewhere"] == "0.2: -2.00 (1)"


RECIPES = [
    made
    for task in (Digits(), Digits(recipe=Recipe(epochs=40)))
    for made in (record(Dense(), task=task), record(DCSS(), 0.5, macs=500, task=task))
]


def test_headings_are_as_short_as_they_are_told_apart():
    """Task and network; of several their own parts, lists whole; a task with its own field beside one without."""
    first, second, third = (
        f"t91/edsr{own}: 3 dense epochs; trained in {how}, 1 thread(s); task version 1, recipe {recipe}"
        for own, how, recipe in (
            (" (folders=['a', 'b'], scale=2)", "fp32 on cpu", "aa"),
            (" (folders=['a', 'c'], scale=2)", "bf16 on cpu", "aa"),
            ("", "fp32 on cpu", "bb"),
        )
    )
    assert short([first, first]) == {first: "t91/edsr"}
    assert short([first, second]) == {
        first: "t91/edsr (folders=['a', 'b'], fp32 on cpu)",
        second: "t91/edsr (folders=['a', 'c'], bf16 on cpu)",
    }
    assert short([first, third])[third] == "t91/edsr (recipe bb)"


def test_recipes_of_a_task_are_told_apart_where_they_share_a_table():
    """Timed networks, and every two methods; the bare task where there is one."""
    taken = [measured(r) for r in RECIPES]
    for made, many in ((RECIPES, 2), (RECIPES[:2], 1)):
        headings = rows(made, taken)
        (timed,) = across.by_profile(made, taken)
        pairs = compare.table({name: table.lines(name, group) for name, group in headings.items()})
        for one in (timed, pairs):
            names = {row[0].text for row in one.body}
            assert len(names) == many
            assert ("digits/resnet20" in names) == (many == 1)


@pytest.mark.parametrize("told", [True, False], ids=["told", "as earlier versions did"])
def test_as_many_threads_as_there_were_are_told_apart(monkeypatch, told):
    """One core of two and both: two columns of different heads, which the auditor reads; labels say how many."""
    small = record(DCSS(), 0.5, macs=500)
    made, taken = [RECIPES[0], small], []
    for threads, of in enumerate(made, 1):
        monkeypatch.setattr(_host, "physical_cores", lambda threads=threads: threads)
        empty = measure.empty_record(of, made[0], CPU(threads="all"), "quick")
        assert empty.profile["label"] == f"cpu(threads=all: {threads})"
        profile = empty.profile if told else empty.profile | {"label": "cpu(threads=all)"}
        taken.append(replace(measured(of, threads=threads), id=empty.id, profile=profile))
    tables = table.tables(made, taken)
    one, two = sorted(head for head in tables[0].heads if head.startswith("measured speed-up"))
    assert ("all: 1" in one, "all: 2" in two) == (told, told)
    assert one != two
    assert told or (one.endswith(", 1 thread(s))") and two.endswith(", 2 thread(s))"))
    assert len(across.by_column(made, taken)) == len({t.title for t in across.by_column(made, taken).values()}) == 2
    assert audit.tables(tables, made, taken) == []


def test_timings_of_two_inputs_are_two_tables_with_titles_of_their_own():
    """On one machine by one profile; in a task's own tables too, whose heads are read back by the auditor."""
    taken = [measured(RECIPES[1], input_shape=(1, 1, 8, 8)), measured(RECIPES[3], input_shape=(1, 3, 64, 64))]
    found = across.by_column(RECIPES, taken)
    assert [table.title.rpartition(", ")[2] for table in found.values()] == ["1x8x8)", "3x64x64)"]
    assert [c.shape for c in found] == ["1x8x8", "3x64x64"]
    other = record(L1Channels(), 0.5, macs=500)
    made, both = (
        [*RECIPES[:2], other],
        [taken[0], measured(other, input_shape=(1, 3, 64, 64), p50_ms=2.0, dense_p50_ms=3.0)],
    )
    tables = table.tables(made, both)
    assert sum("(" in head for head in tables[0].heads if head.startswith("measured speed-up")) == 2
    assert audit.tables(tables, made, both) == []


def test_two_records_of_one_seed_are_no_two_seeds():
    """Which a store of before, whose records do not tell the source, may hold."""
    twice = [*dense(1), *seeds(DCSS(), 91.0, 1), *altered(seeds(DCSS(), 89.0, 1))]
    (main,) = table.tables(twice, [])
    assert any("two records of one seed" in str(p) for p in audit.tables([main], twice, []))


def test_controls_and_tiers_of_six_seeds():
    """The best control is named, tiers have letters, the only one of the first tier is bold."""
    (found,) = table.tables(SIX, [])
    ours = cells(found, "dcss")
    assert ours["tier"] == "a"
    assert ours["top1 mean ± sd (n)"] == f"{BOLD}91.00 ± 0.13 (6){PLAIN}"
    assert ours["Δ best control"].startswith("+2.00 [")
    assert ours["Δ best control"].endswith("] (l1_channels)")
    assert ours["Δ dense"].startswith("-1.00 [-1.1")
    assert float(ours["detectable"]) == pytest.approx(0.19, abs=0.01)
    assert cells(found, "random_channels")["tier"] == "c"
    assert cells(found, "l1_channels")["Δ best control"] == "", "it is the best control itself"
    assert "indicative" not in found.title
    assert audit.tables([found], SIX, []) == []


def test_within_the_spread_nothing_is_bold():
    """Two that cannot be told apart share a tier, and neither stands out."""
    close = [*dense(), *seeds(DCSS(), 89.02), *seeds(L1Channels(), 89.0, sign=-1)]
    (found,) = table.tables(close, [])
    assert cells(found, "dcss")["tier"] == cells(found, "l1_channels")["tier"] == "a"
    assert BOLD not in render.csv([found]) + "".join(e.text for row in found.body for e in row)


def test_below_six_seeds_no_tiers_and_nothing_bold():
    """The heading says indicative, and intervals stand in a caption."""
    few = [*dense(5), *seeds(DCSS(), 91.0, 5), *seeds(L1Channels(), 85.0, 5)]
    (found,) = table.tables(few, [])
    assert found.title.endswith("(indicative: fewer than 6 seeds)")
    assert "tier" not in found.heads
    assert not any(BOLD in e.text for row in found.body for e in row)
    assert cells(found, "dcss")["Δ dense"] == "-1.01"
    (told,) = [line for line in found.captions if line.startswith("Δ dense of fewer")]
    assert re.search(r"dcss 0\.5 macs \[-1\.\d\d, -0\.\d\d\]", told)


def test_a_row_of_few_seeds_takes_no_tier_from_others():
    """It has none itself, and nothing is bold: what is better than it cannot be told."""
    few = [r for r in SIX if r.cell["method"]["is"] != "random_channels" or r.cell["seed"] < 3]
    (found,) = table.tables(few, [])
    assert {name: cells(found, name)["tier"] for name in ("dcss", "l1_channels", "random_channels")} == {
        "dcss": "a",
        "l1_channels": "b",
        "random_channels": "",
    }
    assert not any(BOLD in e.text for row in found.body for e in row)
    assert audit.tables([found], few, []) == []


def test_a_row_that_missed_its_budget_is_no_control():
    """And gets no tier: it had more MACs to spend."""
    off = seeds(L1Channels(), 91.9, status="off_budget", reason="kept 0.9")
    (found,) = table.tables([*dense(), *seeds(DCSS(), 91.0), *off, *seeds(RandomChannels(), 85.0)], [])
    assert cells(found, "dcss")["Δ best control"].endswith("(random_channels)")
    assert cells(found, "l1_channels")["tier"] == ""
    assert BOLD in cells(found, "dcss")["top1 mean ± sd (n)"]


class _Cells(HTMLParser):
    """Texts of th and td."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.inside = self.inside or tag in {"td", "th"}
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in {"td", "th"}

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


FORMULA = "sum(abs(WI)**2 | x_1) & 5 %"
TIMED = [measured(SIX[0]), measured(SIX[6], 1.2, 1.1, 1.3, p50_ms=1.25)]


def plain(text):
    """Without the marks of bold print."""
    return text.replace(BOLD, "").replace(PLAIN, "").strip()


def set_in_latex(found):
    """The rows of a table, put together again from the parts that it is set in: the first columns come every time."""
    grids = re.findall(r"\\toprule\n(.*?) \\\\\n\\midrule\n(.*?)\\bottomrule", render.latex([found]), re.DOTALL)
    columns = {}
    for heads, body in grids:
        rows = [line.removesuffix(r" \\").split(" & ") for line in body.splitlines()]
        for head, texts in zip(heads.split(" & "), zip(*rows, strict=True), strict=True):
            assert columns.setdefault(head, texts) == texts
    assert list(columns) == [latex.escaped(head) for head in found.heads]
    return [list(row) for row in zip(*columns.values(), strict=True)]


def test_markdown_latex_html_and_the_terminal_show_the_same_cells():
    """Read back from each."""
    (found, _) = table.tables(SIX, TIMED)
    wanted = [[plain(found.shown(entry)) for entry in row] for row in found.body]
    marked = [line for line in render.markdown([found]).splitlines() if line.startswith("|")][2:]
    assert [[c.strip().replace("**", "") for c in line.strip("|").split("|")] for line in marked] == wanted
    page = _Cells()
    page.feed(render.html([found]))
    assert [[cell.strip() for cell in row] for row in page.rows[1:]] == wanted
    assert set_in_latex(found) == [[latex.escaped(found.shown(entry)) for entry in row] for row in found.body]
    console = Console(file=io.StringIO(), width=1000, force_terminal=True, color_system="standard")
    terminal.terminal([found], console)
    shown = console.file.getvalue()
    assert "\x1b[" in shown
    text = re.sub(r"\x1b\[[\d;]*m", "", shown)
    for row in found.body:
        for head, entry in zip(found.heads, row, strict=True):
            assert head not in found.compact or plain(found.shown(entry)) in text
    assert "fidelity" not in text


def test_csv_and_json_hold_the_same_lines():
    """Unrounded; a line a row and way of timing."""
    tables = table.tables(SIX, TIMED)
    flat, objects = list(csv.DictReader(io.StringIO(render.csv(tables)))), json.loads(render.json(tables))
    assert len(flat) == len(objects) == 4
    for line, known in zip(flat, objects, strict=True):
        assert {name: "" if value is None else str(value) for name, value in known.items()} == {
            name: text for name, text in line.items() if name in known
        }


def test_names_that_mean_something_to_a_format_are_escaped():
    """Formulas have stars, underscores and bars."""
    entry = table.Entry(FORMULA)
    odd = table.Table("50 % of <b>", ("a & b", "c"), ((entry, table.Entry("Δ ± é 漢")),))
    assert r"sum(abs(WI)\*\*2 \| x_1) & 5 %" in render.markdown([odd])
    assert r"sum(abs(WI)**2 $|$ x\_1) \& 5 \%" in render.latex([odd])
    assert r"$\Delta$ $\pm$ \'{e} ?" in render.latex([odd])
    assert "50 % of &lt;b&gt;" in render.html([odd])


def every_kind():
    """Tables of tasks, profiles and all tasks, of two tasks."""
    other = [
        record(method, keep, top1=t, macs=m, task=TextureDigits())
        for method, keep, t, m in ((Dense(), 1.0, 50.0, 1000), (DCSS(), 0.5, 49.0, 500))
    ]
    records = [*SIX, *seeds(ETPF(function="sum(abs(WI))"), 88.0), *other]
    taken = [*TIMED, measured(other[1], 0.8, 0.7, 0.9, p50_ms=1.9)]
    return (
        [*table.tables(records, taken), *across.by_profile(records, taken), *across.overall(records, taken)],
        records,
        taken,
    )


def test_latex_is_balanced():
    """Braces and environments close; nothing beyond ASCII is left for the compiler to stumble over."""
    text = render.latex(every_kind()[0])
    assert text.isascii()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0


HARD = r"50 % & more_of #1 {a} [b] \c ~ ^ <x> | $y$ Δ ± ≥ × é 漢 https://example.org/a_b"  # noqa: RUF001


def odd(rows, columns):
    """A table that is hard to set: everything that LaTeX reads as its own, wide, long, sentences, bold print."""
    line = [table.Entry(HARD), *(table.Entry(f"{BOLD}{i}.00 ± 0.10{PLAIN}", (HARD,)) for i in range(columns - 2))]
    heads = ("method", *(f"measured speed-up & {i}, cpu_x" for i in range(columns - 2)), "said")
    said = table.Entry(" ".join(["a sentence of many words"] * 9))
    return table.Table(HARD, heads, tuple((*line, said) for _ in range(rows)), (HARD, HARD))


def test_latex_goes_on_in_the_next_part():
    """What is too wide or too long for one float: the first column comes again, every part is numbered."""
    text = render.latex([odd(60, 12)])
    captions = re.findall(r"\(part (\d+) of (\d+)\)", text)
    assert [int(i) for i, _ in captions] == list(range(1, len(captions) + 1))
    assert len(captions) > 2
    assert render.latex([odd(2, 3)]).count(r"\begin{table}") == 1
    assert set_in_latex(odd(2, 12)) == [[latex.escaped(odd(2, 12).shown(e)) for e in row] for row in odd(2, 12).body]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
@pytest.mark.parametrize("kind", ["every", "odd"])
def test_latex_compiles(kind, tmp_path):
    """With array, booktabs and graphicx, in a plain article: every kind of table, and all that is hard."""
    body = render.latex(every_kind()[0] if kind == "every" else [odd(60, 12), odd(1, 2), odd(2, 30)])
    packages = r"\usepackage{array,booktabs,graphicx}"
    (tmp_path / "t.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000
    wide = [float(points) for points in re.findall(r"Overfull .hbox \((.*?)pt too wide", done.stdout)]
    assert max(wide, default=0) < 30, "nothing runs out of the text"


def test_one_table_a_profile():
    """Over all tasks: what of the theoretical speed-up is left."""
    (found,) = [t for t in every_kind()[0] if t.title.startswith("Timed on")]
    rows = {
        (row[0].text, row[1].text): dict(zip(found.heads, map(found.shown, row), strict=True)) for row in found.body
    }
    ours = rows["digits/resnet20", "dcss"]
    assert ours["theoretical speed-up"] == "2.00x"
    assert ours["measured speed-up"] == "1.20x [1.10, 1.30]"
    assert ours["measured / theoretical"] == "0.60"
    assert "slower than dense" in rows["texture_digits/fcn-resnet14", "dcss"]["measured speed-up"]


def test_what_is_gained_is_of_the_networks_that_were_timed():
    """A method that finds its own widths: seeds count differently, and one of them alone was timed."""
    found = [*dense(2), *(record(DCSS(), 0.5, seed, macs=macs) for seed, macs in ((0, 500), (1, 250)))]
    taken = [measured(found[2], 1.5)]
    (one,) = across.by_profile(found, taken)
    (row,) = one.body
    ours = dict(zip(one.heads, map(one.shown, row), strict=True))
    assert (ours["theoretical speed-up"], ours["measured / theoretical"]) == ("3.00x", "0.75")
    assert audit.tables([one], found, taken) == []
    (line,) = one.facts
    assert "timed_theoretical_speedup is 3" in str(
        audit.tables([replace(one, facts=({**line, "timed_theoretical_speedup": 3.0},))], found, taken)
    )


def test_a_part_of_a_budgets_rows_has_no_tiers():
    """They are among all: those that a profile timed could be told apart among themselves, being fewer."""
    spread = [record(RandomChannels(), 0.5, s, 90.8 + 2 * x, 500) for s, x in enumerate((1, -1, 1, -1, 1, -1))]
    found = [*SIX[:12], *SIX[12:18], *spread]
    taken = [measured(found[0]), measured(found[6]), measured(found[12])]
    whole, *rest = table.tables(found, taken)
    assert {line["tier"] for line in whole.facts if line["tier"]}
    timed = across.by_profile(found, taken)
    assert not {line["tier"] for one in timed for line in one.facts if line["tier"]}
    assert audit.tables([whole, *rest, *timed], found, taken) == []


def test_one_table_over_all_tasks():
    """Differences to dense, not averaged over tasks; nothing where a method was not run."""
    found = every_kind()[0][-1]
    assert found.title == "Overall: Δ dense (n)"
    assert found.heads[2:] == ("A: digits/resnet20", "B: texture_digits/fcn-resnet14 (balanced=True)")
    assert list(cells(found, "dcss").values())[2:] == ["-1.00 [-1.14, -0.86] (6)", "-1.00 (1)"]
    assert list(cells(found, "random_channels").values())[3] == ""


def test_every_kind_passes_its_audit():
    """Rows, ratios, ranks and texts."""
    assert audit.tables(*every_kind()) == []


def in_a_terminal(found, width=80):
    """What a terminal shows, without its colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    terminal.terminal(found, console)
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())


def test_few_columns_show_what_matters_most():
    """Nothing is cut off inside: columns that do not fit are named, numbers stay whole, no line is longer."""
    (found, _) = table.tables(SIX, TIMED)
    text = in_a_terminal([found], 70)
    assert max(map(len, text.splitlines())) <= 70
    assert "…" not in text
    for row in found.body:
        assert plain(dict(zip(found.heads, row, strict=True))["top1 mean ± sd (n)"].text) in text
    assert re.search(r"Too wide for here: .*params", " ".join(text.split()))
    assert "Too wide" not in in_a_terminal([found], 400)


def test_a_table_without_compact_columns_goes_on_below():
    """Every head and every cell is there, part by part."""
    text = in_a_terminal([odd(2, 12)])
    assert all(f"& {i}," in text for i in range(10))
    assert text.count("9.00 ± 0.10") == 2
    assert max(map(len, text.splitlines())) <= 80


def test_a_caption_is_said_once():
    """Of several tables."""
    (found, *_) = table.tables(SIX, TIMED)
    assert in_a_terminal([found, found], 1000).count("MACs are multiply-accumulates") == 1


def run_in_a_terminal(command, environ):
    """Exit status and what a pseudo-terminal got to see."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes there any more
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    return process.returncode, shown.decode()


def test_bench_report_in_a_terminal(tmp_path):
    """A real one: colours and the compact columns; elsewhere Markdown."""
    store = Store(tmp_path / "store")
    for one in SIX:
        store.put(one)
    command = [sys.executable, "-c", "from slimbench.cli import main; main()", "report", "--store", str(store.root)]
    environ = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color"}
    code, shown = run_in_a_terminal(command, environ)
    assert code == 0
    assert "\x1b[" in shown
    assert "Too wide for here" in re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "| method" not in shown
    piped = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert "| method" in piped.stdout
    assert "\x1b[" not in piped.stdout
