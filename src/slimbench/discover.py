"""A plug-in folder (or a user's file) goes in; its classes and suites, by declared name, come out."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench import misfits
from slimbench.core import Suite, Task, UserError
from slimbench.identity import PLUGIN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What makes a class a plug-in of a kind: the attributes that only that kind has.
KINDS = {
    "methods": ("card", "compress", "unsupported"),
    "tasks": ("metrics", "batch", "evaluate", "deploy", "any_size", "heavy"),
    "hardware_profiles": ("measure", "unavailable"),
}
_plugins: list[types.ModuleType] = []


def load_plugin(path: str) -> None:
    """Import a user's file; its methods, tasks, profiles and suites then count like ours. Raises: UserError."""
    file = Path(path).expanduser()
    name = f"{PLUGIN_PREFIX}{file.stem}"
    for module in _plugins:
        if module.__name__ == name:
            if Path(str(module.__file__)).resolve() != file.resolve():
                raise UserError(f"Two plug-ins are called {file.name}: rename {file}.")
            return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UserError(f"The plug-in {file} is not a Python file: give --plugin a path that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"The plug-in {file} cannot be imported ({type(error).__name__}: {error}).") from error
    try:
        misfits.refuse(module, KINDS)
    except UserError:
        del sys.modules[name]
        raise
    _plugins.append(module)
    found.cache_clear()


def plugin_files() -> tuple[str, ...]:
    """The users' files that were loaded."""
    return tuple(str(module.__file__) for module in _plugins)


@functools.cache
def found(kind: str) -> dict[str, type]:
    """The plug-in classes of a kind ("methods", "tasks" or "hardware_profiles"), by declared name, sorted."""
    classes: dict[str, type] = {}
    for module in (*_modules(kind), *_plugins):
        for _, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__.startswith(module.__name__) and is_plugin(value, kind):
                other = classes.setdefault(vars(value)["name"], value)
                if other is not value:
                    raise UserError(
                        f"Two {kind} are called {vars(value)['name']!r}: rename the one in {value.__module__}."
                    )
    return dict(sorted(classes.items()))


def is_plugin(value: type, kind: str) -> bool:
    """Whether a class has what a plug-in of this kind has."""
    return isinstance(vars(value).get("name"), str) and all(hasattr(value, name) for name in KINDS[kind])


def plugin_methods() -> dict[str, type]:
    """Methods from users' files only."""
    return {n: c for n, c in found("methods").items() if c.__module__.startswith(PLUGIN_PREFIX)}


@functools.cache
def shipped_suites() -> dict[str, Suite]:
    """Every suite in ``benchmarks/``, by name: a file's ``suite``, or its ``suites``."""
    modules = list(_modules("benchmarks"))
    given = [suite for module in modules for suite in (getattr(module, "suite", None), *getattr(module, "suites", ()))]
    return {suite.name: suite for suite in given if isinstance(suite, Suite)}


def suites() -> dict[str, Suite]:
    """The suites that ship, then those of users' files, by name. Raises: UserError where two have one name."""
    every = dict(shipped_suites())
    for module in _plugins:
        for suite in misfits.suites_of(module, is_plugin):
            if every.setdefault(suite.name, suite) is not suite:
                raise UserError(f"Two suites are called {suite.name!r}: rename the one in {module.__file__}.")
    return every


def suite(name: str) -> Suite:
    """One suite. Raises: UserError."""
    return pick(suites(), name, "suite")


def make(kind: str, text: str) -> Any:
    """An instance from what was typed: ``name`` or ``name(field=value, ...)``. Raises: UserError."""
    name, arguments = parse_spec(text)
    cls = pick(found(kind), name, kind.removesuffix("s").replace("_", " "))
    known = [field.name for field in dataclasses.fields(cls)]
    for field in arguments:
        if field not in known:
            fields = ", ".join(known) or "none"
            raise UserError(f"{name} has no field {field!r}{suggestion(field, known)}; its fields: {fields}.")
    return build(name, cls, {field: _refined(cls, field, value) for field, value in arguments.items()})


def _refined(cls: type, field: str, value: Any) -> Any:
    """A dictionary for a field that holds a spec changes that spec's fields: ``recipe={"epochs": 30}``.

    Text for a field that holds a task is what would be typed after ``--task``.
    """
    default = getattr(cls, field, None)
    hint = _hints(cls).get(field)
    if isinstance(value, str) and Task in (hint, *typing.get_args(hint)):
        return make("tasks", value)
    if not isinstance(value, dict) or not dataclasses.is_dataclass(default) or isinstance(default, type):
        return value
    known = [f.name for f in dataclasses.fields(default)]
    for name in value:
        if name not in known:
            raise UserError(f"{field} has no field {name!r}{suggestion(name, known)}; its fields: {', '.join(known)}.")
    return build(field, type(default), {f.name: getattr(default, f.name) for f in dataclasses.fields(default)} | value)


def build(name: str, cls: type, values: dict[str, Any]) -> Any:
    """``cls(**values)``, once each value is of its field's type, and each field has one. Raises: UserError."""
    if missing := [field for field in without_default(cls) if field not in values]:
        raise UserError(f"{name} needs {', '.join(missing)}: write {name}({missing[0]}=...), or give it a default.")
    hints = _hints(cls)
    for field, value in values.items():
        if field in hints and not _fits(value, hints[field]):
            raise UserError(f"{name}({field}={value!r}) is impossible: {field} must be {_wanted(hints[field])}.")
    return cls(**values)


def without_default(cls: type) -> list[str]:
    """Fields of a dataclass that have to be given."""
    every = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return [f.name for f in every if f.init and f.default is f.default_factory is dataclasses.MISSING]


def _wanted(hint: Any) -> str:
    """What may stand in a field, in words: "int or 'all'"."""
    inner = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Literal:
            return " or ".join(map(repr, inner))
        case typing.Union | types.UnionType:
            return " or ".join(map(_wanted, inner))
    return "None" if hint is types.NoneType else str(getattr(hint, "__name__", hint)).replace("typing.", "")


def _hints(cls: type) -> dict[str, Any]:
    """Types of a class's fields; none for a user's file that imports its types for the type checker only."""
    try:
        return typing.get_type_hints(cls)
    except NameError:
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a typed value can stand in a field: plain types, choices, options, tuples."""
    inner = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Literal:
            return value in inner
        case typing.Union | types.UnionType:
            return any(_fits(value, one) for one in inner)
        case builtins.tuple:
            return isinstance(value, (tuple, list))
    if hint is Task:
        return is_plugin(type(value), "tasks")
    if not isinstance(hint, type):
        return True
    number = (int, float) if hint is float else hint
    return isinstance(value, number) and (hint is bool or not isinstance(value, bool))


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """``name(field=literal, ...)`` as name and fields; words need no quotes, as in labels. Raises: UserError."""
    quoted = re.sub(r"(?<==)(?!(?:True|False|None)\b)[A-Za-z][\w.-]*(?=\s*[,)])", r"'\g<0>'", text)
    for written in (text.strip(), quoted.strip()):
        try:
            tree = ast.parse(written, mode="eval").body
            if isinstance(tree, ast.Name):
                return tree.id, {}
            if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
                return tree.func.id, {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
        except (SyntaxError, ValueError):
            continue
    raise UserError(f'Cannot read {text!r}: write name or name(field=value, other="text").')


def pick(known: dict[str, Any], name: str, what: str) -> Any:
    """``known[name]``. Raises: UserError that suggests the nearest name."""
    if name not in known:
        raise UserError(f"Unknown {what} {name!r}{suggestion(name, known)}; known: {', '.join(known)}.")
    return known[name]


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


@functools.cache
def commands() -> dict[str, str]:
    """What plug-ins add to the command line, by name: ``module:function`` of each, from a module's ``commands``."""
    return {name: where for module in _modules("methods") for name, where in getattr(module, "commands", {}).items()}


def command(name: str) -> Any:
    """One of ``commands``, imported; None where there is none of this name."""
    module, _, function = commands().get(name, "").partition(":")
    return getattr(importlib.import_module(module), function) if module else None


def _modules(kind: str) -> Iterator[types.ModuleType]:
    package = importlib.import_module(f"slimbench.{kind}")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if not info.name.startswith("_") and info.name != "performance":
            yield importlib.import_module(f"slimbench.{kind}.{info.name}")
            if info.ispkg and kind == "benchmarks":
                inner = sys.modules[f"slimbench.{kind}.{info.name}"]
                for part in sorted(pkgutil.iter_modules(inner.__path__), key=lambda part: part.name):
                    yield importlib.import_module(f"slimbench.{kind}.{info.name}.{part.name}")
