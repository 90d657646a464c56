"""`bench baseline` and `bench check --baseline`: files, exit status, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import nights
from conftest import ROOT
from slimbench import baseline, discover, environment, identity
from slimbench.cli import main
from slimbench.plan import plan
from slimbench.store import Store


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """The command, in an empty folder where this is no checkout; ``put`` fills a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "commit", lambda: "")

    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)

    return run


def put(name: str, records) -> str:
    for record in records:
        Store(name).put(replace(record, artifact=""))
    return name


WITH = '{{"schema": 1, "cells": [], "apart": {{}}, "commit": "", "because": "", "machine": {{}}, "settings": {}}}'


def trained_in(precision: str, record):
    settings = record.cell["settings"] | {"precision": precision}
    return replace(record, id=f"{precision}{record.id}"[:16], cell=record.cell | {"settings": settings})


def roll(bench, store: str, because: str = "a test"):
    return bench("baseline", "--store", store, "--out", "base.json", "--because", because, "--looks", "0")


def check(bench, store: str):
    files = ["--summary", "summary.md", "--junit", "junit.xml"]
    return bench("check", "--baseline", "base.json", "--store", store, *files)


def test_a_night_like_the_baseline_is_fine(bench):
    """Exit status 0; both files say so."""
    assert roll(bench, put("store", nights.night())).exit_code == 0
    result = check(bench, "store")
    assert result.exit_code == 0
    assert Path("summary.md").read_text().startswith("## No regression")
    suite = ElementTree.parse("junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("7", "0", "0")


def test_a_regression_is_status_1_and_a_failure(bench):
    """One MAC."""
    roll(bench, put("store", nights.night()))
    head = [replace(r, cost=replace(r.cost, macs=1001)) if r.cell["seed"] == 0 else r for r in nights.night()]
    result = check(bench, put("head", head))
    assert result.exit_code == 1
    assert "MACs 1,000 became 1,001 (+1)" in Path("summary.md").read_text()
    (failure,) = ElementTree.parse("junit.xml").getroot().iter("failure")
    assert "1,001" in failure.get("message")


def test_what_cannot_be_told_is_status_2_and_an_error(bench):
    """A seed is missing."""
    roll(bench, put("store", nights.night()))
    assert check(bench, put("head", nights.night()[1:])).exit_code == 2
    assert Path("summary.md").read_text().startswith("## Could not tell")
    assert len(list(ElementTree.parse("junit.xml").getroot().iter("error"))) == 1


def test_an_empty_store_is_no_good_night(bench):
    """The run broke before its first cell: a failure, no warning."""
    roll(bench, put("store", nights.night()))
    Store("empty")
    assert check(bench, "empty").exit_code == 1
    (failure,) = ElementTree.parse("junit.xml").getroot().iter("failure")
    assert "none of the baseline's 6 cells was made" in failure.get("message")


@pytest.mark.parametrize(("macs", "status"), [(1000, 2), (900, 1)])
def test_a_summary_that_cannot_be_written_hides_no_regression(bench, macs, status):
    """It is said in a sentence, and the other file is written."""
    roll(bench, put("store", nights.night()))
    files = ["--summary", "absent/summary.md", "--junit", "junit.xml"]
    result = bench("check", "--baseline", "base.json", "--store", put("head", nights.night(macs=macs)), *files)
    assert result.exit_code == status
    assert (
        "bench: absent/summary.md cannot be written (No such file or directory): name another with --summary."
        in result.stderr
    )
    assert Path("junit.xml").exists()


def test_odd_characters_break_neither_file(bench):
    """A method's last word may be a terminal's colours, half a character, two lines, a tag or a table's bar."""
    roll(bench, put("store", nights.night()), "a|b <b>")
    reason = "\x1b[31mred\x1b[0m\n\udc80 <b> a|b"
    head = [replace(r, status="failed", reason=reason, cost=None, quality={}) for r in nights.night()[:1]]
    assert check(bench, put("head", [*head, *nights.night()[1:]])).exit_code == 1
    (failure,) = ElementTree.parse("junit.xml").getroot().iter("failure")
    assert failure.get("message") == "ok became failed: \ufffd[31mred\ufffd[0m \ufffd <b> a|b"
    summary = Path("summary.md").read_text()
    assert "\ufffd[31mred\ufffd[0m \ufffd &lt;b> a\\|b" in summary
    assert "(a\\|b &lt;b>)" in summary


def test_a_night_that_was_trained_otherwise_cannot_be_told(bench):
    """Every id would differ, which is no regression: one finding says what to run. A baseline that does not say is."""
    roll(bench, put("store", nights.night()))
    head = put("head", [trained_in("bf16", record) for record in nights.night()])
    assert check(bench, head).exit_code == 2
    (error,) = ElementTree.parse("junit.xml").getroot().iter("error")
    assert error.get("message") == (
        "the records were trained in bf16 on cpu with 1 thread(s), the baseline's in fp32 on cpu with 1 thread(s): "
        "run the suite with --device cpu --precision fp32 --threads 1 in an empty store"
    )
    base = json.loads(Path("base.json").read_text())
    del base["settings"]
    Path("base.json").write_text(json.dumps(base))
    assert check(bench, head).exit_code == 1


def test_the_projects_own_baseline_is_of_todays_cells():
    """Each version that is raised, and each new cell of the suite, wants `make baseline`: else every night is red."""
    base = baseline.read(ROOT / "baselines/nightly.json")
    cells = plan(discover.suite("nightly"), environment.resolve(**base.settings))
    assert {cell.id for cell in base.cells} == {identity.cell_id(cell) for cell in cells}


def test_a_record_that_does_not_say_how_it_was_trained_is_named(bench):
    """Made by nothing that ships; in a sentence."""
    roll(bench, put("store", nights.night()))
    (odd,) = (replace(record, cell={"task": {"is": "digits"}, "seed": 0}) for record in nights.night()[:1])
    result = check(bench, put("head", [odd]))
    assert result.exit_code == 2
    assert "does not say how it was trained" in result.stderr


def test_rolling_says_what_moved_and_why(bench):
    """Never silently: a reason is asked for, and kept."""
    roll(bench, put("store", nights.night()))
    again = bench("baseline", "--store", "store", "--out", "base.json", "--looks", "0")
    assert again.exit_code == 2
    assert "--because" in again.output
    result = roll(bench, put("head", nights.night(macs=900)), "fewer channels")
    assert "MACs 1,000 became 900 (-100)" in result.output
    assert json.loads(Path("base.json").read_text())["because"] == "fewer channels"
    assert check(bench, "head").exit_code == 0


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "no records"),
        ([nights.record(0, status="failed")], "1 cells failed"),
        ([nights.record(0), nights.record(1, environment=environment.environment() | {"cpu": "other"})], "2 machines"),
        ([nights.record(0), nights.record(1, environment=environment.environment() | {"commit": "x"})], "2 commits"),
        (
            [nights.record(0), trained_in("bf16", nights.record(1))],
            "trained in bf16 on cpu with 1 thread(s) and fp32 on cpu with 1 thread(s)",
        ),
    ],
)
def test_what_no_baseline_is_made_of(bench, records, words):
    """One sentence, exit status 2, no file."""
    Store("store")
    result = roll(bench, put("store", records))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not Path("base.json").exists()


