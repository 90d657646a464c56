"""A record goes in; the command that makes it again comes out."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import TYPE_CHECKING, Any

from slimbench import described, discover, identity
from slimbench.core import Budget, UserError, sources
from slimbench.environment import held_as
from slimbench.methods.dense import Dense

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slimbench.core import Method, Record, Suite, Task


def command(record: Record) -> str:
    """For a shell, with its data at hand and an empty store; the id will be the record's where nothing has changed.

    Of a suite that has the cell; else `bench compress` or `bench train`. Empty where neither makes such a cell today,
    as where its plug-in is not loaded; ``why_not`` says more.
    """
    cell = record.cell
    if cell.get("inner") or not (specs := _specs(record)):
        return ""
    task, method = specs
    suites = sorted(
        (suite for suite in discover.shipped_suites().values() if has(suite, record)), key=lambda s: len(s.tasks)
    )
    if not (words := _of_suite(record, suites[0], *specs) if suites else _alone(record, *specs)):
        return ""
    for name in ("device", "precision", "threads"):
        words += [f"--{name}", str(cell["settings"][name])]
    for file in _plugins(task, method, *sources(method)):
        words += ["--plugin", file]
    held = [f"{name}={value}" for name, value in held_as(record.environment.get("instructions")).items()]
    others = described.other_versions(task, method, cell)
    return " ".join([*held, shlex.join(words)]) + _comment(record, others)


def _specs(record: Record) -> tuple[Task, Method] | None:
    """Task and method; None where one is not installed, or has no longer a field that the record tells of."""
    parts = [record.cell[part] for part in ("task", "method")] if "method" in record.cell else []
    try:
        task, method = map(described.spec, parts)
    except (KeyError, TypeError, ValueError, UserError):
        return None
    known = all(
        part.keys() <= identity.describe(one).keys() | _TOLD for part, one in zip(parts, (task, method), strict=True)
    )
    return (task, method) if known else None


_TOLD = {"version", "label", "fidelity", "family", "lower_is_better"}  # of a cell's parts, beside their fields


def _of_suite(record: Record, suite: Suite, task: Task, method: Method) -> list[str]:
    cell, words = record.cell, ["bench", "run", suite.name]
    if len(suite.tasks) > 1:
        words += ["--task", identity.label(task)]
    words += ["--method", identity.label(method)]
    if not cell["reference"]:
        words += ["--keep", _number(cell["budget"]["keep"])]
    return [*words, "--seeds", str(cell["seed"])]


def _alone(record: Record, task: Task, method: Method) -> list[str]:
    """Without a suite; empty where a budget has what these commands cannot say."""
    cell, name = record.cell, typed(task)
    seed, budget = ["--seed", str(cell["seed"])], described.spec(cell["budget"])
    if cell["reference"]:
        return ["bench", "train", name, *seed] if method == Dense() else []
    if budget != Budget(budget.keep, budget.resource, epochs=budget.epochs):
        return []
    words = ["bench", "compress", "--task", name, "--method", typed(method), "--keep", _number(budget.keep)]
    return [*words, "--resource", budget.resource, "--epochs", _number(budget.epochs), *seed]


def _number(value: float) -> str:
    """The shortest text that is read as this very number: ids hang on it."""
    return short if float(short := f"{value:g}") == value else repr(value)


def typed(spec: Any) -> str:
    """What ``discover.make`` makes this very task or method of."""
    changed = {f.name: (getattr(spec, f.name), getattr(type(spec), f.name, None)) for f in dataclasses.fields(spec)}
    words = [f"{name}={_typed(value, default)!r}" for name, (value, default) in changed.items() if value != default]
    return identity.declared_name(spec) + (f"({', '.join(words)})" if words else "")


def _typed(value: Any, default: Any) -> Any:
    """A task as its text, another spec as the fields that differ from the default's, the rest as it is."""
    if not dataclasses.is_dataclass(value):
        return value
    if not isinstance(default, type(value)):
        return typed(value)
    pairs = {f.name: (getattr(value, f.name), getattr(default, f.name)) for f in dataclasses.fields(value)}
    return {name: ours for name, (ours, theirs) in pairs.items() if ours != theirs}


def _plugins(*specs: Any) -> list[str]:
    """The user's files that hold them, as they are loaded now."""
    modules = dict.fromkeys(type(spec).__module__ for spec in specs)
    return [str(sys.modules[name].__file__) for name in modules if name.startswith(identity.PLUGIN_PREFIX)]


def why_not(record: Record) -> str:
    """In words, where there is no command."""
    cell = record.cell
    if cell.get("inner"):
        return "a search's own evaluation: run the search again"
    if not (specs := _specs(record)):
        return "its task or method, as it was then, is not installed here: give a plug-in's file with --plugin"
    said = "no command says its budget or its dense network, and no suite has it today"
    return said + _comment(record, described.other_versions(*specs, cell))


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
