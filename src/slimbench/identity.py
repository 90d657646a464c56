"""A spec goes in; its id (a hash of content), its label (for people) and its plain description come out.

Identity covers declared names and fields that differ from their defaults, so that a new field whose default does
nothing moves no id. The other side of that bargain is held by ``tests/test_identity.py``: it pins every plug-in's
defaults, and ``slimbench.lock`` pins their source.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from slimbench.core import UserError, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from slimbench.core import Budget, Cell, HardwareProfile, Method, Settings, Task

T = TypeVar("T")

# Raised when a fix in the engine (or in a file that several plug-ins share) moves results: every id changes.
ENGINE_VERSION = 1
PLUGIN_PREFIX = "slimbench_plugin_"  # of the modules that users' files become


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits of the sha256 of a JSON value: sorted keys, no spaces."""
    return _hashed(_text_of(value))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_text_of = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def remembered(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """By object, not by value: 1 and True are equal, and JSON tells them apart. For what never changes."""
    known: dict[int, tuple[Any, T]] = {}

    @functools.wraps(function)
    def asked(value: Any) -> T:
        if id(value) not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[id(value)] = value, function(value)  # the object is kept, so that no other gets its id
        return known[id(value)][1]

    return asked


_REMEMBERED = 4096
digest_of_shared = remembered(digest)


def describe(value: Any, *, defaults: bool = True) -> Any:
    """A spec as JSON values: ``{"is": declared name, field: value, ...}``; without defaults for hashing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _number(getattr(value, f.name), f.type) for f in dataclasses.fields(value)}
        if not defaults:
            fields = {name: v for name, v in fields.items() if v != _default(value, name)}
        return {"is": declared_name(value)} | {k: describe(v, defaults=defaults) for k, v in sorted(fields.items())}
    if isinstance(value, (tuple, list)):
        return [describe(v, defaults=defaults) for v in value]
    if isinstance(value, dict):
        return {str(k): describe(v, defaults=defaults) for k, v in sorted(value.items())}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of a spec: use numbers, text, tuples and dataclasses")


def _number(value: Any, annotation: Any) -> Any:
    """``1`` and ``1.0`` are one number where the field is a float."""
    return float(value) if isinstance(value, int) and "float" in str(annotation) and value is not True else value


def _default(value: Any, name: str) -> Any:
    (field,) = (f for f in dataclasses.fields(value) if f.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _number(field.default, field.type)


def declared_name(value: Any) -> str:
    """The plug-in's declared name; for the engine's own types the class name. Never the module's."""
    name = getattr(type(value), "name", None)
    return name if isinstance(name, str) else type(value).__name__


def label(spec: Any) -> str:
    """A spec as it would be typed: its name, and the fields that differ from their defaults."""
    described = describe(spec, defaults=False)
    arguments = ", ".join(f"{k}={_text(v)}" for k, v in described.items() if k != "is")
    return f"{described['is']}({arguments})" if arguments else str(described["is"])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['is']}({', '.join(f'{k}={_text(v)}' for k, v in value.items() if k != 'is')})"
    return str(value)


label_of_shared = remembered(label)


def task_label(task: Task) -> str:
    """``task/network``."""
    return f"{task.name}/{task.network}"


def cell_label(cell: Cell) -> str:
    """``task/network method keep resource seed``."""
    second = "" if cell.budget.params_keep is None else f" {cell.budget.params_keep:g} params"
    point = f"{cell.budget.keep:g} {cell.budget.resource}{second}" if cell.reference else "dense"
    return f"{task_label(cell.task)} {label_of_shared(cell.method)} {point} seed {cell.seed}"


def cell_id(cell: Cell) -> str:
    """The hash of everything that decides a cell's result."""
    return _id(cell, _around(cell), cell_id(cell.reference) if cell.reference else None)


def id_by(cell: Cell, *, reference: str | None, data: str, foreign: list[list[Any]]) -> str:
    """``cell_id`` where the data are not at hand: by their checksum, and those of the method's own tasks.

    ``foreign``: of each of them its version and checksum. ``reference``: id of the dense cell; ``cell`` holds none.
    """
    return _id(cell, _around(cell, data, foreign), reference)


def by_id(cells: Iterable[Cell]) -> dict[str, Cell]:
    """Cells by ``cell_id``, in their order; what they share as objects is described once."""
    arounds: dict[tuple[int, ...], tuple[str, str]] = {}
    references: dict[int, str] = {}

    def known(cell: Cell) -> str:
        shared = (id(cell.task), id(cell.method), id(cell.budget), id(cell.settings), cell.inner)
        if shared not in arounds:
            arounds[shared] = _around(cell)
        reference = cell.reference
        if reference and id(reference) not in references:
            references[id(reference)] = known(reference)
        return _id(cell, arounds[shared], references[id(reference)] if reference else None)

    every = list(cells)  # objects that are kept keep their ids
    return {known(cell): cell for cell in every}


