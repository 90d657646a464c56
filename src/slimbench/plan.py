"""A suite goes in; its cells come out, with an estimate of time and disk from what earlier cells took."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from slimbench import identity
from slimbench.core import Arm, Budget, Cell, Settings, Suite, UserError
from slimbench.files import size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import Record, Task
    from slimbench.store import Store

T = TypeVar("T")

_WHOLE = Budget(1.0)  # one object, which ``identity.by_id`` describes once
_ENOUGH = 25  # records of a kind: more would not move their median by much
FINAL = ("ok", "off_budget", "unsupported")  # a failed cell is tried again by the next run


def plan(suite: Suite, settings: Settings) -> list[Cell]:
    """Every cell of a suite, each dense reference before the cells that start from it."""
    cells: list[Cell] = []
    for task in suite.tasks:
        for seed in suite.seeds:
            dense = reference(suite, task, seed, settings)
            cells.append(dense)
            cells += [
                Cell(task, method, budget, seed, settings, dense)
                for arm in suite.arms
                for method in arm.methods
                for budget in arm.budgets
            ]
    return cells


def reference(suite: Suite, task: Task, seed: int, settings: Settings) -> Cell:
    """The cell that makes the dense network of a task and seed."""
    return Cell(task, suite.reference, _WHOLE, seed, settings)


@dataclass(frozen=True)
class Filter:
    """What of a suite to run; empty: all of it."""

    tasks: Sequence[Task] = ()
    methods: Sequence[object] = ()
    keeps: Sequence[float] = ()
    seeds: Sequence[int] = ()
    epochs: float | None = None  # that a method may spend; None: the suite's

    def of(self, suite: Suite) -> Suite:
        """The suite that is left; named methods and tasks that it lacks join it. Raises: UserError where none is."""
        if not suite.arms:
            raise UserError(f"The suite {suite.name!r} has no methods.")
        for keep in self.keeps or (1.0,):
            Budget(keep, epochs=self.epochs or 0.0)  # refuses what is impossible, also where no method will have it
        arms = suite.arms
        if self.methods:
            arms = tuple(arm for arm in (self._arm(suite, method) for method in self.methods) if arm.methods)
        if self.keeps:
            known = {budget.keep for arm in suite.arms for budget in arm.budgets}
            arms = tuple(replace(arm, budgets=self._budgets(arm, known)) for arm in arms)
        if self.epochs is not None:
            arms = tuple(replace(arm, budgets=_with_epochs(arm.budgets, self.epochs)) for arm in arms)
        tasks, seeds = tuple(self.tasks) or suite.tasks, tuple(self.seeds) or suite.seeds
        is_its_own = set(tasks) <= set(suite.tasks)
        limit_s = suite.time_limit_s if is_its_own else Suite.time_limit_s
        return replace(suite, tasks=tasks, arms=arms, seeds=seeds, time_limit_s=limit_s)

    def _arm(self, suite: Suite, method: object) -> Arm:
        """The suite's budgets for a method: those of the arm that has its name, else those that fit what it removes."""
        if type(method) is type(suite.reference):
            return Arm((), ())  # planned anyway
        shared = [arm for arm in suite.arms if any(type(other) is type(method) for other in arm.methods)]
        if shared:
            budgets = dict.fromkeys(budget for arm in shared for budget in arm.budgets)
            return Arm((method,), tuple(budgets))  # type: ignore[arg-type]
        removes = method.card.granularity == "weight"  # type: ignore[attr-defined]
        fitting = (arm for arm in suite.arms if removes == any(b.resource == "prunable_nonzero" for b in arm.budgets))
        return replace(next(fitting, suite.arms[0]), methods=(method,))  # type: ignore[arg-type]

    def _budgets(self, arm: Arm, known: set[float]) -> tuple[Budget, ...]:
        """The asked shares: one that the suite has (``known``) is for arms that have it, a new one for all.

        A method that was named and has none of them takes them all.
        """
        asked = dict.fromkeys(self.keeps)
        own = tuple(budget for budget in arm.budgets if budget.keep in asked)
        new = [keep for keep in asked if keep not in known]
        if self.methods and not (own or new):
            new = list(asked)
        kinds = dict.fromkeys(replace(budget, keep=1.0) for budget in arm.budgets)
        return own + tuple(replace(kind, keep=keep) for kind in kinds for keep in new)


def _with_epochs(budgets: Sequence[Budget], epochs: float) -> tuple[Budget, ...]:
    return tuple(dict.fromkeys(replace(budget, epochs=epochs) for budget in budgets))


@dataclass(frozen=True)
class Estimate:
    """What the cells that are left will take, by the cells that are done."""

    seconds: float
    disk_bytes: float
    unknown: int  # cells without anything like them in the store


def estimate(todo: Iterable[Cell], records: Iterable[Record], store: Store | None) -> Estimate:
    """By the median of the same task, recipe and method, else of the same task and recipe; one process.

    ``records``: what is done, of ``store``; its artifacts say what a cell takes of the disk.
    """
    seconds = disk = 0.0
    unknown = 0
    medians = {key: _median(known) for key, known in _taken(records, store).items()}
    for cell in todo:
        known = _like(cell, medians)
        if known is None:
            unknown += 1
            continue
        seconds += known[0]
        disk += known[1]
    return Estimate(seconds, disk, unknown)


def expected_bytes(cells: Mapping[str, Cell], records: Iterable[Record]) -> dict[str, int]:
    """Memory that each cell will take: the most that any took of the same task, recipe and method, or network."""
    peaks: dict[tuple[str, ...], int] = {}
    for record, keys in _done(records):
        peaks |= {key: max(peaks.get(key, 0), record.spent.peak_bytes or 0) for key in keys}
    return {name: peak for name, cell in cells.items() if (peak := _like(cell, peaks))}


def _taken(records: Iterable[Record], store: Store | None) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """Seconds and bytes of cells that are done; the disk is asked for the first few of a kind."""
    taken: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for record, (own, alike) in _done(sorted(records, key=lambda record: record.id)):  # of all machines alike
        if store and len(known := taken[own]) < _ENOUGH:
            known.append((record.seconds, float(size_bytes(store.artifact(record.id)))))
            taken[alike].append(known[-1])
    return taken


def _median(known: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(seconds for seconds, _ in known), statistics.median(size for _, size in known)


def _done(records: Iterable[Record]) -> Iterator[tuple[Record, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Cells that are done, with what tells their kind: task, recipe and method; task and recipe."""
    for record in records:
        if record.status in FINAL and record.cost:
            alike = record.cell["task"]["label"], identity.digest_of_shared(record.cell["task"]["recipe"])
            yield record, ((*alike, record.cell["method"]["label"]), alike)


def _like(cell: Cell, known: Mapping[tuple[str, ...], T]) -> T | None:
    alike = _task_of(cell.task)
    return known.get((*alike, identity.label_of_shared(cell.method))) or known.get(alike)


@identity.remembered
def _task_of(task: Task) -> tuple[str, str]:
    return identity.task_label(task), identity.digest(identity.describe(task.recipe))
