"""``bench evolve``: what is typed goes in; functions are tried on tasks, cell by cell, and the best have children."""

from __future__ import annotations

from typing import Any

import click

from slimbench import cli, discover, environment
from slimbench.core import Budget, Cell, UserError
from slimbench.store import Store


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
@click.option("--generations", default=10, show_default=True, help="Generations after the first, the seeds.")
@click.option("--survivors", default=6, show_default=True, help="Functions that survive and have the children.")
@click.option(
    "--selection", type=click.Choice(["best", "tournament"]), default="best", show_default=True, help="Of survivors."
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
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=6 * 3600.0,
    show_default=True,
    help="Seconds of a trial (its fitness is then 0) or dense network.",
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
    from slimbench import executors
    from slimbench.methods.etpf import evolution, functions, schedules
    from slimbench.methods.etpf.course import Course
    from slimbench.progress import view
    from slimbench.run import Options

    cli.prepare(data, plugin)
    settings = environment.resolve(precision, device, threads)
    dense = discover.suite("quick").reference
    cells = []
    if not cli.seeds_of(seeds):
        raise UserError("Trials need a seed: write --seeds 0.")
    for text in dict.fromkeys(task):
        chosen = discover.make("tasks", text)
        if not chosen.metrics[0].higher_is_better:
            raise UserError(
                f"{chosen.name} is scored by {chosen.metrics[0].name}, of which less is better, and evolution seeks "
                "the highest score: give the task a metric of which more is better first."
            )
        method, budget = schedules.trial(chosen, keep, epochs, images)
        for seed in cli.seeds_of(seeds):
            reference = Cell(chosen, dense, Budget(1.0), seed, settings)
            cells.append(Cell(chosen, method, budget, seed, settings, reference, inner=True))
    shown = view(as_json=as_json)
    options = Options(time_limit_s=time_limit, plugins=tuple(plugin), executor=executors.local(settings, jobs))
    first = [functions.function(text) for text in initial] or evolution.first_population()
    course = Course(first, cells, evolution.Settings(**how), options, Store(store), shown)
    try:
        best = course.run()
    finally:
        shown.close()
    if not as_json:
        click.echo(f"\nBest: {best}\nThe course is in {course.file}; pictures lie beside it.")
        click.echo(f"Use it: bench run --all --method \"etpf(function='{best}')\"")
