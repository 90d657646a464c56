"""Records go in; whether a row is of them, which of them count once, and what pairs of them differ by come out.

Shared by all of the auditor, and by nothing that makes the tables.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from slimbench.statistics import student_t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import Record

    Facts = Mapping[str, Any]


def of_cells(line: Facts, found: Iterable[Record]) -> Iterator[str]:
    """Whether the records behind a line are of the method and the operating point that it says."""
    for record in found:
        method, budget = record.cell["method"], record.cell["budget"]
        right = {
            "resource": budget["resource"],
            "keep_asked": budget["keep"],
            "params_keep_asked": budget.get("params_keep"),
            "epochs_asked": budget["epochs"],
            "is_dense": record.cell["reference"],
            "network": record.cell["task"]["network"],
            "round_to": method.get("round_to", 1),
            "version": method["version"],
        }
        for name, value in right.items():
            if name in line and line[name] != value:
                yield f"{name} is {line[name]}, and by the records {value}"
        if not is_of(line["method"], method["label"]):
            yield f"its records are of {method['label']}"


def is_of(name: str, label: str) -> bool:
    """Whether a row's name is of a method: it may say the version, and what parts it from its namesakes."""
    return name == label or name.startswith((f"{label} v", f"{label} ["))


def once(found: Sequence[Record]) -> list[Record]:
    """One network is one, however many seeds have it."""
    return [
        r for i, r in enumerate(found) if not r.artifact or all(r.artifact != other.artifact for other in found[:i])
    ]


def pairs(ours: Sequence[Record], theirs: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Of one seed each; two networks are one pair, however many seeds have both."""
    by_seed = {record.cell["seed"]: record for record in theirs}
    found: dict[tuple[str, str], tuple[Record, Record]] = {}
    for a in sorted(ours, key=lambda record: record.cell["seed"]):
        if b := by_seed.get(a.cell["seed"]):
            found.setdefault((a.artifact or a.id, b.artifact or b.id), (a, b))
    return list(found.values())


def gaps(ours: Sequence[Record], theirs: Sequence[Record]) -> list[float]:
    """Of the headline metric, ours - theirs, by pairs of networks."""
    return [headline(a) - headline(b) for a, b in pairs(ours, theirs) if a.quality and b.quality]


def headline(record: Record) -> float:
    """The first metric's value on test."""
    return next(iter(record.quality.values())).value


def half_width(values: Sequence[float]) -> float:
    """Of Student's 95 % interval of the mean of two values or more."""
    return student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