def test_the_record_says_which_way_is_better():
    """Not a task of its name with other fields, which may not be at hand, or be made without any."""
    made = nights.record(0)
    (metric, *_) = made.quality
    assert baseline.kept(made).higher_is_better
    turned = {**made.cell, "task": {**made.cell["task"], "is": "nobody's", "lower_is_better": [metric]}}
    assert not baseline.kept(replace(made, cell=turned)).higher_is_better


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--looks", "5"], "--looks 5 cannot tell anything: give at least 20, or 0"),
        (["--looks", "0", "--out", "file/base.json"], "cannot be written"),
    ],
)
def test_a_baseline_that_cannot_be_made_is_said_at_once(bench, more, words):
    """Before hours of looks."""
    store = put("store", nights.night())
    Path("file").write_text("")
    result = bench("baseline", "--store", store, "--out", "base.json", "--because", "a test", *more)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr


def test_networks_are_wanted_for_latencies_alone(bench):
    """A store of records is enough without; with them, the cell that has no network is named before any is timed."""
    for record in nights.night():
        Store("store").put(record)
    result = bench("baseline", "--store", "store", "--out", "base.json", "--because", "a test")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"({nights.night()[0].id}) is not in {Path('store').absolute()}" in result.stderr
    assert not Path("base.json").exists()
    assert roll(bench, "store").exit_code == 0
    assert not Path("base.networks").exists()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 99, "cells": []}',
        *(WITH.format(settings) for settings in ('"fp32"', '["fp32"]', '{"bits": 2}', '{"precision": "tf32"}')),
    ],
)
def test_what_is_no_baseline_is_refused(bench, text):
    """In a sentence."""
    put("store", nights.night())
    if text is not None:
        Path("base.json").write_text(text)
    result = check(bench, "store")
    assert result.exit_code == 2
    assert result.stderr.startswith("bench: ")
    assert result.stderr.count("\n") == 1


def test_a_baseline_survives_its_file(tmp_path):
    """Read again, it is the same; each cell has a line."""
    made = baseline.of(nights.night(), "a test")
    made = replace(made, apart={"cpu": baseline.Apart("here", (0.01, -0.02))})
    made.write(tmp_path / "base.json")
    assert baseline.read(tmp_path / "base.json") == made
    assert sum("l1_channels" in line for line in (tmp_path / "base.json").read_text().splitlines()) == 6
