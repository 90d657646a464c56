"""The commands that show and send records: ``bench report site``, ``bench submit`` and ``bench verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from slimbench.cli_options import options, warn
from slimbench.store import Store


@click.command()
@click.option(
    "--store",
    "stores",
    multiple=True,
    default=("bench_store",),
    envvar="BENCH_STORE",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of records, or an archive of `bench submit`; several are merged, the first one's records count.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def site(stores: tuple[Path, ...], out: Path) -> None:
    """Write pages of the records that open from disk."""
    from slimbench import discover
    from slimbench.reports.site import build, collection

    found = collection.gather(stores)
    for warning in found.warnings:
        click.echo(f"bench: {warning}", err=True)
    methods: dict[str, Any] = discover.found("methods")
    target = out.expanduser().absolute()
    count = build(found, {name: cls.card for name, cls in methods.items()}, target)
    click.echo(f"{count} pages of {len(found.records)} records: open {target / 'index.html'}")


@click.command()
@options("store")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Archive to write (.zip).")
@click.option("--networks", is_flag=True, help="Networks too, of embedded tasks that were trained here.")
def submit(*, store: str, out: Path, networks: bool) -> None:
    """Put a store's records, measurements and environments into one archive, to be sent."""
    from slimbench import submission

    opened = Store(store, create=False)
    made = submission.pack(opened, out.expanduser().absolute(), with_networks=networks)
    warn(opened)
    sent = sum(name.startswith("artifacts/") and name.endswith("manifest.json") for name in made["sha256"])
    click.echo(f"{out}: {made['records']} records, {made['measurements']} measurements, {sent} networks")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(file: Path) -> None:
    """Check an archive of `bench submit`: schema, checksums, arithmetic, and the counts of networks that are in it.

    Exit status 1 where something is wrong.
    """
    from slimbench import verifying

    looked, findings = verifying.verify(file)
    for finding in findings:
        click.echo(f"WRONG  {finding}")
    click.echo(f"{file}: {looked}: {f'{len(findings)} findings' if findings else 'nothing wrong'}")
    sys.exit(1 if findings else 0)
