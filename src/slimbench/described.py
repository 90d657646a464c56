"""A description out of a record goes in; the spec that it describes, or the id of its cell, comes out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from slimbench import discover, identity
from slimbench.core import Budget, Cell, Recipe, Settings, UserError, sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from slimbench.core import Method, Record, Task

_OWN = {"Budget": Budget, "Recipe": Recipe, "Settings": Settings}


def spec(described: Mapping[str, Any]) -> Any:
    """The spec behind what ``identity.describe`` made; fields that it lacks have their defaults.

    Raises: UserError where its plug-in is not installed, or refuses the fields.
    """
    cls = _class(described["is"])
    names = [field.name for field in dataclasses.fields(cls) if field.name in described]
    return cls(**{name: _value(described[name]) for name in names})


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return spec(value) if "is" in value else {name: _value(part) for name, part in value.items()}
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _class(name: str) -> Any:
    for kind in (_OWN, discover.found("tasks"), discover.found("methods")):
        if name in kind:
            return kind[name]
    raise UserError(f"{name!r} is not installed here")


def cell_id(record: Record, checksums: Mapping[str, str]) -> str:
    """The id that follows from what a record says of its cell.

    ``checksums``: of the data of other tasks, as ``data_of`` gives them.
    Raises: UserError where it cannot be known here: another version, a plug-in that is not at hand, a user's file.
    """
    told = record.cell
    parts = {name: spec(told[name]) for name in ("task", "method", "budget", "settings")}
    cell = Cell(seed=told["seed"], inner=bool(told.get("inner")), **parts)
    _refuse_others(cell, told)
    foreign = [[task.version, _checksum(task, checksums)] for task in sources(cell.method)]
    return identity.id_by(cell, reference=record.reference or None, data=told["data"], foreign=foreign)


def data_of(records: Iterable[Record]) -> dict[str, str]:
    """Checksums of data by task, as records tell them."""
    return {_data_key(record.cell["task"]): record.cell["data"] for record in records}


_NOT_DATA = {"network", "recipe", "weights", "version", "label", "family", "lower_is_better"}


def _data_key(task: Mapping[str, Any]) -> str:
    """Equal for two descriptions of tasks with the same data."""
    return identity.digest({name: part for name, part in task.items() if name not in _NOT_DATA})


def other_versions(task: Task, method: Method, told: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Of engine, task and method those that have another version here: what a record's cell tells, and ours."""
    versions = {
        "engine": (told["engine"], identity.ENGINE_VERSION),
        "task": (told["task"]["version"], task.version),
        "method": (told["method"]["version"], method.card.version),
    }
    return {name: (theirs, ours) for name, (theirs, ours) in versions.items() if theirs != ours}


def _refuse_others(cell: Cell, told: Mapping[str, Any]) -> None:
    """Versions that are not ours, and users' files, which a record does not hold. Raises: UserError."""
    for name, (theirs, ours) in other_versions(cell.task, cell.method, told).items():
        raise UserError(f"it was made by version {theirs} of its {name}, and here is {ours}")
    if identity.of_the_user(cell):
        raise UserError("a file of its user's decides it, too")


def _checksum(task: Task, checksums: Mapping[str, str]) -> str:
    return checksums.get(_data_key(identity.describe(task))) or task.data_checksum()
