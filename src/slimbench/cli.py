"""The command line: ``bench``. Every command is a few lines over the engine; bad input is one sentence and exit 2."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from slimbench import __version__, cli_nightly, cli_report, cli_runs, cli_site, discover, environment
from slimbench.cli_options import load, options, prepare, warn
from slimbench.core import Arm, Budget, Settings, Suite, UserError
from slimbench.remote import open_store
from slimbench.store import Store

__all__ = ["main", "options", "prepare"]

_KINDS = {"methods": "methods", "tasks": "tasks", "profiles": "hardware_profiles"}


class _Cli(click.Group):
    """Turns bad input into one sentence on stderr and exit status 2, an interrupt into 130.

    Plug-ins add commands of their own: see ``discover.commands``.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *discover.commands()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or discover.command(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"bench: {error}", err=True)
            ctx.exit(2)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "bench"
            click.echo(f"bench: {error.format_message()} See `{where} --help`.", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            click.echo("bench: interrupted; the same command continues where this one stopped.", err=True)
            ctx.exit(143 if isinstance(error, _TerminatedError) else 130)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: ends a run in the same order as an interrupt does."""


def _terminate(*received: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once
    raise _TerminatedError


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def main() -> None:
    """Compare methods that compress convolutional networks, honestly.

    Start with `bench run --all`: every method on every embedded task, on this machine, in minutes.
    """


@main.command("list")
@click.argument("kind", type=click.Choice(["methods", "tasks", "profiles", "suites"]), required=False)
@options("plugin", "json")
def list_(kind: str | None, plugin: tuple[str, ...], *, as_json: bool) -> None:
    """List methods, tasks, hardware profiles and suites."""
    from slimbench import listing

    prepare(None, plugin)
    click.echo(listing.listing([kind] if kind else ["methods", "tasks", "profiles", "suites"], as_json=as_json))


def _select(function: Any) -> Any:
    """Which part of which suite."""
    for option in reversed(
        (
            click.argument("suite", required=False),
            click.option(
                "--all", "everything", is_flag=True, help="All of the suite; alone: the embedded quick suite."
            ),
            click.option(
                "--method",
                multiple=True,
                help='Only these, e.g. l1_channels or "l1_channels(round_to=8)"; a name without fields: its defaults, '
                "or where the suite has it with other fields only, those.",
            ),
            click.option(
                "--task",
                multiple=True,
                help="Only these, e.g. \"cifar10(network='resnet56')\"; names without fields as for --method.",
            ),
            click.option(
                "--keep",
                multiple=True,
                type=float,
                help="Only these shares, in (0, 1]. One that the suite has for some methods is for those; a method "
                "that was named and has none of them takes all.",
            ),
            click.option("--seeds", default=None, help="Seeds, e.g. 0,1,2 or a number of them with n=3."),
            click.option("--profile", multiple=True, help="Only these hardware profiles."),
        )
    ):
        function = option(function)
    return function


def _suite(
    *, suite: str | None, everything: bool, method: Any, task: Any, keep: Any, seeds: str | None, profile: Any
) -> Suite:
    """The suite, or the part of it, that the options name."""
    from dataclasses import replace

    from slimbench.plan import Filter

    if suite is None and not (everything or method or task):
        raise UserError(f"Name a suite ({', '.join(discover.suites())}), or say --all for the embedded quick suite.")
    chosen = discover.suite(suite or "quick")
    own = tuple(one for arm in chosen.arms for one in arm.methods)
    methods = tuple(one for text in method for one in _named("methods", text, own))
    tasks = tuple(one for text in task for one in _named("tasks", text, chosen.tasks))
    part = Filter(tasks, methods, tuple(keep), seeds_of(seeds))
    if profile:
        chosen = replace(chosen, profiles=tuple(discover.make("hardware_profiles", text) for text in profile))
    found = part.of(chosen)
    has = {type(one) for one in own}
    mine = tuple(discover.build(n, cls, {}) for n, cls in discover.plugin_methods().items() if cls not in has)
    if mine and not methods:
        found = replace(found, arms=found.arms + replace(part, methods=mine).of(chosen).arms)
    return found


def _named(kind: str, text: str, own: tuple[Any, ...]) -> tuple[Any, ...]:
    """What was typed; of a suite that has a bare name with other fields alone, those: its network, its small search.

    The label of one of the suite's own is that one, also where it holds what cannot be typed.
    """
    from slimbench import identity

    if labelled := next((one for one in own if identity.label(one) == text), None):
        return (labelled,)
    made = discover.make(kind, text)
    alike = tuple(dict.fromkeys(one for one in own if type(one) is type(made)))
    return alike if alike and made not in alike and "(" not in text else (made,)


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


@main.command()
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
    known = open_store(store, create=False) if "://" in store or (Path(store) / "records").is_dir() else None
    settings = environment.resolve(precision, device, threads, elsewhere=True)
    suite = _suite(**part)
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


@main.command()
@_select
@options("data", "store", "plugin", "device", "precision", "threads", "jobs", "json")
@click.option("--limit", type=click.IntRange(1), default=None, help="At most so many cells this time.")
@click.option("--level", type=click.Choice(["quick", "full"]), default="quick", show_default=True, help="Of measuring.")
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
    help="Where cells are compressed: here, as job arrays, as tasks of a Ray cluster.",
)
@click.option("--address", default="auto", show_default=True, help="Of the Ray cluster.")
@click.option("--slurm", multiple=True, metavar="NAME=VALUE", help="An option of sbatch, or minutes of an allocation.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    default=None,
    metavar="GIB",
    help="Of one cell: its limit here, what it asks a cluster for.",
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
    sys.exit(_run(_suite(**part), settings, how, store, as_json=as_json))


def _run(suite: Suite, settings: Settings, options: Any, store_path: str, *, as_json: bool) -> int:
    """Run, show the table and where the time went; the exit status."""
    from slimbench.progress import duration, view
    from slimbench.reports import render, table
    from slimbench.run import run as run_suite

    store = open_store(store_path)
    shown = view(as_json=as_json)
    signal.signal(signal.SIGTERM, _terminate)
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


@main.command()
@click.argument("id")
@options("store", "plugin", "json")
@click.option(
    "--pictures",
    type=click.Path(file_okay=False),
    help="Folder for pictures of its notes: histograms, courses of pushes, cells that were found.",
)
@click.option("--layers", is_flag=True, help="Its layers instead: counts, times here, beside the dense network's.")
def show(
    id: str,  # noqa: A002  it is one
    store: str,
    *,
    plugin: Any,
    as_json: bool,
    pictures: str | None,
    layers: bool,
) -> None:
    """Show one record: settings, scores, costs, training, notes, measurements, where it was made."""
    from slimbench import listing
    from slimbench.reports import notes

    load(plugin)
    opened = open_store(store, create=False)
    record = opened.find(id)
    if layers:
        click.echo(_layers(opened, record, as_json=as_json))
        return
    taken = [m for m in opened.shared_timings() if m.cell_id == record.id]
    warn(opened)
    click.echo(listing.shown(record, taken, as_json=as_json))
    for path in notes.draw(record, Path(pictures)) if pictures else ():
        click.echo(f"drawn: {path}", err=True)


def _layers(store: Store, record: Any, *, as_json: bool) -> str:
    """The layers of a cell's network, and of the dense one that it started from."""
    import dataclasses
    import json

    from slimbench import layers

    folders = [store.artifact(i) for i in (record.id, record.reference) if i and store.artifact(i).is_dir()]
    if not record.artifact or folders[:1] != [store.artifact(record.id)]:
        raise UserError(f"The cell {record.id} has no network ({record.status}: {record.reason or 'it is gone'}).")
    ours, *dense = layers.measured(*folders)
    if as_json:
        return "\n".join(json.dumps(dataclasses.asdict(layer)) for layer in ours)
    return layers.table(ours, dense[0] if dense else None)


@main.command()
@options("data", "store", "plugin")
@click.option("--task", multiple=True, help="Tasks whose data to verify (else every task whose data are found).")
@click.option(
    "--write",
    type=click.Path(exists=True, dir_okay=False),
    help="Write into this document what belongs between its markers (cards, claims, files, results), and its quotes.",
)
@click.option(
    "--baseline", default=None, help="Compare the store's records with this file of `bench baseline` instead."
)
@click.option("--summary", default=None, help="With --baseline: file for the verdict, in Markdown.")
@click.option("--junit", default=None, help="With --baseline: file for the verdict, in JUnit's XML.")
def check(
    *,
    data: str | None,
    store: str,
    plugin: Any,
    task: Any,
    write: str | None,
    baseline: str | None,
    summary: str | None,
    junit: str | None,
) -> None:
    """Check the installation, the plug-ins, the data and the store; exit status 1 where something is wrong.

    With --write: from the records of --store (BENCH_STORE does not count), else of the nearest reports/ above.
    With --baseline: whether the store's records are as they were; 1 where one got worse, 2 where that cannot be told.
    """
    from slimbench import checking
    from slimbench.reports import documents

    prepare(data, plugin)
    if write:
        named = click.get_current_context().get_parameter_source("store") is ParameterSource.COMMANDLINE
        is_new = documents.write(Path(write), store if named else None)
        click.echo(f"{write}: {'written' if is_new else 'is up to date'}")
        return
    if baseline:
        sys.exit(cli_nightly.compared(store, baseline, summary, junit))
    findings = checking.check(tuple(discover.make("tasks", text) for text in task), Path(store))
    for finding in findings:
        click.echo(f"{'ok     ' if finding.is_good else 'PROBLEM'}  {finding.what}: {finding.text}")
    sys.exit(0 if all(finding.is_good for finding in findings) else 1)


@main.command()
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
    "--epochs", type=float, default=None, help="The method's training (else a quarter of the dense schedule)."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, data order and the method."
)
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
) -> None:
    """Compress one network, your own too, with one method."""
    from slimbench.run import Options

    prepare(data, plugin)
    chosen = _on(task, network)
    budget = Budget(keep, resource, epochs=chosen.recipe.epochs / 4 if epochs is None else epochs)
    suite = _one(chosen, (Arm((discover.make("methods", method),), (budget,)),), seed)
    settings = environment.resolve(precision, device, threads)
    sys.exit(_run(suite, settings, Options(plugins=tuple(plugin)), store, as_json=as_json))


