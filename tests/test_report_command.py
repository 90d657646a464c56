"""How `bench report` reads its command line: words are listed, and options may stand on either side of them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from made import record
from slimbench.cli import main
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.store import Store

WORDS = ("overall", "papers", "profiles", "site", "tasks", "tuned")


@pytest.fixture
def store(tmp_path):
    """Two records."""
    made = Store(tmp_path / "store")
    for one in (record(Dense()), record(DCSS(), 0.5, macs=500)):
        made.put(one)
    return str(made.root)


def bench(*words):
    return CliRunner().invoke(main, ["report", *map(str, words)])


def test_help_lists_every_word_and_the_options():
    """By both names of the option; a word's own help says what that word takes."""
    for flag in ("-h", "--help"):
        told = bench(flag).output
        listed = [line.split()[0] for line in told.partition("Commands:")[2].splitlines() if line.strip()]
        assert tuple(listed) == WORDS
        assert "--format" in told
    assert "--pictures" in bench("papers", "--help").output
    assert "--pictures" not in bench("site", "--help").output
    assert bench("--help", "site").output == bench("site", "--help").output


@pytest.mark.parametrize("what", ["tasks", "overall", "papers", "quick"])
def test_options_on_either_side(store, what):
    """Before, behind and around: the same."""
    said = [
        bench(what, "--store", store, "--format", "csv"),
        bench("--store", store, "--format", "csv", what),
        bench("--store", store, what, "--format", "csv"),
        bench(f"--store={store}", what, "--format=csv"),
    ]
    assert {done.exit_code for done in said} == {0}
    assert len({done.output for done in said}) == 1


def test_no_word_is_tasks(store):
    """The table a task."""
    assert bench("--store", store).output == bench("tasks", "--store", store).output


def test_a_value_is_no_word(store, tmp_path, monkeypatch):
    """A folder or a file that is called as a word is."""
    monkeypatch.chdir(tmp_path)
    for words in (("--out", "site", "site"), ("site", "--out", "site")):
        done = bench(*words, "--store", store)
        assert done.exit_code == 0, done.output
        assert (tmp_path / "site" / "index.html").is_file()
    assert bench("--out", "papers", "--store", store).exit_code == 0
    assert (tmp_path / "papers").read_text().startswith("### digits/resnet20")


def test_wrong_words_are_one_sentence(store):
    """A word that is none, two words, an option that is none."""
    for words, said in (
        (("paper", "--store", store), "Nothing is called 'paper' (did you mean 'papers'?)"),
        (("papers", "tasks", "--store", store), "unexpected extra argument (tasks)"),
        (("papers", "--colour"), "No such option '--colour'"),
    ):
        done = bench(*words)
        assert (done.exit_code, len(done.output.strip().splitlines())) == (2, 1), done.output
        assert said in done.output
