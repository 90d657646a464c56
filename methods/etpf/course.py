"""Trials and settings go in; functions evolve over cells, and the store keeps all of it: a killed course goes on.

Each trial of a function is a cell that is scored on val. The course itself is a document of formulas and scores,
written after every generation; what the next generation becomes depends on it alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench import identity
from slimbench.core import Cell, UserError
from slimbench.files import write_whole
from slimbench.methods.etpf import evolution, functions, space
from slimbench.reports.evolution import draw
from slimbench.run import run_inside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from slimbench.core import Task
    from slimbench.methods.etpf.evolution import Evolution, Individual
    from slimbench.methods.etpf.space import Expression
    from slimbench.progress import View
    from slimbench.run import Options
    from slimbench.store import Store

_SHOWN = 5


@dataclass
class Course:
    """One evolution in a store.

    Attributes:
        first: the functions to start from.
        trials: a cell for each task and seed, whose function is put in.

    """

    first: Sequence[Expression]
    trials: Sequence[Cell]
    settings: evolution.Settings
    options: Options
    store: Store
    view: View

    @functools.cached_property
    def file(self) -> Path:
        """Where the course is kept: its name is of everything that decides it, but its length."""
        decides = dataclasses.asdict(self.settings) | {"generations": None}
        first = [space.prefix(expression) for expression in self.first]
        name = identity.digest([decides, first, [identity.cell_id(cell) for cell in self.trials]])
        return self.store.root / "evolutions" / f"{name}.json"

    def run(self) -> str:
        """Evolve, and give the best formula. Raises: UserError where not even the first functions can be tried."""
        self.file.parent.mkdir(exist_ok=True)
        course = evolution.Evolution(self.settings, self.evaluate)
        with self.store.one_runner():
            self.known = self._read()
            for generation, _ in enumerate(course.run(self.first)):
                if generation >= self.stored:  # a replay never shortens what is there
                    write_whole(self.file, json.dumps(self._document(course), indent=1) + "\n")
                self._tell(generation, course)
        draw(self._document(course), self.file.with_suffix(""))
        best = max(course.everyone, key=lambda one: one.fitness or 0.0)
        return space.formula(best.expression)

    def evaluate(self, generation: int, newcomers: Sequence[Individual]) -> None:
        """Try every function that is new, all its cells at once, and give each individual its fitness."""
        texts = {one.number: space.formula(space.canonical(one.expression)) for one in newcomers}
        new = {text: self._cells(text) for text in dict.fromkeys(texts.values()) if text not in self.known}
        every = [cell for cells in new.values() for cell in cells if not self._has_failed(cell)]
        self.view.say(f"generation {generation}: {len(new)} of {len(newcomers)} functions are new", new=list(new))
        if every:
            run_inside(every, self.options, self.store, self.view)
        for text, cells in new.items():
            self.known[text] = self._scores(cells)
        if generation == 0 and not any(map(_fitness, self.known.values())):
            tried = [self.store.record(identity.cell_id(cell)) for cells in new.values() for cell in cells]
            reason = next((record.reason for record in tried if record and record.reason), "")
            raise UserError(f"No function could be tried ({reason}): see the logs in {self.store.root / 'logs'}.")
        for one in newcomers:
            one.scores = self.known[texts[one.number]]
            one.fitness = _fitness(one.scores)

    def _cells(self, text: str) -> list[Cell]:
        methods = [dataclasses.replace(cell.method, function=text) for cell in self.trials]  # type: ignore[type-var]
        return [dataclasses.replace(cell, method=method) for cell, method in zip(self.trials, methods, strict=True)]

    def _has_failed(self, cell: Cell) -> bool:
        """A trial that failed is not tried again, or the same course would go another way."""
        record = self.store.record(identity.cell_id(cell))
        return record is not None and record.status == "failed"

    def _scores(self, cells: Sequence[Cell]) -> dict[str, float]:
        """By task: the mean over seeds of the headline on val; 0 for a trial that failed."""
        by_task: dict[Task, list[float]] = {}
        for cell in cells:
            record = self.store.record(identity.cell_id(cell))
            done = record is not None and record.status in {"ok", "off_budget"}
            score = next(iter(record.val_quality.values())).value if record and done else 0.0
            by_task.setdefault(cell.task, []).append(score)
        labels = [identity.task_label(task) for task in by_task]
        unique = [label if labels.count(label) == 1 else f"{label} ({n + 1})" for n, label in enumerate(labels)]
        return {label: statistics.fmean(scores) for label, scores in zip(unique, by_task.values(), strict=True)}

    def _read(self) -> dict[str, dict[str, float]]:
        """Scores by canonical formula, of an earlier run of the same evolution."""
        self.stored = 0  # generations in the file
        if not self.file.exists():
            return {}
        try:
            document = json.loads(self.file.read_text())
            self.stored, individuals = len(document["generations"]), document["individuals"]
            known = {one["expression"]: one["scores"] for one in individuals if one["fitness"] is not None}
            return {space.formula(space.canonical(space.parse(text))): scores for text, scores in known.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.file} is damaged: delete it; finished trials are kept as cells.") from error

    def _document(self, course: Evolution) -> dict[str, Any]:
        trials = [
            identity.describe_cell(cell)
            | {"label": identity.cell_label(cell), "dense": identity.cell_id(cell.reference)}
            for cell in self.trials
            if cell.reference
        ]
        return {"trials": trials} | evolution.document(course)

    def _tell(self, generation: int, course: Evolution) -> None:
        """The best functions so far."""
        unique = {space.canonical(one.expression): one for one in reversed(course.everyone)}
        best = sorted(unique.values(), key=lambda one: -(one.fitness or 0.0))[:_SHOWN]
        rows = [
            [
                f"{one.fitness:.2f}",
                *(f"{score:.2f}" for score in one.scores.values()),
                one.born,
                functions.known_as(space.formula(one.expression)),
            ]
            for one in best
        ]
        heads = ["fitness", *best[0].scores, "born", "function"]
        facts = [{"fitness": one.fitness, "function": space.formula(one.expression)} for one in best]
        text = f"after generation {generation}, {len(unique)} functions:\n" + tabulate(rows, heads, maxcolwidths=80)
        self.view.say(text, generation=generation, best=facts)


def _fitness(scores: dict[str, float]) -> float:
    """The geometric mean over tasks; 0 where one is."""
    return math.prod(max(score, 0.0) for score in scores.values()) ** (1 / len(scores))
