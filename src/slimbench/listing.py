"""Plug-ins, plans and records go in; what the command line prints of them comes out, as text or JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench import again, discover, identity
from slimbench.core import UserError, first_line
from slimbench.plan import estimate
from slimbench.plan import plan as plan_cells
from slimbench.progress import duration
from slimbench.run import left_to_do
from slimbench.submission import embedded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import Cell, MeasurementRecord, Record, Settings, Suite
    from slimbench.store import Store


def listing(kinds: Sequence[str], *, as_json: bool) -> str:
    """A table (or JSON) for each kind of plug-in."""
    tables = {kind: _ROWS[kind]() for kind in kinds}
    if as_json:
        return json.dumps(tables, indent=1)
    return "\n\n".join(
        f"{kind}\n" + tabulate([list(row.values()) for row in rows], list(rows[0]), maxcolwidths=60)
        for kind, rows in tables.items()
        if rows
    )


def _methods() -> list[dict[str, Any]]:
    rows = []
    for name, cls in discover.found("methods").items():
        card = cls.card  # type: ignore[attr-defined]
        fidelity = ", ".join(sorted(set(card.fidelity.values())))
        rows.append(
            {"name": name, "title": card.title, "fidelity": fidelity, "version": card.version, "paper": card.link}
        )
    return rows


def _tasks() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "family": task.family,
            "metric": f"{task.metrics[0].name} {task.metrics[0].unit}",
            "network": task.network,
            "dense epochs": task.recipe.epochs,
            "version": task.version,
        }
        for name, task in _of_defaults("tasks")
    ]


def _profiles() -> list[dict[str, Any]]:
    return [
        {"name": name, "what": (made.__doc__ or "").split("\n")[0], "here": made.unavailable() or "available"}
        for name, made in _of_defaults("hardware_profiles")
    ]


def _of_defaults(kind: str) -> list[tuple[str, Any]]:
    return [(name, discover.build(name, cls, {})) for name, cls in discover.found(kind).items()]


def _suites() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "title": suite.title,
            "tasks": ", ".join(identity.task_label(task) for task in suite.tasks),
            "seeds": len(suite.seeds),
        }
        for name, suite in discover.suites().items()
    ]


_ROWS = {"methods": _methods, "tasks": _tasks, "profiles": _profiles, "suites": _suites}


def planned(suite: Suite, settings: Settings, store: Store | None, *, as_json: bool) -> str:
    """The cells, which are done, and the estimate."""
    cells = identity.by_id(plan_cells(suite, settings))
    statuses = store.statuses() if store else {}
    todo = left_to_do(cells, store) if store else cells
    rows = [
        {"id": i, "cell": identity.cell_label(c), "status": _status(statuses.get(i), is_left=i in todo)}
        for i, c in cells.items()
    ]
    left = estimate(todo.values(), store.summaries() if store and todo else (), store)
    absent = _absent(todo.values())
    if as_json:
        body = {"suite": suite.name, "cells": rows, "left": dataclasses.asdict(left), "absent": absent}
        return json.dumps(body, indent=1)
    line = f"{len(cells)} cells, {len(cells) - len(todo)} done, {len(todo)} to do"
    if len(todo) > left.unknown:
        line += f": about {duration(left.seconds)} of one process and {left.disk_bytes / 1e6:.0f} MB, by earlier cells"
    if left.unknown:
        line += f"; no estimate for {left.unknown}, unlike any in the store"
    lines = "\n".join([line, *(f"not at hand: {why}" for why in absent.values())])
    return tabulate([list(row.values()) for row in rows], ["id", "cell", "status"]) + f"\n\n{lines}"


def _absent(cells: Iterable[Cell]) -> dict[str, str]:
    """By task, why its data cannot be had here; those that are installed with us can."""
    found = {}
    for task in dict.fromkeys(cell.task for cell in cells):
        try:
            if task.name not in embedded():
                task.size("test")
        except UserError as error:
            found[task.name] = str(error)
        except Exception as error:  # noqa: BLE001  a user's own task may raise anything
            found[task.name] = f"The data of {task.name} cannot be loaded ({first_line(error)})."
    return found


def _status(status: str | None, *, is_left: bool) -> str:
    """What a plan says of a cell: how it ended, or that it is to do (again)."""
    if status == "failed":
        return "failed"
    return "to do" if is_left else str(status)


def shown(record: Record, measurements: Sequence[MeasurementRecord], *, as_json: bool) -> str:
    """Everything about one cell."""
    body = dataclasses.asdict(record) | {"measurements": [dataclasses.asdict(m) for m in measurements]}
    command = again.command(record)
    if as_json:
        return json.dumps(body | {"again": command}, indent=1)
    for part in ("quality", "val_quality"):
        for scores in body[part].values():
            scores["per_sample"] = f"{len(scores['per_sample'])} characters, packed"
    first = f"{record.label}: {record.status} {record.reason}".rstrip()
    return "\n".join([first, f"again: {command or again.why_not(record)}", *_indented(body, 0)])


def _indented(value: Any, depth: int) -> list[str]:
    lines = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        nested = isinstance(inner, dict) or (
            isinstance(inner, (list, tuple)) and any(isinstance(i, dict) for i in inner)
        )
        lines.append("  " * depth + (f"{key}:" if nested and inner else f"{key}: {inner}"))
        if nested:
            lines += _indented(inner, depth + 1)
    return lines