@main.command()
@options("data", "store", "plugin", "device", "precision", "threads", "json")
@click.argument("task")
@click.option("--network", default=None, help="The task's network (else its default).")
@click.option("--epochs", type=float, default=None, help="Else the recipe's.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, data order and the method."
)
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


@main.command()
@click.argument("id")
@options("store", "plugin")
@click.option("--format", "kind", type=click.Choice(["onnx", "pt2"]), required=True, help="Of the file.")
@click.option(
    "--out", type=click.Path(dir_okay=False), default=None, help="File to write (else ID.onnx or ID.pt2 here)."
)
def export(id: str, store: str, plugin: Any, kind: Any, out: str | None) -> None:  # noqa: A002  it is an id
    """Write a compressed network as ONNX or as a torch.export program, once its outputs are seen to be the same.

    The file, and what is printed, say how to feed it and what it puts out.
    """
    from slimbench import artifact, feeding
    from slimbench import export as exporting

    prepare(None, plugin)

    opened = Store(store, create=False)
    record = opened.find(id)
    if not record.artifact:
        raise UserError(f"The cell {record.id} has no network ({record.status}: {record.reason}).")
    target = Path(out or f"{record.id}.{kind}").absolute()
    folder, about = opened.artifact(record.id), dict[str, str]()
    shape = artifact.verify(folder)["input"]
    try:
        told = feeding.of_record(record, shape)
        words, about = feeding.sentence(told), feeding.as_metadata(told)
    except (UserError, TypeError, ValueError, RuntimeError) as error:  # a task's own words may be anything
        words = f"how it is fed cannot be said: {error}"
    gap = exporting.export(folder, kind, target, about=about)
    click.echo(f"{target}: outputs differ from the stored network's by {gap:.1e} of the largest at most")
    click.echo(words)


