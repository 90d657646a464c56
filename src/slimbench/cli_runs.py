"""Commands that look at runs from beside: ``bench status``, ``bench logs``, ``bench merge``."""

from __future__ import annotations

import sys

import click

from slimbench.cli_options import options
from slimbench.store import Store


@click.command()
@options("store", "json")
def status(store: str, *, as_json: bool) -> None:
    """Show what runs in a store: where, since when, how far. Any machine that sees the folder may ask."""
    from slimbench import status as stating

    opened = Store(store, create=False)
    done = sum(1 for _ in (opened.root / "records").glob("*.json"))
    show = stating.as_json if as_json else stating.as_text
    click.echo(show(stating.runners(opened), done))


@click.command()
@click.argument("id")
@options("store", "json")
@click.option("--follow", is_flag=True, help="Go on until the job ends.")
def logs(id: str, store: str, *, as_json: bool, follow: bool) -> None:  # noqa: A002  it is an id
    """Show the log of a cell or a measurement: what it did, how far it got, what it printed."""
    import json

    from slimbench import logs as logging
    from slimbench.leases import Leases

    opened = Store(store, create=False)
    path = logging.find(opened, id)
    leases = Leases(opened.root)
    facts = logging.follow(path, is_over=lambda: leases.holder(path.stem) is None) if follow else logging.lines(path)
    for fact in facts:
        click.echo(json.dumps(fact) if as_json else logging.as_text(fact))


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option("--into", required=True, help="The store that takes them in; made where it does not exist.")
@click.option("--records-only", is_flag=True, help="No networks, logs or evolutions: a store to publish.")
@options("json")
def merge(stores: tuple[str, ...], into: str, *, records_only: bool, as_json: bool) -> None:
    """Put the records and networks of several stores, from several machines, say, into one.

    The checksum of every network that is copied is verified first. Where two stores disagree on a cell, the one that is
    there stays, and what differs is said; exit status 1 then.
    """
    import dataclasses
    import json

    from slimbench import merge as merging
    from slimbench.remote import open_store

    sources = [open_store(path, create=False, keeps_corrupt=True) for path in stores]
    target = Store(into)
    findings = merging.merge(sources, target, records_only=records_only)
    for finding in findings:
        click.echo(json.dumps(dataclasses.asdict(finding)) if as_json else finding.text)
    warned = [(store.root.name, warning) for store in (*sources, target) for warning in store.warnings]
    for name, warning in warned:
        click.echo(f"bench: {name}: {warning}", err=True)
    sys.exit(1 if any(finding.is_conflict for finding in findings) or warned else 0)
