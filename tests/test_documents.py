"""What is written into documents: files as they are, a suite's results as its records have them, and their picture."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from conftest import ROOT
from made import DENSE_COST, NOTHING, measured, record
from slimbench import again, discover
from slimbench.benchmarks import _arms
from slimbench.benchmarks.papers.claims import PAPERS
from slimbench.cli import main
from slimbench.core import Arm, Budget, Recipe, Suite, UserError
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.magnitude_weights import MagnitudeWeights
from slimbench.methods.random_channels import RandomChannels
from slimbench.reports import audit, documents, quoted, summary, summary_picture
from slimbench.store import Store
from slimbench.tasks.digits import Digits
from slimbench.tasks.texture_digits import TextureDigits

FIFTH_LEFT = replace(DENSE_COST, prunable_nonzero=DENSE_COST.prunable_nonzero // 5)
HALF, FIFTH = Budget(0.5, epochs=8), Budget(0.2, "prunable_nonzero", epochs=8)
SUITE = Suite(
    "one", "One", (Digits(),), Dense(), (Arm((DCSS(), L1Channels()), (HALF,)), Arm((MagnitudeWeights(),), (FIFTH,)))
)
MARKED = "<!-- {0} of {1}: written by `bench check --write` -->\nold\n<!-- end of {0} -->\n"
DOCUMENTS = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
    if "written by `bench check --write` -->" in path.read_text() or quoted.has_quotes(path.read_text())
]


def records():
    """Two seeds of each, one that failed, and what is not of the suite: another task, recipe, budget, or method."""
    return [
        *(record(Dense(), seed=s, top1=90.0 + s) for s in (0, 1)),
        *(record(DCSS(), seed=s, top1=88.0 + s, macs=500, budget=HALF) for s in (0, 1)),
        record(L1Channels(), status="failed", reason="killed by SIGKILL", budget=HALF, **NOTHING),
        record(MagnitudeWeights(), top1=87.0, budget=FIFTH, cost=FIFTH_LEFT),
        record(DCSS(), top1=11.0, budget=HALF, task=TextureDigits()),
        record(DCSS(), top1=12.0, budget=HALF, task=Digits(recipe=Recipe(epochs=1))),
        record(DCSS(), top1=13.0, budget=Budget(0.5, epochs=1)),
        record(DCSS(penalty=1.0), top1=14.0, budget=HALF),
    ]


def put_two(folder):
    """A store of the dense network and one row."""
    for one in (record(Dense(), top1=90.0), record(DCSS(), top1=88.0, budget=HALF)):
        Store(folder).put(one)


def shown(found=None, taken=()):
    (one,) = summary.summaries([SUITE], found or records(), taken)
    return one


def test_differences_stand_with_their_intervals_however_few_the_seeds():
    """Below the table, to dense and to the best control of the point, and of how many pairs."""
    better = [record(L1Channels(), seed=s, top1=89.0 + 3 * s, macs=500, budget=HALF) for s in (0, 1)]
    text = summary.markdown(["one"], shown([one for one in records() if one.status == "ok"] + better), "x.svg")
    (line,) = (line for line in text.splitlines() if line.startswith("| dcss") and "| 0.5 macs" in line)
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:5] == ["-2.00 [-2.00, -2.00] (2)", "-2.00 [-14.71, +10.71] (2)"]
    (line,) = (line for line in text.splitlines() if line.startswith("| magnitude") and "0.2 prunable" in line)
    assert [cell.strip() for cell in line.split("|")][3:5] == ["-3.00 (1)", ""]


def test_methods_down_and_points_across():
    """A table a resource, the dense network above, no number of anything but the suite."""
    text = summary.markdown(["one"], shown(), "x.svg")
    assert re.search(r"^\| dcss +\| 88\.50 ± 0\.71 \(2\) +\| authors' code, extension +\|$", text, re.MULTILINE)
    assert re.search(r"^\| method +\| 50 % of MACs +\|", text, re.MULTILINE)
    assert re.search(r"^\| magnitude_weights +\| 87\.00 \(1\) ", text, re.MULTILINE)
    assert "Dense: 90.50 ± 0.71 (2), 1.000 k MACs" in text
    assert "Fewer than six seeds: indicative" in text
    assert not re.search(r"1[1234]\.00", text)


def test_only_rows_of_few_seeds_are_called_indicative():
    """Where others have six, which are ranked."""
    many = [record(Dense(), seed=s, top1=90.0 + s / 9) for s in range(6)]
    many += [record(DCSS(), seed=s, top1=88.0 + s / 7, macs=500, budget=HALF) for s in range(6)]
    few = [record(L1Channels(), seed=s, top1=87.0 + s, macs=500, budget=HALF) for s in (0, 1)]
    said = "Rows of fewer than six seeds are indicative: they are not ranked"
    assert said in summary.markdown(["one"], shown(many + few), "x.svg")
    assert "indicative" not in summary.markdown(["one"], shown(many), "x.svg")


def test_a_cell_of_other_records_than_it_says_is_found():
    """A number that is not its row's, another row's records, and no records."""
    one = shown()
    (grid, *_) = summary.tables(one)
    assert audit.tables([grid], records(), []) == []
    wanted = {
        "99.99 ± 0.71 (2)": "99.99 is printed for 88.5",
        "88.50 ± 0.10 (2)": "0.10 is printed for 0.707",
        "88.50 ± 0.71 (9)": "9 is printed for 2",
    }
    for text, says in wanted.items():
        body = tuple((row[0], replace(row[1], text=text), *row[2:]) for row in grid.body if row[0].text == "dcss")
        assert any(says in str(p) for p in audit.tables([replace(grid, body=body)], records(), []))
    for ids, says in ((one.dense.facts["ids"], "its records are of dense"), ("", "is of no records")):
        body = tuple((row[0], replace(row[1], ids=ids), *row[2:]) for row in grid.body if row[0].text == "dcss")
        assert any(says in str(p) for p in audit.tables([replace(grid, body=body)], records(), []))


def test_a_budget_that_was_missed_is_said_and_not_drawn_beside_others():
    """In the table, in the picture's words, and by no mark among those that met it."""
    missed = [
        replace(r, status="off_budget", reason="kept 0.9", cost=replace(r.cost, macs=900))
        if r.cell["method"]["is"] == "dcss"
        else r
        for r in records()[:4]
    ]
    met = record(L1Channels(), top1=85.0, macs=500, budget=HALF)
    one = shown([*missed, met])
    (grid,) = summary.tables(one)
    assert grid.body[0][1].text == "88.50 ± 0.71 (2), kept 90.0 %"
    assert "dcss 0.5 macs: 88.50 ± 0.71 (2), kept 90.0 %" in summary_picture.described(one)
    whole = [replace(r, cost=replace(r.cost, macs=macs)) for r, macs in zip(records()[2:4], (476, 505), strict=True)]
    (grid,) = summary.tables(shown([*records()[:2], *whole, met]))
    assert grid.body[0][1].text == "88.50 ± 0.71 (2), kept 47.6 to 50.5 %", "whole layers meet a budget from afar"
    with_it = summary_picture.svg(shown([*records()[:4], met]))
    assert with_it.count("<use ") > summary_picture.svg(one).count("<use ")


