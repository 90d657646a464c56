"""Rows at chosen rates of repair and the records go in; what is wrong with a choice comes out.

As all of the auditor, it shares no line with what makes the tables: the choice is made again, from the records.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from slimbench.core import Recipe
from slimbench.reports.audit_records import gaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import Record

    Facts = Mapping[str, Any]
    Scores = Mapping[int, float]  # of the headline metric, by seed


class Tried:
    """Which records are of one cell, but for seed and rate of repair."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._cells: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        self._cell_of: dict[str, str] = {}
        for record in records:
            self._cell_of[record.id] = cell = _without_rate(record)
            rate = record.cell["task"]["recipe"].get("fine_tune_lr", Recipe().fine_tune_lr)
            self._cells[cell][f"{rate:g}"].append(record)

    def of(self, ids: str) -> Mapping[str, Sequence[Record]]:
        """By rate every record of the cell that all of some records are of; nothing where they are of several."""
        cells = {self._cell_of.get(name, "") for name in ids.split()}
        return self._cells[cells.pop()] if len(cells) == 1 else {}


def _without_rate(record: Record) -> str:
    task = record.cell["task"]
    recipe = {name: value for name, value in task["recipe"].items() if name != "fine_tune_lr"}
    return json.dumps({**record.cell, "seed": 0, "task": {**task, "recipe": recipe}}, sort_keys=True)


def problems(lines: Sequence[Facts], tried: Tried, less_is_better: bool) -> Iterator[tuple[Facts, str]]:
    """What is wrong with the choices of the rows of one heading, each of which says its tries."""
    rates = [list(_parts(line["repair_tries"])) for line in lines]
    for line, here in zip(lines, rates, strict=True):
        if here != rates[0] or len(here) < 2:
            yield line, f"was tried at the rates {', '.join(here)}, other rows at {', '.join(rates[0])}"
        yield from ((line, what) for what in _of_line(line, tried, -1 if less_is_better else 1))


def _of_line(line: Facts, tried: Tried, turn: int) -> Iterator[str]:
    said = _parts(line["repair_tries"])
    there = tried.of(" ".join(said.values()))
    if line["ids"] not in said.values():
        yield "the records that count are of none of the rates"
        return
    if wrong := [rate for rate in said if {r.id for r in there.get(rate, ())} != set(said[rate].split())]:
        yield f"the records at the rate {', '.join(wrong)} are others, or of more than one cell"
        return
    chosen = next(rate for rate in said if said[rate] == line["ids"])
    means, n = _means({rate: there[rate] for rate in said})
    right = None if len(means) == len(said) and _are_equal(means.values()) else chosen
    if means and (chosen not in means or not _are_equal([means[chosen], max(means.values(), key=lambda m: turn * m)])):
        yield f"another rate was better on val than {chosen}: {means}"
    printed = None if line["repair_rate"] is None else f"{line['repair_rate']:g}"
    if printed != (right if means else None):
        yield f"the rate is {printed}, and by the records {right}"
    yield from _texts(line["repair_on_val"], {rate: (mean, n) for rate, mean in means.items()}, 0.0)
    gaps = {rate: _gap(_counted(there[rate]), _counted(there[chosen])) for rate in means if rate != chosen}
    yield from _texts(line["repair_elsewhere"], gaps, _LEAST)


def _means(tries: Mapping[str, Sequence[Record]]) -> tuple[dict[str, float], int]:
    """On val, over the seeds of all rates that have some, and how many: that met the budget, or that ended at all."""
    ok = {rate: [r for r in found if r.status == "ok" and r.cost] for rate, found in tries.items()}
    ended = ok if any(ok.values()) else {rate: [r for r in found if r.cost] for rate, found in tries.items()}
    scores = {rate: _on_val(found) for rate, found in ended.items() if found}
    seeds = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    return {rate: sum(values[s] for s in seeds) / len(seeds) for rate, values in scores.items() if seeds}, len(seeds)


def _counted(found: Sequence[Record]) -> list[Record]:
    return [r for r in found if r.status == "ok" and r.cost] or [r for r in found if r.cost]


def _on_val(found: Sequence[Record]) -> Scores:
    return {r.cell["seed"]: next(iter(r.val_quality.values())).value for r in _counted(found) if r.val_quality}


def _gap(theirs: Sequence[Record], ours: Sequence[Record]) -> tuple[float, int]:
    """On test, by pairs of networks, and how many."""
    found = gaps(theirs, ours)
    return (sum(found) / len(found) if found else 0.0), len(found)


def _are_equal(values: Iterable[float]) -> bool:
    first, *others = values
    return all(math.isclose(first, other, rel_tol=1e-9) for other in others)


_SHOWN = re.compile(r"([+-]?\d+\.\d+) \((\d+)\)")
_LEAST = 0.005  # points: what is smaller is not told, for two digits are printed


def _texts(text: str | None, right: Mapping[str, tuple[float, int]], least: float) -> Iterator[str]:
    """Numbers that are printed by rate, two digits each, with how many they are of; each beyond ``least`` is told."""
    said = _parts(text)
    for rate, (value, n) in right.items():
        if rate not in said and abs(value) <= least * (1 + 1e-9):
            continue
        shown = _SHOWN.fullmatch(said.get(rate, ""))
        if not shown or abs(float(shown[1]) - value) > 0.005 * (1 + 1e-9) or int(shown[2]) != n:
            what = f"{said[rate]} is" if rate in said else "nothing is"
            yield f"{what} printed at the rate {rate}, and by the records it is {value:g} ({n})"


def _parts(text: str | None) -> dict[str, str]:
    """The parts of "rate: what; rate: what"."""
    return {rate: what for rate, _, what in (part.partition(": ") for part in (text or "").split("; ") if part)}
