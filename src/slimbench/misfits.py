"""A user's module goes in; one sentence comes out where a class in it, or a suite, is not what it is meant to be."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from slimbench.core import Arm, Budget, Card, Fidelity, Suite, UserError

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Mapping, Sequence

_TAKES = {
    "methods": {"compress": ("model", "task", "budget", "trainer"), "unsupported": ("task", "budget")},
    "tasks": {"batch": ("split", "indices", "rng"), "evaluate": ("model", "split"), "deploy": ("model",)},
    "hardware_profiles": {"measure": ("artifact", "reference", "level"), "unavailable": ()},
}
_MEANT = 0.5  # of what a kind has: so much tells that a class is meant to be one


def refuse(module: types.ModuleType, kinds: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError for the first class of a module that is meant to be a plug-in, and cannot be used as one.

    ``kinds``: by name, what a class of each kind has.
    """
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ != module.__name__:
            continue
        has = {kind: sum(hasattr(cls, name) for name in names) / len(names) for kind, names in kinds.items()}
        kind = max(has, key=lambda kind: has[kind])
        is_named = isinstance(vars(cls).get("name"), str)
        is_base = bool(cls.__subclasses__()) or hasattr(cls, "name")
        if (has[kind] >= _MEANT and is_named) or (has[kind] == 1 and not is_base):
            where = f"{cls.__name__} in {Path(str(module.__file__)).name}"
            if why := _why_not(cls, kind, kinds[kind]):
                raise UserError(f"{where} {why}.")


def _why_not(cls: type, kind: str, names: Sequence[str]) -> str:
    """What is wrong with a class of a kind, and what to do; empty: nothing that can be seen without running it."""
    what = kind.removesuffix("s").replace("_", " ")
    if missing := [name for name in ("name", *names) if not hasattr(cls, name)]:
        return f"is no {what}: it lacks {', '.join(missing)}"
    if not is_frozen(cls):
        return "is no frozen dataclass: put @dataclass(frozen=True) on it"
    if not re.fullmatch(r"[A-Za-z_]\w*", vars(cls)["name"]):
        return f"has the name {vars(cls)['name']!r}, which nobody can type: use letters, digits and underscores"
    for function, arguments in _TAKES[kind].items():
        if not _takes(inspect.getattr_static(cls, function), len(arguments)):
            return f"cannot be called: write def {function}({', '.join(('self', *arguments))})"
    return _of_card(cls.card) if kind == "methods" else ""  # type: ignore[attr-defined]


def is_frozen(cls: type) -> bool:
    """Whether a class is a frozen dataclass."""
    return bool(getattr(getattr(cls, "__dataclass_params__", None), "frozen", False))


def _takes(function: object, count: int) -> bool:
    """Whether a function takes itself and so many arguments; anything else than a plain function may."""
    if not inspect.isfunction(function):
        return True
    try:
        inspect.signature(function).bind(*range(count + 1))
    except TypeError:
        return False
    return True


def _of_card(card: object) -> str:
    if not isinstance(card, Card):
        return "has a card that is no slimbench.Card: write card = Card(title=...)"
    known = get_args(Fidelity)
    wrong = [word for word in card.fidelity.values() if word not in known]
    return f"has the fidelity {wrong[0]!r}, which is unknown: say {', '.join(known)}" if wrong else ""


def suites_of(module: types.ModuleType, is_plugin: Callable[[type, str], bool]) -> list[Suite]:
    """A user's ``suite``, and its ``suites``. Raises: UserError where one cannot be planned."""
    several = getattr(module, "suites", ())
    given = (getattr(module, "suite", None), *(several if isinstance(several, (tuple, list)) else (several,)))
    found = [suite for suite in given if suite is not None]
    for suite in found:
        where = Path(str(module.__file__)).name
        if not isinstance(suite, Suite):
            raise UserError(f"{where} has a suite that is a {type(suite).__name__}: write suite = Suite(...).")
        if not re.fullmatch(r"\w[\w.-]*", str(suite.name)):
            raise UserError(f"The suite {suite.name!r} in {where} cannot be typed: name it with letters, digits and -.")
        if not _can_be_planned(suite, is_plugin):
            raise UserError(
                f"The suite {suite.name!r} in {where} cannot be planned: make its tasks, arms, seeds and profiles, and "
                "each arm's methods and budgets, tuples of the right kind; only profiles may be empty."
            )
    return found


def _can_be_planned(suite: Suite, is_plugin: Callable[[type, str], bool]) -> bool:
    tuples = (suite.tasks, suite.arms, suite.seeds, suite.profiles)
    if not (all(isinstance(part, tuple) for part in tuples) and suite.tasks and suite.arms and suite.seeds):
        return False
    of_kinds = [("tasks", suite.tasks), ("methods", (suite.reference,)), ("hardware_profiles", suite.profiles)]
    for arm in suite.arms:
        if not (isinstance(arm, Arm) and isinstance(arm.methods, tuple) and isinstance(arm.budgets, tuple)):
            return False
        if not (arm.methods and arm.budgets and all(isinstance(budget, Budget) for budget in arm.budgets)):
            return False
        of_kinds.append(("methods", arm.methods))
    are_numbers = all(type(seed) is int and seed >= 0 for seed in suite.seeds)
    return are_numbers and all(is_plugin(type(one), kind) for kind, parts in of_kinds for one in parts)