def test_epochs_part_columns_where_they_differ():
    """Two rows of one method and share, and each is shown."""
    longer = Budget(0.5, epochs=20)
    suite = replace(SUITE, arms=(Arm((DCSS(), L1Channels()), (HALF, longer)),))
    made = [*records()[:4], record(DCSS(), top1=89.5, macs=500, budget=longer)]
    (one,) = summary.summaries([suite], made, [])
    (grid,) = summary.tables(one)
    assert grid.heads == ("method", "50 % of MACs, 8 epochs", "50 % of MACs, 20 epochs", "fidelity")
    assert [entry.text for entry in grid.body[0][1:3]] == ["88.50 ± 0.71 (2)", "89.50 (1)"]


def test_what_did_not_end_well_says_so_and_why():
    """Beside its place; the reason is folded away."""
    text = summary.markdown(["one"], shown(), "x.svg")
    assert re.search(r"^\| l1_channels +\| failed 1/1 \[1\] ", text, re.MULTILINE)
    assert "- MACs [1]: killed by SIGKILL" in text.partition("<details")[2]


def test_every_number_names_its_records():
    """Each row's ids stand in the fold."""
    below = summary.markdown(["one"], shown(), "x.svg").partition("<details")[2]
    for one in records()[:6]:
        assert one.id in below