@main.command()
@click.argument("network")
@options("store", "plugin", "json")
@click.option(
    "--profile",
    multiple=True,
    help='Where, e.g. openvino or "cpu(batch=1)" (else cpu, for a file.onnx onnx_cpu); openvino and those of ONNX '
    "Runtime take ONNX files, all take the rest.",
)
@click.option("--against", default=None, help="Another network, in any of these forms, to be compared with.")
@click.option("--level", type=click.Choice(["quick", "full"]), default="quick", show_default=True, help="Of measuring.")
@click.option("--input", "size", default=None, metavar="C,H,W", help="Of one image, where the network leaves it open.")
def profile(
    *,
    network: str,
    store: str,
    plugin: Any,
    as_json: bool,
    profile: Any,
    against: str | None,
    level: Any,
    size: str | None,
) -> None:
    """Time a network of your own: latency, throughput, memory, energy, and its speed-up over another.

    NETWORK is a file.onnx, a file.pt2 (of somebody you trust: torch may run its maker's code), an artifact's folder,
    module:function, or the id of a record. Exit status 1 where a full measurement was refused.
    """
    import tempfile

    import torch

    from slimbench import measure, profiling

    prepare(None, plugin)
    torch.set_num_threads(1)  # processes are forked from this one: a pool of threads would not survive
    wanted = profile or (profiling.default_profile(network, against),)
    profiles = [discover.make("hardware_profiles", text) for text in wanted]
    shape = profiling.shape_of(size)
    with tempfile.TemporaryDirectory() as work:
        given = [text for text in (network, against) if text is not None]
        named = [(t, profiling.network(t, shape, store, Path(work) / f"{i}")) for i, t in enumerate(given)]
        taken = profiling.profiled(profiles, named[0], named[1] if against else None, level)
    click.echo("\n".join(map(profiling.as_json, taken)) if as_json else profiling.table(taken))
    sys.exit(1 if any(measure.refusal(one.measurement) for one in taken) else 0)


