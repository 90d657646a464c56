"""The command that makes a record again: what it would run is the record's own cell."""

from __future__ import annotations

import functools
import shlex

import pytest
from click.testing import CliRunner

from conftest import ROOT
from made import record
from slimbench import again, cli_run, discover, environment, identity
from slimbench.cli import main
from slimbench.core import Budget, Recipe
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.plan import plan
from slimbench.store import Store
from slimbench.tasks.digits import Digits

SMOKE = discover.suite("smoke")
HALF = {
    "task": next(task for task in SMOKE.tasks if task.name == "digits"),
    "budget": next(arm.budgets[0] for arm in SMOKE.arms if L1Channels() in arm.methods),
}


def planned(command: str) -> set[str]:
    """Ids of the cells that `bench run` would make, or `compress` or `train`, of a command that `again` wrote."""
    words = [word for word in shlex.split(command, comments=True) if word.partition("=")[0] not in environment.HELD]
    if words[1] in {"compress", "train"}:
        return alone(words[1:])
    assert words[:2] == ["bench", "run"]
    given = main.commands["run"].make_context("run", words[2:]).params
    names = ("suite", "everything", "method", "task", "keep", "seeds", "profile")
    suite = cli_run.suite_of(**{name: given[name] for name in names})
    settings = environment.resolve(given["precision"], given["device"], given["threads"], elsewhere=True)
    return {identity.cell_id(cell) for cell in plan(suite, settings)}


def alone(words: list[str]) -> set[str]:
    """Ids of the cells of a command that makes a suite of its own."""
    with pytest.MonkeyPatch.context() as patch:
        found: list[tuple] = []
        patch.setattr(environment, "resolve", functools.partial(environment.resolve, elsewhere=True))
        patch.setattr(cli_run, "_run", lambda suite, settings, *_, **__: found.append((suite, settings)))
        with pytest.raises(SystemExit):
            main.commands[words[0]].main(words[1:], standalone_mode=False)
    ((suite, settings),) = found
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
            assert cli_run.named("methods", identity.label(method), arm.methods) == (method,)
    for task in suite.tasks:
        assert cli_run.named("tasks", identity.label(task), suite.tasks) == (task,)


def test_every_task_and_method_of_every_suite_can_be_typed():
    """And is the same when it is read: recipes, lists, and methods that hold a task."""
    for suite in discover.suites().values():
        for kind, specs in (("tasks", suite.tasks), ("methods", [m for arm in suite.arms for m in arm.methods])):
            for spec in specs:
                assert discover.make(kind, again.typed(spec)) == spec


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


ANEW = """
from dataclasses import dataclass
from slimbench.core import Card

@dataclass(frozen=True)
class Anew:
    power: float = 2.0
    name = "anew"
    card = Card("Anew", fidelity={"all": "re-derived"})

    def unsupported(self, task, budget):
        return None

    def compress(self, model, task, budget, trainer):
        return model
"""


def test_what_no_suite_has_is_made_again_alone(tmp_path, plugged):
    """With another share, task or schedule, of a dense network, and by a user's file, which the command names."""
    file = tmp_path / "anew.py"
    file.write_text(ANEW)
    discover.load_plugin(str(file))
    task = Digits("resnet8", Recipe(epochs=3))
    for method in (L1Channels("global"), Dense(), discover.make("methods", "anew(power=3)")):
        made = record(method, budget=Budget(0.123, "params", epochs=7.5), task=task, seed=3)
        text = again.command(made)
        assert text.startswith("bench train" if isinstance(method, Dense) else "bench compress")
        assert made.id in planned(text)
    assert f"--plugin {file}" in text
    two = record(L1Channels(), budget=Budget(0.5, params_keep=0.4, epochs=1))
    assert again.command(two) == ""


def test_what_has_no_command_and_what_is_older(tmp_path):
    """The first has a field that is gone, and `bench show` says so; the second has a comment."""
    unsaid = record(L1Channels(), budget=Budget(0.5, params_keep=0.4, epochs=1))
    inner = record(L1Channels(), seed=1, **HALF)
    inner.cell["inner"] = True
    assert again.command(unsaid) == again.command(inner) == ""
    old = record(L1Channels(), **HALF)
    old.cell["method"]["version"] = 0
    told = f"  # l1_channels is at version 1 now, and was at 0: {environment.commit()} made it"
    assert again.command(old).endswith(told)
    gone = record(L1Channels(), seed=2, budget=Budget(0.123, epochs=77))
    gone.cell["method"] |= {"rounds_to": 8}
    for one, line in (
        (gone, "its task or method, as it was then, is not installed here: give a plug-in's file with --plugin"),
        (unsaid, "no command says its budget or its dense network, and no suite has it today"),
        (inner, "a search's own evaluation: run the search again"),
        (old, again.command(old)),
    ):
        Store(tmp_path).put(one)
        assert f"\nagain: {line}\n" in CliRunner().invoke(main, ["show", one.id, "--store", str(tmp_path)]).output
