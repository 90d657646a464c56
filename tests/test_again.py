"""The command that makes a record again: what it would run is the record's own cell."""

from __future__ import annotations

import json
import shlex

from click.testing import CliRunner

from conftest import ROOT
from made import record
from slimbench import again, discover, environment, identity
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
resolved = environment.resolve


def planned(command: str, folder) -> set[str]:
    """Ids of the cells that a command would make."""
    words = [word for word in shlex.split(command, comments=True) if word.partition("=")[0] not in environment.HELD]
    assert words[:2] == ["bench", "run"]
    done = CliRunner().invoke(main, ["plan", *words[2:], "--json", "--store", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {cell["id"] for cell in json.loads(done.stdout)["cells"]}


def test_stored_records_would_be_made_again(tmp_path, monkeypatch, real_data):
    """Of every suite some; where a version was raised since, the command says so, and the id is another."""
    monkeypatch.setattr(environment, "resolve", lambda *args, **_: resolved(*args, elsewhere=True))
    commands = [(one.id, again.command(one)) for one in Store(ROOT / "reports", create=False).summaries()]
    some = sorted(pair for pair in commands if pair[1])[::29]
    assert len({command.split("bench run ")[1].split()[0] for _, command in some}) > 5
    for name, command in some:
        assert (name in planned(command, tmp_path)) is ("#" not in command), command


def test_a_cell_of_an_embedded_task_would_be_made_again(tmp_path):
    """Of a suite of several tasks, the dense network too; with the two variables where they were set."""
    for cell in plan(SMOKE, resolved("fp32"))[:9:2]:
        made = record(cell.method, budget=cell.budget, task=cell.task, seed=cell.seed)
        assert made.id == identity.cell_id(cell)
        assert made.id in planned(again.command(made), tmp_path)
    held = record(L1Channels(), environment={"instructions": "AVX2, oneDNN AVX2"}, **HALF)
    assert again.command(held).startswith("ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 bench run ")


def test_what_no_suite_has_and_what_is_older(tmp_path):
    """The first has no command, and `bench show` says so; the second has a comment."""
    unknown = record(L1Channels(), budget=Budget(0.123, epochs=77))
    assert again.command(unknown) == ""
    old = record(L1Channels(), **HALF)
    old.cell["method"]["version"] = 0
    told = f"  # l1_channels is at version 1 now, and was at 0: {environment.commit()} made it"
    assert again.command(old).endswith(told)
    for one, line in ((unknown, "no suite has it today"), (old, again.command(old))):
        Store(tmp_path).put(one)
        assert f"\nagain: {line}\n" in CliRunner().invoke(main, ["show", one.id, "--store", str(tmp_path)]).output