@main.command()
@click.argument("task")
@click.option("--data", required=True, help="Folder to put the data in.")
@options("plugin")
def download(task: str, data: str, plugin: Any) -> None:
    """Fetch a task's data with its library's own downloader."""
    from slimbench.submission import embedded

    prepare(None, plugin)
    chosen = discover.make("tasks", task)
    if chosen.name in embedded():
        raise UserError(f"The task {chosen.name!r} needs no download: its data are installed with SlimBench.")
    if not hasattr(chosen, "download"):
        raise UserError(
            f"The data of {chosen.name} cannot be fetched by SlimBench: get them from where they are published, and "
            f"`bench check --task {chosen.name} --data {data}` says where they have to lie."
        )
    root = Path(data).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        chosen.download(root)
    except (OSError, RuntimeError) as error:
        raise UserError(f"The data of {chosen.name} could not be fetched to {root} ({error}).") from error
    click.echo(f"{chosen.name}: in {root}; use it with --data {root}")


@main.command()
@click.option("--unchanged", multiple=True, metavar="NAME", help="This source changed, and its results do not.")
@click.option("--because", default="", help="Why they do not.")
def lock(unchanged: tuple[str, ...], because: str) -> None:
    """Write slimbench.lock: the hash of the source behind every version (for those who change this repository)."""
    from slimbench import locking

    for line in locking.write(unchanged, because):
        click.echo(line)


for command in (
    *(cli_report.report, cli_report.audit, cli_site.submit, cli_site.verify),
    *(cli_runs.status, cli_runs.logs, cli_runs.merge, cli_nightly.baseline, cli_nightly.bisect),
):
    main.add_command(command)
