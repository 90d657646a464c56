"""The command that makes a record again: what it would run is the record's own cell."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from conftest import ROOT
from made import record
from slimbench import again, cli, discover, environment, identity
from slimbench.cli import main
from slimbench.core import Budget
from slimbench.methods.l1_channels import L1Channels
from slimbench.plan import plan
from slimbench.store import Store

SMOKE = discover.suite("smoke")
HALF = {
    "task": next(task for task in SMOKE.tasks if task.name == "digits"),
    "budget": next(arm.budgets[0] for arm in SMOKE.arms if L1Channels() in arm.methods),
}


def planned(command: str) -> set[str]:
    """Ids of the cells that `bench run` would make, of a command that `again` wrote."""
    words = [word for word in shlex.split(command, comments=True) if word.partition("=")[0] not in environment.HELD]
    assert words[:2] == ["bench", "run"]
    given = main.commands["run"].make_context("run", words[2:]).params
    names = ("suite", "everything", "method", "task", "keep", "seeds", "profile")
    suite = cli._suite(**{name: given[name] for name in names})
    settings = environment.resolve(given["precision"], given["device"], given["threads"], elsewhere=True)
    return {identity.cell_id(cell) for cell in plan(suite, settings)}


def test_stored_records_would_be_made_again(real_data):
    """A third of those with a command; where a version was raised since, it says so, and the id is another."""
    cells: dict[str, set[str]] = {}
    checked = 0
    for one in sorted(Store(ROOT / "reports", create=False).summaries(), key=lambda one: one.id)[::3]:
        if not (text := again.command(one)):
            continue
        if text not in cells:
            cells[text] = planned(text)
        assert (one.id in cells[text]) is ("  # " not in text), text
        checked += 1
    assert checked > 150


@pytest.mark.parametrize("suite", discover.suites().values(), ids=lambda suite: suite.name)
def test_every_cell_of_every_suite_can_be_named(suite):
    """By the labels of its task and method, which hold words in brackets, lists and blanks."""
    for arm in suite.arms:
        for method in arm.methods:
            assert cli._named("methods", identity.label(method), arm.methods) == (method,)
    for task in suite.tasks:
        assert cli._named("tasks", identity.label(task), suite.tasks) == (task,)


def test_a_cell_of_an_embedded_task_would_be_made_again():
    """Of a suite of several tasks, the dense network too; with the two variables where they were set."""
    for cell in plan(SMOKE, environment.resolve("fp32"))[:9:2]:
        made = record(cell.method, budget=cell.budget, task=cell.task, seed=cell.seed)
        assert made.id == identity.cell_id(cell)
        assert made.id in planned(again.command(made))
    for said, start in (
        ("AVX2, oneDNN AVX2", "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 bench run "),
        ("AVX512, oneDNN AVX2", "bench run "),
        (None, "bench run "),
    ):
        assert again.command(record(L1Channels(), environment={"instructions": said}, **HALF)).startswith(start)


def test_what_no_suite_has_and_what_is_older(tmp_path):
    """The first has no command, and `bench show` says so; the second has a comment."""
    unknown = record(L1Channels(), budget=Budget(0.123, epochs=77))
    inner = record(L1Channels(), seed=1, **HALF)
    inner.cell["inner"] = True
    assert again.command(unknown) == again.command(inner) == ""
    old = record(L1Channels(), **HALF)
    old.cell["method"]["version"] = 0
    told = f"  # l1_channels is at version 1 now, and was at 0: {environment.commit()} made it"
    assert again.command(old).endswith(told)
    gone = record(L1Channels(), seed=2, budget=Budget(0.123, epochs=77))
    gone.cell["method"] |= {"version": 0, "rounds_to": 8}
    for one, line in (
        (gone, f"{again.why_not(unknown)}{told}"),
        (unknown, "no suite has it: it was made with options of its own or by a plug-in, or the suite has changed"),
        (inner, "a search's own evaluation: run the search again"),
        (old, again.command(old)),
    ):
        Store(tmp_path).put(one)
        assert f"\nagain: {line}\n" in CliRunner().invoke(main, ["show", one.id, "--store", str(tmp_path)]).output
