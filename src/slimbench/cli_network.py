"""Commands about one network: ``bench show``, ``bench export``, ``bench profile``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from slimbench import discover
from slimbench.cli_options import load, options, prepare, warn
from slimbench.core import UserError
from slimbench.remote import open_store
from slimbench.store import Store


@click.command()
@click.argument("id")
@options("store", "plugin", "json")
@click.option(
    "--pictures",
    type=click.Path(file_okay=False),
    help="Folder for pictures of its notes: histograms, courses of pushes, cells that were found.",
)
@click.option("--layers", is_flag=True, help="Show layers instead: counts, and times on this machine, beside dense.")
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
    from slimbench.files import writable
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
    if pictures:
        with writable(pictures, "--pictures"):
            drawn = notes.draw(record, Path(pictures))
        for path in drawn:
            click.echo(f"drawn: {path}", err=True)


def _layers(store: Store, record: Any, *, as_json: bool) -> str:
    """The layers of a cell's network, and of the dense one that it started from."""
    import dataclasses
    import json

    from slimbench import artifact, layers

    folders = [artifact.of_record(store, record)]
    if record.reference and store.has_network(record.reference):
        store.bring(record.reference)
        folders.append(store.artifact(record.reference))
    ours, *dense = layers.measured(*folders)
    if as_json:
        return "\n".join(json.dumps(dataclasses.asdict(layer)) for layer in ours)
    return layers.table(ours, dense[0] if dense else None)


@click.command()
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
    folder = artifact.of_record(opened, record)
    target = Path(out or f"{record.id}.{kind}").absolute()
    about: dict[str, str] = {}
    shape = artifact.verify(folder)["input"]
    try:
        told = feeding.of_record(record, shape)
        words, about = feeding.sentence(told), feeding.as_metadata(told)
    except (UserError, TypeError, ValueError, RuntimeError) as error:  # a task's own words may be anything
        words = f"how it is fed cannot be said: {error}"
    gap = exporting.export(folder, kind, target, about=about)
    click.echo(f"{target}: outputs differ from the stored network's by {gap:.1e} of the largest at most")
    click.echo(words)


@click.command()
@click.argument("network")
@options("store", "plugin", "json")
@click.option(
    "--profile",
    multiple=True,
    help='Hardware profiles, e.g. openvino or "cpu(batch=1)" (else cpu, or onnx_cpu for a file.onnx). Only openvino '
    "and those of ONNX Runtime take ONNX files; all take the other forms.",
)
@click.option("--against", default=None, help="Another network, in any of these forms, to be compared with.")
@click.option("--level", type=click.Choice(["quick", "full"]), default="quick", show_default=True, help="Of measuring.")
@click.option("--input", "size", default=None, metavar="C,H,W", help="Of one image, where the network leaves it open.")
@click.option(
    "--classes",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="For a module:function that takes (channels, classes): it is called with C of --input and N.",
)
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
    classes: int | None,
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
        named = [(t, profiling.network(t, shape, store, Path(work) / f"{i}", classes)) for i, t in enumerate(given)]
        taken = profiling.profiled(profiles, named[0], named[1] if against else None, level)
    click.echo("\n".join(map(profiling.as_json, taken)) if as_json else profiling.table(taken))
    sys.exit(1 if any(measure.refusal(one.measurement) for one in taken) else 0)