def test_the_picture_says_its_numbers_in_words():
    """Every point with its records; the same records, the same bytes."""
    one = shown(taken=[measured(records()[2])])
    text = summary_picture.svg(one)
    assert text == summary_picture.svg(shown(records()[::-1], [measured(records()[2])]))
    words = "".join(ET.fromstring(text).itertext())
    assert f"dcss 0.5 macs: 88.50 ± 0.71 (2): {records()[2].id} {records()[3].id}" in words
    assert "l1_channels" not in words, "it has no number"


def test_the_picture_has_a_panel_for_time_where_there_is_any():
    """Beside those of both resources."""
    from matplotlib.figure import Figure

    for taken, labels in (([], 2), ([measured(records()[2])], 3)):
        one = shown(taken=taken)
        panels = list(Figure().subplots(2, 2).flat)
        assert summary_picture._panels(one, panels) == labels
        titles = [axes.get_xlabel() for axes in panels[:labels]]
        assert titles[:2] == [f"{share} asked, methods side by side" for share in ("50 % of MACs", "20 % of weights")]
        assert titles[2:] == (["measured speed-up, cpu quick\nright of 1 is faster"] if taken else [])


def test_a_disturbed_timing_is_faint():
    """And joined by no line; the axis says what faint means."""
    from matplotlib.figure import Figure

    one = shown(taken=[measured(records()[2], disturbed="the load was 3")])
    panels = list(Figure().subplots(2, 2).flat)
    summary_picture._panels(one, panels)
    (bars,) = panels[2].containers
    assert bars[0].get_alpha() == 0.3
    assert bars[0].get_linestyle() == "None"
    assert panels[2].get_xlabel().endswith("\nright of 1 is faster; faint: disturbed")
    drawn = Figure()
    summary_picture._legend(drawn, panels[:3], panels[3:])
    told = panels[3].get_legend()
    looks = {text.get_text(): what.get_alpha() for text, what in zip(told.texts, told.legend_handles, strict=True)}
    assert looks["dcss"] is None, "its look is that of its first panel"
    assert not any(bars[0].get_alpha() for axes in panels[:2] for bars in axes.containers)


def test_a_method_looks_alike_in_every_picture():
    """Whatever stands beside it; no two look alike, and options alone change the marker, not the colour."""
    kinds = [make() for make in discover.found("methods").values() if make is not Dense]
    methods = dict.fromkeys([*kinds, *(method for arm in _arms.arms(1) for method in arm.methods)])
    found = [
        record(Dense(), top1=90.0),
        *(record(method, top1=80.0, budget=HALF) for method in methods),
    ]
    suites = [
        Suite("x", "X", (Digits(),), Dense(), (Arm(methods, (HALF,)),))
        for methods in (
            tuple(methods),
            (ETPF(rule="budget"), L1Channels("global"), RandomChannels()),
        )
    ]
    every, few = (summary_picture._looks(summary.summaries([suite], found, ())[0]) for suite in suites)
    assert len({tuple(sorted(look.items())) for look in every.values()}) == len(every) > 10
    assert {name: every[name] for name in few} == few
    assert every["etpf"]["color"] == every["etpf(rule=budget)"]["color"]
    assert every["etpf"]["marker"] != every["etpf(rule=budget)"]["marker"]


