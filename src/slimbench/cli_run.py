"""Commands that compress: ``bench plan``, ``bench run``, ``bench compress``, ``bench train``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slimbench import discover, environment
from slimbench.cli_options import options, prepare, warn
from slimbench.core import Arm, Budget, Settings, Suite, UserError
from slimbench.remote import open_store
from slimbench.store import holds_records

if TYPE_CHECKING:
    from collections.abc import Sequence


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: ends a run in the same order as an interrupt does."""


def ends_in_order() -> None:
    """From now on SIGTERM ends this process as an interrupt does."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*received: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once
    raise TerminatedError


_PROFILE = click.option("--profile", multiple=True, help="Time by these hardware profiles, not the suite's.")


def _select(function: Any) -> Any:
    """Which part of which suite."""
    for option in reversed(
        (
            click.argument("suite", required=False),
            click.option(
                "--all", "everything", is_flag=True, help="All of SUITE; without SUITE: of the embedded quick one."
            ),
            click.option(
                "--method",
                multiple=True,
                help='Only these, e.g. l1_channels or "l1_channels(round_to=8)"; a bare name means its defaults, or, '
                "where the suite has it with other fields only, those.",
            ),
            click.option(
                "--task",
                multiple=True,
                help="Only these, e.g. \"cifar10(network='resnet56')\"; bare names as for --method.",
            ),
            click.option(
                "--keep",
                multiple=True,
                help="Only these shares, in (0, 1], e.g. 0.5,0.25. A share that the suite gives to some methods runs "
                "for those alone; a method named by --method that has none of them runs at all of them.",
            ),
            click.option("--seeds", default=None, help="Seeds, e.g. 0,1,2, or n=3 for these three."),
            click.option(
                "--epochs",
                type=float,
                default=None,
                help="Epochs that each method may train (else the suite's); dense networks train for their task's.",
            ),
            _PROFILE,
        )
    ):
        function = option(function)
    return function


def suite_of(
    *,
    suite: str | None,
    everything: bool,
    method: Any,
    task: Any,
    keep: Any,
    seeds: str | None,
    profile: Any,
    epochs: float | None = None,
) -> Suite:
    """The suite, or the part of it, that the options name."""
    from dataclasses import replace

    from slimbench.plan import Filter

    if suite is None and not (everything or method or task):
        raise UserError(f"Name a suite ({', '.join(discover.suites())}), or say --all for the embedded quick suite.")
    chosen = discover.suite(suite or "quick")
    own = tuple(one for arm in chosen.arms for one in arm.methods)
    methods = tuple(one for text in method for one in named("methods", text, own))
    tasks = tuple(one for text in task for one in named("tasks", text, chosen.tasks))
    part = Filter(tasks, methods, keeps_of(keep), seeds_of(seeds), epochs)
    chosen = _timed_by(chosen, profile)
    found = part.of(chosen)
    has = {type(one) for one in own}
    mine = tuple(discover.build(n, cls, {}) for n, cls in discover.plugin_methods().items() if cls not in has)
    if mine and not methods:
        found = replace(found, arms=found.arms + replace(part, methods=mine).of(chosen).arms)
    return found


def _timed_by(suite: Suite, profile: Any) -> Suite:
    """The suite, with the hardware profiles that were named alone, where any were."""
    from dataclasses import replace

    made = tuple(discover.make("hardware_profiles", text) for text in profile)
    return replace(suite, profiles=made) if made else suite


def named(kind: str, text: str, own: tuple[Any, ...]) -> tuple[Any, ...]:
    """What was typed; of a suite that has a bare name with other fields alone, those: its network, its small search.

    The label of one of the suite's own is that one, also where it holds what cannot be typed.
    """
    from slimbench import identity

    if labelled := next((one for one in own if identity.label(one) == text), None):
        return (labelled,)
    made = discover.make(kind, text)
    alike = tuple(dict.fromkeys(one for one in own if type(one) is type(made)))
    return alike if alike and made not in alike and "(" not in text else (made,)


def keeps_of(texts: Sequence[str]) -> tuple[float, ...]:
    """Shares as typed, several in one text or one in each."""
    try:
        return tuple(dict.fromkeys(float(part) for text in texts for part in text.split(",")))
    except ValueError:
        raise UserError(f"Cannot read --keep {','.join(texts)!r}: write 0.5, or 0.5,0.25 for both.") from None


def seeds_of(text: str | None) -> tuple[int, ...]:
    if not text:
        return ()
    try:
        if text.startswith("n="):
            seeds = tuple(range(int(text[2:])))
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise UserError(f"Cannot read --seeds {text!r}: write 0,1,2 or n=3, none below 0.")
    return seeds


@click.command()
@_select
@options("data", "store", "plugin", "device", "precision", "threads", "json")
def plan(
    *, data: str | None, store: str, plugin: Any, device: str, precision: str, threads: int, as_json: bool, **part: Any
) -> None:
    """Show the cells of a suite, which are done, and what the rest will take."""
    from slimbench import listing

    prepare(data, plugin)
    if Path(store).is_file():
        raise UserError(f"The store {store} is a file: name a folder with --store.")
    known = open_store(store, create=False) if "://" in store or holds_records(Path(store)) else None
    settings = environment.resolve(precision, device, threads, elsewhere=True)
    suite = suite_of(**part)
    _refuse_networks(suite)
    text = listing.planned(suite, settings, known, as_json=as_json)
    warn(known)
    click.echo(text)


def _refuse_networks(suite: Suite) -> None:
    """Raise UserError for a network that cannot be built; those of suites that ship can."""
    known = [task for shipped in discover.shipped_suites().values() for task in shipped.tasks]
    for task in suite.tasks:
        if task not in known:
            try:
                task.build()
            except UserError:
                raise
            except Exception as error:  # a user's own function may raise anything
                what = f"{type(error).__name__}: {error}"
                raise UserError(f"The network {task.network!r} cannot be built ({what}): mend it.") from error


@click.command()
@_select
@options("data", "store", "plugin", "device", "precision", "threads", "jobs", "json")
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many cells this time.")
@click.option(
    "--level",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="How thoroughly to time; quick: the first seed only.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Seconds that a cell may take (else the suite's).",
)
@click.option("--measure-only", is_flag=True, help="Compress nothing; the networks may come from another machine.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first cell that fails.")
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm", "ray"]),
    default="local",
    show_default=True,
    help="Where cells are compressed: here, as Slurm job arrays, or as tasks of a Ray cluster.",
)
@click.option("--address", default="auto", show_default=True, help="Address of the Ray cluster.")
@click.option("--slurm", multiple=True, metavar="NAME=VALUE", help="An option of sbatch, or minutes=N per allocation.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    default=None,
    metavar="GIB",
    help="Memory of one cell: its limit here, its request on a cluster.",
)
def run(
    *,
    data: str | None,
    store: str,
    plugin: Any,
    device: str,
    precision: str,
    threads: int,
    jobs: int | None,
    as_json: bool,
    limit: int | None,
    level: Any,
    time_limit: float | None,
    fail_fast: bool,
    measure_only: bool,
    executor: str,
    address: str,
    slurm: Any,
    memory: float | None,
    **part: Any,
) -> None:
    """Run a suite: compress what is not done, measure it, show the table.

    Interrupt it whenever you like: the same command continues, and never redoes what is done. Several may run on one
    store, from several machines too: they share the work. Exit status 1 where a cell failed, 2 where the input was bad.
    """
    from slimbench import executors
    from slimbench.run import Options

    prepare(data, plugin)
    settings = environment.resolve(precision, device, threads, elsewhere=measure_only or executor != "local")
    if "://" in store and executor != "local":
        raise UserError(f"--executor {executor} wants a folder that all nodes see, and {store} is none.")
    scripts = Path(store).expanduser().absolute() / "submitted"
    where = executors.executor(executor, settings, scripts, jobs=jobs, memory_gb=memory, address=address, slurm=slurm)
    how = Options(
        level=level,
        limit=limit,
        fail_fast=fail_fast,
        time_limit_s=time_limit,
        plugins=tuple(plugin),
        executor=where,
        measure_only=measure_only,
    )
    sys.exit(_run(suite_of(**part), settings, how, store, as_json=as_json))


def _run(suite: Suite, settings: Settings, options: Any, store_path: str, *, as_json: bool) -> int:
    """Run, show the table and where the time went; the exit status."""
    from slimbench.progress import duration, view
    from slimbench.reports import render, table
    from slimbench.run import run as run_suite

    store = open_store(store_path)
    shown = view(as_json=as_json)
    ends_in_order()
    try:
        outcome = run_suite(suite, settings, options, store, shown)
    finally:
        shown.close()
    if not as_json:
        wanted = set(outcome.ids)
        records = [record for record in store.summaries() if record.id in wanted]
        taken = [m for m in store.shared_timings() if m.cell_id in wanted]
        click.echo("\n" + render.markdown(table.tables(records, taken)))
        if took := [f"{part} {duration(s)}" for part, s in outcome.seconds.items() if s >= 0.1]:
            click.echo(f"Took {', '.join(took)}.")
        click.echo(f"Records are in {store.place}; `bench show ID` tells all about one, `bench report` makes tables.")
    return 1 if outcome.failed else 0


@click.command()
@options("data", "store", "plugin", "device", "precision", "threads", "json")
@click.option(
    "--model",
    "network",
    default=None,
    help="Your network, module:function; it may take (channels, classes), or (scale).",
)
@click.option("--task", required=True, help="Data, loss and metric; its network unless --model names yours.")
@click.option("--method", required=True, help="How to compress.")
@click.option("--keep", type=float, required=True, help="Share that is left, in (0, 1].")
@click.option(
    "--resource",
    type=click.Choice(["macs", "params", "prunable_nonzero"]),
    default="macs",
    show_default=True,
    help="What the share is of.",
)
@click.option(
    "--epochs", type=float, default=None, help="Epochs that the method may train (else a quarter of the dense ones)."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of weights, data order and the method."
)
@_PROFILE
def compress(
    *,
    data: str | None,
    store: str,
    plugin: Any,
    device: str,
    precision: str,
    threads: int,
    as_json: bool,
    network: str | None,
    task: str,
    method: str,
    keep: float,
    resource: Any,
    epochs: float | None,
    seed: int,
    profile: Any,
) -> None:
    """Compress one network, your own too, with one method."""
    from slimbench.run import Options

    prepare(data, plugin)
    chosen = _on(task, network)
    budget = Budget(keep, resource, epochs=chosen.recipe.epochs / 4 if epochs is None else epochs)
    suite = _timed_by(_one(chosen, (Arm((discover.make("methods", method),), (budget,)),), seed), profile)
    settings = environment.resolve(precision, device, threads)
    sys.exit(_run(suite, settings, Options(plugins=tuple(plugin)), store, as_json=as_json))


@click.command()
@options("data", "store", "plugin", "device", "precision", "threads", "json")
@click.argument("task")
@click.option("--network", default=None, help="The task's network (else its default).")
@click.option("--epochs", type=float, default=None, help="Epochs to train (else the recipe's).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of weights and data order.")
def train(
    *,
    data: str | None,
    store: str,
    plugin: Any,
    device: str,
    precision: str,
    threads: int,
    as_json: bool,
    task: str,
    network: str | None,
    epochs: float | None,
    seed: int,
) -> None:
    """Train and store a dense network that never saw the validation split: every method then starts from it."""
    from dataclasses import replace

    from slimbench.run import Options

    prepare(data, plugin)
    chosen = _on(task, network)
    if epochs is not None:
        wanted = Budget(1.0, epochs=epochs).epochs  # refuses what is impossible
        chosen = replace(chosen, recipe=replace(chosen.recipe, epochs=wanted))
    settings = environment.resolve(precision, device, threads)
    sys.exit(_run(_one(chosen, (), seed), settings, Options(plugins=tuple(plugin)), store, as_json=as_json))


def _on(task: str, network: str | None) -> Any:
    from dataclasses import replace

    chosen = discover.make("tasks", task)
    return replace(chosen, network=network) if network else chosen


def _one(task: Any, arms: tuple[Arm, ...], seed: int) -> Suite:
    """A suite of one task, with the quick suite's reference and profiles."""
    quick = discover.suite("quick")
    return Suite("one", "One network", (task,), quick.reference, arms, (seed,), quick.profiles)
