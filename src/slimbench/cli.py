"""The command line: ``bench``. Every command is a few lines over the engine; bad input is one sentence and exit 2."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from slimbench import __version__, cli_network, cli_nightly, cli_report, cli_run, cli_runs, cli_site, discover
from slimbench.cli_options import options, prepare
from slimbench.cli_run import TerminatedError, seeds_of
from slimbench.core import UserError

__all__ = ["main", "options", "prepare", "seeds_of"]

_KINDS = {"methods": "methods", "tasks": "tasks", "profiles": "hardware_profiles"}


class _Cli(click.Group):
    """Turns bad input into one sentence on stderr and exit status 2, an interrupt into 130, a bug into 70.

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
            click.echo("bench: interrupted; what is stored is kept, and the same command goes on from there.", err=True)
            ctx.exit(143 if isinstance(error, TerminatedError) else 130)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError):
            raise  # click knows what to do
        except Exception:  # noqa: BLE001  Python's own status, 1, is that of a cell that failed
            traceback.print_exc()
            ctx.exit(os.EX_SOFTWARE)


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
    findings = checking.check(tuple(discover.make("tasks", text) for text in task), store)
    for finding in findings:
        click.echo(f"{'ok     ' if finding.is_good else 'PROBLEM'}  {finding.what}: {finding.text}")
    sys.exit(0 if all(finding.is_good for finding in findings) else 1)


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
    *(cli_run.plan, cli_run.run, cli_run.compress, cli_run.train),
    *(cli_network.show, cli_network.export, cli_network.profile),
    *(cli_report.report, cli_report.audit, cli_site.submit, cli_site.verify),
    *(cli_runs.status, cli_runs.logs, cli_runs.merge, cli_nightly.baseline, cli_nightly.bisect),
):
    main.add_command(command)