def test_versions_of_a_method_look_different_beside_each_other():
    """The newest as ever."""
    new = record(DCSS(), top1=80.0, budget=HALF)
    cell = new.cell | {"method": {**new.cell["method"], "version": new.cell["method"]["version"] + 1}}
    suite = Suite("x", "X", (Digits(),), Dense(), (Arm((DCSS(),), (HALF,)),))
    both = [record(Dense(), top1=90.0), new, replace(new, id="f" * 16, cell=cell)]
    alone, beside = (summary_picture._looks(summary.summaries([suite], found, ())[0]) for found in (both[:2], both))
    assert beside["dcss"] == alone["dcss"] | {"fillstyle": "bottom"}
    assert beside[f"dcss v{cell['method']['version']}"] == alone["dcss"]


def test_three_shares_are_an_axis():
    """Each where it really ends; of fewer shares methods stand beside each other, a panel a share."""
    from matplotlib.figure import Figure

    shares = {keep: Budget(keep, epochs=8) for keep in (0.5, 0.25, 0.125)}
    suite = Suite("one", "One", (Digits(),), Dense(), (Arm((DCSS(), L1Channels()), tuple(shares.values())),))
    more = [
        record(L1Channels(), top1=87.0, macs=490, budget=shares[0.5]),
        record(DCSS(), top1=80.0, macs=250, budget=shares[0.25]),
        record(DCSS(), top1=70.0, macs=130, budget=shares[0.125]),
    ]
    halves = "50 % of MACs asked, methods side by side", {0.0, 1.0}
    for count, panels in (
        (1, [halves]),
        (2, [halves, ("25 % of MACs asked, methods side by side", {0.0})]),
        (3, [("% of MACs left", {50.0, 49.0, 25.0, 13.0})]),
    ):
        (one,) = summary.summaries([suite], [*records()[:4], *more[:count]], ())
        drawn = list(Figure().subplots(1, 2))
        assert summary_picture._panels(one, drawn) == len(panels)
        for axes, (label, places) in zip(drawn, panels, strict=False):
            assert axes.get_xlabel() == label
            assert {float(x) for bars in axes.containers for x in bars.lines[0].get_xdata()} == places


def test_the_first_suite_with_records_is_shown(tmp_path):
    """Its picture lies below docs; what has no records is named."""
    put_two(tmp_path / "reports")
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text(MARKED.format("results", "cifar10-reduced, else quick"))
    assert documents.write(document)
    assert not documents.write(document), "the second time nothing changes"
    assert "](pictures/quick.svg)" in document.read_text()
    assert (tmp_path / "docs/pictures/quick.svg").read_text().startswith("<?xml")
    with pytest.raises(UserError, match="no records of cifar10-reduced: `bench run cifar10-reduced` makes them"):
        documents.written_into(MARKED.format("results", "cifar10-reduced"), tmp_path)
    with pytest.raises(UserError, match="Unknown suite 'nothing'"):
        documents.written_into(MARKED.format("results", "nothing"), tmp_path)


def test_records_of_one_device_may_be_asked_for(tmp_path):
    """Else those of most rows are shown."""
    put_two(tmp_path / "reports")
    new = documents.written_into(MARKED.format("results", "quick on cpu"), tmp_path).text
    old = documents.written_into(MARKED.format("results", "quick"), tmp_path).text
    assert new.partition("\n")[2] == old.partition("\n")[2]
    with pytest.raises(UserError, match="no records of quick, trained on cuda: `bench run quick` makes them"):
        documents.written_into(MARKED.format("results", "quick on cuda"), tmp_path)