def _id(cell: Cell, around: tuple[str, str], reference: str | None) -> str:
    before, after = around
    return _hashed(f'{before},"reference":{_text_of(reference)},"seed":{cell.seed:d},{after}')


def _around(cell: Cell, data: str = "", foreign: list[list[Any]] | None = None) -> tuple[str, str]:
    """The JSON of what decides a cell's result besides seed and reference: what comes before them, and what after."""
    published = cell.task.published()
    content = {
        "engine": ENGINE_VERSION,
        "task": describe(cell.task, defaults=False) | {"version": cell.task.version},
        "data": data or cell.task.data_checksum(),
        "weights": published.sha256 if published else None,
        "method": describe(cell.method, defaults=False) | {"version": cell.method.card.version},
        "budget": describe(cell.budget, defaults=False),
        # written out: a change of these defaults changes results
        "settings": describe(cell.settings),
    }
    others = _of_other_tasks(cell) if foreign is None else foreign
    content |= {"sources": others} if others else {}
    content |= {"inner": True} if cell.inner else {}
    content |= {"user": users} if (users := of_the_user(cell)) else {}
    before = {name: value for name, value in content.items() if name < "reference"}
    after = {name: value for name, value in content.items() if name > "seed"}
    return _text_of(before).removesuffix("}"), _text_of(after).removeprefix("{")


def _of_other_tasks(cell: Cell) -> list[list[Any]]:
    """Versions and data of the tasks that the method's fields hold."""
    return [[task.version, task.data_checksum()] for task in sources(cell.method)]


def source_hash(text: str) -> str:
    """Sixteen digits of the sha256 of the parsed source, without comments, docstrings and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if ast.get_docstring(node):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


@functools.cache
def users_source(module: str) -> str:
    """``source_hash`` of a user's module: nobody raises versions there, so an edit itself moves the ids.

    Raises: UserError where the module cannot be found or read.
    """
    loaded = sys.modules.get(module)
    try:
        spec = loaded.__spec__ if loaded else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"The module {module!r} cannot be found: run from the folder that holds it.")
    try:
        return source_hash(Path(spec.origin).read_text())
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"The module {module!r} is no Python source that can be read ({error}): mend it, or name another."
        ) from error


def of_the_user(cell: Cell) -> dict[str, str]:
    """Hashes of the user's own files that decide a cell's result: plug-ins, and a network's module:function."""
    tasks = (cell.task, *sources(cell.method))
    modules = {type(part).__module__ for part in (*tasks, cell.method)}
    modules = {name for name in modules if name.startswith(PLUGIN_PREFIX)}
    modules |= {task.network.partition(":")[0] for task in tasks if ":" in task.network}
    return {name: users_source(name) for name in sorted(modules)}


def describe_cell(cell: Cell) -> dict[str, Any]:
    """Every field of a cell's specs, for the record."""
    task: Task = cell.task
    method: Method = cell.method
    budget: Budget = cell.budget
    settings: Settings = cell.settings
    return (
        {
            "task": describe(task)
            | {"version": task.version, "label": task_label(task), "family": task.family}
            | _lower_is_better(task),
            "data": task.data_checksum(),
            "method": describe(method)
            | {"version": method.card.version, "label": label(method), "fidelity": dict(method.card.fidelity)},
            "budget": describe(budget),
            "seed": cell.seed,
            "settings": describe(settings),
            "reference": cell.reference is None,
            "engine": ENGINE_VERSION,
        }
        | ({"inner": True} if cell.inner else {})
        | ({"user": users} if (users := of_the_user(cell)) else {})
    )


def _lower_is_better(task: Task) -> dict[str, list[str]]:
    """Metrics that are better when lower, where there are any: what reports know of it, whoever has the task."""
    names = [metric.name for metric in task.metrics if not metric.higher_is_better]
    return {"lower_is_better": names} if names else {}


def threads_of_all(profile: HardwareProfile) -> int | None:
    """What ``threads=all`` comes to where this process runs: it may not use all of a machine; None for a number."""
    return getattr(profile, "threads_used", None) if getattr(profile, "threads", None) == "all" else None


def measurement_id(
    artifact: str, reference: str, profile: HardwareProfile, level: str, machine: Mapping[str, Any]
) -> str:
    """The hash of what decides a latency: both artifacts, the profile, the level, runtimes and the machine."""
    return digest(
        {
            "artifact": artifact,
            "reference": reference,
            "profile": describe(profile, defaults=False) | {"version": profile.version},
            "level": level,
            "machine": machine,
        }
        | ({"threads_used": threads} if (threads := threads_of_all(profile)) else {})
    )
