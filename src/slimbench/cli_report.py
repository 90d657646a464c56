"""The commands that read records and make what people read of them: ``bench report`` and ``bench audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slimbench import discover
from slimbench.cli_options import load, options, warn
from slimbench.cli_site import site
from slimbench.core import UserError
from slimbench.remote import open_store
from slimbench.store import uncollected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.table import Table

WHAT = {
    "tasks": "One table per task: methods at their operating points (the default).",
    "profiles": "One table per hardware profile, level and machine.",
    "tuned": "One table per task that ran at several rates of repair, each row at the rate that validation chose.",
    "overall": "One table: methods x tasks.",
    "papers": "Claimed against reproduced, and each paper's results.",
}


class _Report(click.Group):
    """A group whose word may stand before, between or behind its options; without one it is ``tasks``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word first."""
        place = self._word(args)
        if place is not None:
            return super().parse_args(ctx, [args[place], *args[:place], *args[place + 1 :]])
        return super().parse_args(ctx, args if {"-h", "--help"} & set(args) else ["tasks", *args])

    def _word(self, args: list[str]) -> int | None:
        """Where the first word stands that is neither an option nor an option's value."""
        found = [p for command in self.commands.values() for p in command.params if isinstance(p, click.Option)]
        with_value = {name for option in found if not option.is_flag for name in option.opts}
        is_value = False
        for place, text in enumerate(args):
            if not is_value and not text.startswith("-"):
                return place
            is_value = not is_value and text in with_value
        return None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One that is listed, or the tables of a suite."""
        return super().get_command(ctx, cmd_name) or _tables(cmd_name, f"The tables of {cmd_name}'s tasks.")


def _options(function: Any) -> Any:
    """What all tables take."""
    kinds = click.Choice(["md", "latex", "html", "csv", "json"])
    how = "Of the tables (else compact and coloured in a terminal, Markdown elsewhere)."
    for option in (
        click.option("--pictures", type=click.Path(file_okay=False), default=None, help="Folder for pictures as well."),
        click.option("--out", type=click.Path(dir_okay=False), default=None, help="File to write (else the terminal)."),
        click.option("--format", "kind", type=kinds, default=None, help=how),
        options("store", "plugin"),
    ):
        function = option(function)
    return function


@click.group(cls=_Report, subcommand_metavar="[WHAT]")
@_options
def report(**_: str | None) -> None:
    """Make tables from the records, once an audit finds nothing wrong in them.

    WHAT is one of the words below, or the name of a suite (the tables of its tasks). Options may stand on either side
    of it; those of `site`, which writes pages, are its own.
    """


def _tables(what: str, says: str) -> click.Command:
    @click.command(what, help=says)
    @_options
    def command(store: str, plugin: Sequence[str], kind: str | None, out: str | None, pictures: str | None) -> None:
        load(plugin)
        tell(what, store, kind, out, pictures)

    return command


for _what, _says in WHAT.items():
    report.add_command(_tables(_what, _says))
report.add_command(site)


@uncollected()
def tell(what: str, store: str, kind: str | None, out: str | None, pictures: str | None) -> None:
    """Print or write the tables of one kind, or of a suite. Raises: UserError."""
    from slimbench.reports import audit, render, terminal

    opened = open_store(store, create=False)
    records = opened.records() if pictures else opened.summaries()  # pictures show notes
    measurements = opened.shared_timings()
    warn(opened)
    tables = made(what, records, measurements)
    if what == "tuned" and records and not tables:
        raise UserError(
            f"Nothing in {opened.root} ran at several rates of repair: run a suite `*-reduced-rewound` too."
        )
    if problems := audit.tables(tables, records, measurements):
        raise UserError(f"The tables fail their audit, and are not printed: {'; '.join(map(str, problems[:5]))}.")
    if pictures:
        draw(pictures, records, measurements)
    if out is None and kind is None and sys.stdout.isatty():
        from rich.console import Console

        if not tables:
            click.echo(render.NOTHING, nl=False)
        terminal.terminal(tables, Console())
        return
    text = render.FORMATS[kind or "md"](tables)
    if out is None:
        click.echo(text, nl=False)
        return
    write(text, out)


def draw(folder: str, records: list[Record], measurements: list[MeasurementRecord]) -> None:
    """Draw what the records hold. Raises: UserError where the folder cannot be written."""
    from slimbench.files import writable
    from slimbench.reports import pictures

    with writable(folder, "--pictures"):
        drawn = pictures.draw(records, measurements, Path(folder))
    click.echo(f"{len(drawn)} pictures drawn in {folder}", err=True)


def write(text: str, out: str, option: str = "--out") -> None:
    """Write a file whole, which ``option`` named. Raises: UserError."""
    from slimbench.files import writable, write_whole

    with writable(out, option):
        write_whole(Path(out).absolute(), text)


def made(what: str, records: list[Record], measurements: list[MeasurementRecord]) -> list[Table]:
    """The tables of one kind, or of a suite. Raises: UserError where there is neither."""
    from slimbench import identity
    from slimbench.reports import across, papers, table, tuned

    if what == "papers":
        from slimbench.benchmarks.papers.claims import PAPERS

        return papers.tables(PAPERS, records, measurements, _fidelity)
    kinds: dict[str, Any] = {
        "tasks": table.tables,
        "tuned": tuned.tables,
        "profiles": across.by_profile,
        "overall": across.overall,
    }
    if what in kinds:
        return list(kinds[what](records, measurements))
    known = discover.suites()
    if what not in known:
        near = discover.suggestion(what, (*WHAT, "site", *known))
        words = ", ".join((*WHAT, "site"))
        raise UserError(f"Nothing is called {what!r}{near}: name {words} or a suite (`bench list suites`).")
    labels = {identity.task_label(task) for task in known[what].tasks}
    return table.tables([record for record in records if record.cell["task"]["label"] in labels], measurements)


def _fidelity(method: str) -> str:
    """What a method's card says."""
    card = discover.found("methods")[method].card  # type: ignore[attr-defined]
    return ", ".join(sorted(set(card.fidelity.values())))


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@options("store")
@uncollected()
def audit(file: str | None, store: str) -> None:
    """Check tables against their own arithmetic: those of a store, or a published one in Markdown or CSV.

    Without FILE every table of the store is made, and its deltas, ratios and ranks are worked out again from the
    records; so are those of a FILE that `bench report --format csv` wrote. FILE may be anybody's table of base and
    pruned accuracy, MACs or FLOPs, params and speed-ups, too. Exit status 1 where something is wrong.
    """
    from slimbench.reports import audit as auditing
    from slimbench.reports import printed, published

    if file and (ours := printed.ours(Path(file))):
        opened = open_store(store, create=False)
        problems = auditing.against(ours, opened.summaries(), opened.shared_timings())
        warn(opened)
        what = f"{len(ours)} rows of {file}, against {opened.root}"
    elif file:
        rows, problems = published.audit(Path(file))
        what = f"{rows} rows of {file}"
    else:
        opened = open_store(store, create=False)
        inside = auditing.records(opened.each_record())  # whole, one after another; then without their samples
        records, measurements = opened.summaries(), opened.shared_timings()
        warn(opened)
        tables = [table for kind in WHAT for table in made(kind, records, measurements)]
        problems = [*inside, *auditing.tables(tables, records, measurements)]
        what = f"{len(records)} records and {len(tables)} tables of {opened.root}"
    for problem in problems:
        click.echo(f"WRONG  {problem}")
    click.echo(f"{what}: {f'{len(problems)} findings' if problems else 'nothing wrong'}")
    sys.exit(1 if problems else 0)