def test_a_document_of_ones_own_shows_the_store_that_is_named(tmp_path, monkeypatch):
    """Its picture lies beside it; without a name the nearest reports count, and without these it says what to do."""
    put_two(tmp_path / "mine")
    page = tmp_path / "paper" / "page.md"
    page.parent.mkdir()
    page.write_text(MARKED.format("results", "quick"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_STORE", "mine")
    result = CliRunner().invoke(main, ["check", "--write", "paper/page.md"])
    assert (result.exit_code, page.read_text()) == (2, MARKED.format("results", "quick"))
    assert "has reports/records: name the store of results with --store" in result.output
    result = CliRunner().invoke(main, ["check", "--write", "paper/page.md", "--store", "mine"])
    assert (result.exit_code, result.output) == (0, "paper/page.md: written\n")
    assert "| 88.00 (1)" in page.read_text()
    assert "](pictures/quick.svg)" in page.read_text()
    assert "--store mine`" in page.read_text()
    assert (tmp_path / "paper/pictures/quick.svg").is_file()


def test_a_document_of_another_kind_is_left_as_it_is(tmp_path):
    """In a sentence that says what to do."""
    Store(tmp_path / "reports")
    page = tmp_path / "page.md"
    for content, why in (
        (b"\xe9<!-- claims: written by `bench check --write` -->\n<!-- end of claims -->\n", "is not in UTF-8"),
        (b"<!-- claims: written by `bench check --write` -->\r\n<!-- end of claims -->\r\n", "has Windows line ends"),
    ):
        page.write_bytes(content)
        with pytest.raises(UserError, match=why):
            documents.write(page)
        assert page.read_bytes() == content


def test_the_projects_store_is_known_by_another_way_to_it(tmp_path, monkeypatch):
    """From a folder of its own."""
    put_two(tmp_path / "reports")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    assert "--store reports`" in documents.written_into(MARKED.format("results", "quick"), tmp_path, "../reports").text


def test_every_claim_is_shown_with_its_verdict_and_only_what_adds_up(tmp_path, monkeypatch):
    """Of the store beside the document; a table that fails its audit is not written."""
    store = Store(tmp_path / "reports")
    store.put(record(Dense(), top1=90.0))
    text = "<!-- claims: written by `bench check --write` -->\n<!-- end of claims -->\n"
    new = documents.written_into(text, tmp_path).text
    assert len(re.findall(r"\| not run +\|$", new, re.MULTILINE)) == sum(len(paper.claims) for paper in PAPERS)
    monkeypatch.setattr(audit, "tables", lambda *_: ["one number is another"])
    with pytest.raises(UserError, match="fails its audit: one number is another"):
        documents.written_into(text, tmp_path)


def test_a_file_is_shown_as_it_is(tmp_path):
    """Between its markers; one that is missing is named."""
    (tmp_path / "mine.py").write_text("x = 1\n")
    text = documents.written_into(MARKED.format("file", "mine.py"), tmp_path).text
    assert "-->\n```python\nx = 1\n```\n<!-- end of file -->" in text
    with pytest.raises(UserError, match=r"the file .*yours\.py, which does not exist"):
        documents.written_into(MARKED.format("file", "yours.py"), tmp_path)
    with pytest.raises(UserError, match="no markers"):
        documents.written_into("nothing", tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_up_to_date(path):
    """`bench check --write` has been run for each one with markers or quotes, and every picture is of those records."""
    new = documents.written_into(text := path.read_text(), path.parent)
    assert new.text == text
    for picture, one in new.pictures.items():
        words = "".join(ET.parse(picture).getroot().itertext())
        assert summary_picture.described(one) in words
        assert one.heading in words


def test_a_field_that_is_newer_than_a_record_must_have_its_default():
    """Else an old record would pass for one that was made otherwise."""
    old = dict(record(DCSS(), budget=HALF).cell["method"])
    del old["penalty"]
    assert again.describes(old, DCSS())
    assert not again.describes(old, DCSS(penalty=1.0))
    assert not again.describes(old | {"penalty": 2.0}, DCSS())


def test_no_picture_is_left_over():
    """Each one that is committed stands in a document."""
    shown = {name for path in DOCUMENTS for name in re.findall(r"\]\((?:docs/)?pictures/([^)]+)\)", path.read_text())}
    assert shown == {path.name for path in (ROOT / "docs/pictures").iterdir()}


def test_the_readme_shows_the_cross_evaluation_first():
    """Before any other heading, and of CIFAR-10 alone."""
    first = (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert "<!-- results of cifar10-reduced + cifar10-reduced-rewound:" in first
    assert {"make bench", "make test"} <= set(re.findall(r"^make \w+", first, re.MULTILINE))
