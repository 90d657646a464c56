"""A record goes in; the command that makes it again comes out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from slimbench import described, discover, identity
from slimbench.core import UserError
from slimbench.environment import held_as

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slimbench.core import Record, Suite


def command(record: Record) -> str:
    """For a shell, with its data at hand and an empty store; the id will be the record's where nothing has changed.

    Empty where no suite has the cell today; ``why_not`` says more.
    """
    suites = sorted((suite for suite in discover.suites().values() if has(suite, record)), key=lambda s: len(s.tasks))
    if not suites:
        return ""
    cell, suite = record.cell, suites[0]
    task, method = (described.spec(cell[part]) for part in ("task", "method"))
    words = ["bench", "run", suite.name]
    if len(suite.tasks) > 1:
        words += ["--task", identity.label(task)]
    words += ["--method", identity.label(method)]
    if not cell["reference"]:
        words += ["--keep", f"{cell['budget']['keep']:g}"]
    words += ["--seeds", str(cell["seed"])]
    for name in ("device", "precision", "threads"):
        words += [f"--{name}", str(cell["settings"][name])]
    held = [f"{name}={value}" for name, value in held_as(record.environment.get("instructions")).items()]
    others = described.other_versions(task, method, cell)
    return " ".join([*held, shlex.join(words)]) + _comment(record, others)


def why_not(record: Record) -> str:
    """In words, where there is no command."""
    cell = record.cell
    if cell.get("inner"):
        return "a search's own evaluation: run the search again"
    said = "no suite has it: it was made with options of its own or by a plug-in, or the suite has changed"
    try:
        task, method = (described.spec(cell[part]) for part in ("task", "method"))
    except (KeyError, UserError):
        return said
    return said + _comment(record, described.other_versions(task, method, cell))


def _comment(record: Record, others: Mapping[str, tuple[int, int]]) -> str:
    """What has another version today, so that the id will be another."""
    names = {part: record.cell[part]["is"] for part in ("task", "method")}
    told = [f"{names.get(part, part)} is at version {now} now, and was at {was}" for part, (was, now) in others.items()]
    return f"  # {'; '.join(told)}: {record.environment.get('commit')} made it" if told else ""


def has(suite: Suite, record: Record) -> bool:
    """Whether a cell of the suite made it, whatever the version of task and method was (the record says which)."""
    cell = record.cell
    if cell.get("inner") or "method" not in cell or not any(describes(cell["task"], task) for task in suite.tasks):
        return False
    if cell.get("reference"):
        return describes(cell["method"], suite.reference)
    return any(
        any(describes(cell["budget"], budget) for budget in arm.budgets)
        and any(describes(cell["method"], method) for method in arm.methods)
        for arm in suite.arms
    )


def describes(recorded: Mapping[str, Any], spec: Any) -> bool:
    """Whether a record's words are of this spec; a field that is newer than the record must have its default."""
    changed = identity.describe(spec, defaults=False)
    fields = identity.describe(spec).items()
    return all(recorded[name] == value if name in recorded else name not in changed for name, value in fields)
