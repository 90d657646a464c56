"""``bench evolve``: functions are tried on tasks, cell by cell, and the best have children; the store keeps it all."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from slimbench import cli, discover, environment, identity
from slimbench.core import Budget, Cell, UserError
from slimbench.store import Store, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from slimbench.core import Record
    from slimbench.methods.etpf.evolution import Evolution, Individual
    from slimbench.methods.etpf.method import ETPF
    from slimbench.progress import View
    from slimbench.run import Options

_SHOWN = 5


@click.command()
@click.option(
    "--tasks",
    "--task",
    "task",
    multiple=True,
    default=("digits", "texture_digits"),
    show_default=True,
    help="Tasks that fitness is measured on, each named by itself; the authors' are mnist and \"cifar10(network="
    "'vgg16-bn-fc')\".",
)
@click.option("--population", default=14, show_default=True, help="Functions in a generation.")
@click.option("--generations", default=10, show_default=True, help="After the first, which is the seeds.")
@click.option("--survivors", default=6, show_default=True, help="That keep their fitness and have the children.")
@click.option(
    "--selection", type=click.Choice(["best", "tournament"]), default="best", show_default=True, help="Of them."
)
@click.option("--crossover", default=0.75, show_default=True, help="Probability that two children swap subtrees.")
@click.option("--mutation", default=0.75, show_default=True, help="Probability that a child gets a random subtree.")
@click.option("--deepest", type=click.IntRange(1), default=None, help="Operators in a row (else no limit).")
@click.option("--initial", multiple=True, help="Functions to start from, by name or formula (else the seven seeds).")
@click.option("--seed", default=0, show_default=True, help="Of the evolution's draws.")
@click.option("--seeds", default="0", show_default=True, help="Of each trial, e.g. 0,1: fitness is of their mean.")
@click.option(
    "--keep", default=0.35, show_default=True, help="Share of MACs that a trial leaves; the authors' counts go first."
)
@click.option("--epochs", type=float, default=None, help="Of a trial (else a quarter of the dense schedule).")
@click.option("--images", default=2000, show_default=True, help="Training images that scores are made from.")
@click.option(
    "--time-limit", type=float, default=6 * 3600.0, show_default=True, help="Seconds of a trial; then its fitness is 0."
)
@cli.options("data", "store", "plugin", "device", "precision", "threads", "jobs", "json")
def evolve(
    *,
    task: tuple[str, ...],
    data: str | None,
    store: str,
    plugin: Any,
    device: str,
    precision: str,
    threads: int,
    jobs: int | None,
    as_json: bool,
    initial: tuple[str, ...],
    seeds: str,
    keep: float,
    epochs: float | None,
    images: int,
    time_limit: float,
    **how: Any,
) -> None:
    """Evolve pruning functions, as ETPF does, on tasks of yours.

    The fitness of a function is the geometric mean of what networks score on the tasks' validation splits, after it
    has pruned them and they were trained for a while. Interrupt it whenever you like: the same command continues.
    """
    from slimbench.methods.etpf import evolution, functions, schedules
    from slimbench.progress import view
    from slimbench.run import Options

    cli.prepare(data, plugin)
    settings = environment.resolve(precision, device, threads)
    dense = discover.suite("quick").reference
    cells = []
    for text in task:
        chosen = discover.make("tasks", text)
        method, budget = schedules.trial(chosen, keep, epochs, images)
        for seed in cli.seeds_of(seeds):
            reference = Cell(chosen, dense, Budget(1.0), seed, settings)
            cells.append(Cell(chosen, method, budget, seed, settings, reference, inner=True))
    shown = view(as_json=as_json)
    options = Options(cli.jobs_of(jobs, threads, device), time_limit_s=time_limit, plugins=tuple(plugin))
    course = _Course(cells, evolution.Settings(**how), options, Store(store), shown)
    first = [functions.function(text) for text in initial] or evolution.first_population()
    try:
        best = course.run(first)
    finally:
        shown.close()
    if not as_json:
        click.echo(f"\nBest: {best}\nThe course is in {course.file}; pictures lie beside it.")
        click.echo(f"Use it: bench run --all --method \"etpf(function='{best}')\"")


@dataclass
class _Course:
    """One evolution in a store.

    Attributes:
        trials: a cell for each task and seed, whose function is put in.

    """

    trials: Sequence[Cell]
    settings: Any
    options: Options
    store: Store
    view: View

    @functools.cached_property
    def file(self) -> Path:
        """Where the course is kept: its name is of everything that decides it, but its length."""
        decides = dataclasses.asdict(self.settings) | {"generations": None}
        name = identity.digest([decides, [identity.cell_id(cell) for cell in self.trials]])
        return self.store.root / "evolutions" / f"{name}.json"

    def run(self, first: Sequence[Any]) -> str:
        """Evolve, and give the best formula. Raises: UserError where not even the first functions can be tried."""
        from slimbench.methods.etpf import evolution, space
        from slimbench.reports.evolution import draw

        self.file.parent.mkdir(exist_ok=True)
        course = evolution.Evolution(self.settings, self.evaluate)
        with self.store.one_runner():
            self.known = self._read()
            for generation, _ in enumerate(course.run(first)):
                write_whole(self.file, json.dumps(self._document(course), indent=1) + "\n")
                self._tell(generation, course)
        draw(self._document(course), self.file.with_suffix(""))
        best = max(course.everyone, key=lambda one: one.fitness or 0.0)
        return space.formula(best.expression)

    def evaluate(self, generation: int, newcomers: Sequence[Individual]) -> None:
        """Try every function that is new, all its cells at once, and give each individual its fitness."""
        from slimbench.methods.etpf import space
        from slimbench.run import run_inside

        texts = {one.number: space.formula(space.canonical(one.expression)) for one in newcomers}
        new = {text: self._cells(text) for text in dict.fromkeys(texts.values()) if text not in self.known}
        every = [cell for cells in new.values() for cell in cells]
        self.view.say(f"generation {generation}: {len(new)} of {len(newcomers)} functions are new", new=list(new))
        records = run_inside(every, self.options, self.store, self.view) if every else {}
        for text, cells in new.items():
            self.known[text] = self._scores([records.get(identity.cell_id(cell)) for cell in cells])
        if generation == 0 and not any(map(_fitness, self.known.values())):
            reason = next((record.reason for record in records.values() if record.reason), "")
            raise UserError(f"No function could be tried ({reason}): see the logs in {self.store.root / 'logs'}.")
        for one in newcomers:
            one.scores = self.known[texts[one.number]]
            one.fitness = _fitness(one.scores)

    def _cells(self, text: str) -> list[Cell]:
        def put_in(method: Any) -> ETPF:
            return dataclasses.replace(method, function=text)

        return [dataclasses.replace(cell, method=put_in(cell.method)) for cell in self.trials]

    def _scores(self, records: Sequence[Record | None]) -> dict[str, float]:
        """By task: the mean over seeds of the headline on val; 0 for a trial that failed."""
        by_task: dict[str, list[float]] = {}
        for cell, record in zip(self.trials, records, strict=True):
            done = record is not None and record.status in {"ok", "off_budget"}
            score = next(iter(record.val_quality.values())).value if record and done else 0.0
            by_task.setdefault(identity.task_label(cell.task), []).append(score)
        return {label: statistics.fmean(scores) for label, scores in by_task.items()}

    def _read(self) -> dict[str, dict[str, float]]:
        """Scores by canonical formula, of an earlier run of the same evolution."""
        from slimbench.methods.etpf import space

        if not self.file.exists():
            return {}
        try:
            individuals = json.loads(self.file.read_text())["individuals"]
            known = {one["expression"]: one["scores"] for one in individuals if one["fitness"] is not None}
            return {space.formula(space.canonical(space.parse(text))): scores for text, scores in known.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.file} is damaged: delete it; finished trials are kept as cells.") from error

    def _document(self, course: Evolution) -> dict[str, Any]:
        from slimbench.methods.etpf import evolution

        trials = [
            identity.describe_cell(cell)
            | {"label": identity.cell_label(cell), "dense": identity.cell_id(cell.reference)}
            for cell in self.trials
            if cell.reference
        ]
        return {"trials": trials} | evolution.document(course)

    def _tell(self, generation: int, course: Evolution) -> None:
        """The best functions so far."""
        from slimbench.methods.etpf import functions, space

        names = {space.canonical(functions.function(name)): name for name in functions.NAMED}
        unique = {space.canonical(one.expression): one for one in reversed(course.everyone)}
        best = sorted(unique.values(), key=lambda one: -(one.fitness or 0.0))[:_SHOWN]
        rows = [
            [
                f"{one.fitness:.2f}",
                *(f"{score:.2f}" for score in one.scores.values()),
                one.born,
                names.get(space.canonical(one.expression), space.formula(one.expression)),
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
