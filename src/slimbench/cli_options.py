"""What commands share: options, the user's files, and what they say of a store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slimbench import discover, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from slimbench.store import Store


def options(*names: str) -> Callable[[Any], Any]:
    """Options that several commands share."""
    known = {
        "store": click.option(
            "--store",
            default="bench_store",
            envvar="BENCH_STORE",
            show_default=True,
            callback=lambda context, option, place: os.path.expanduser(place),  # noqa: PTH111  a URL stays one
            help="Folder of records, or s3://bucket/prefix.",
        ),
        "data": click.option("--data", default=None, help="Folder of data and weights (else BENCH_DATA)."),
        "plugin": click.option(
            "--plugin", multiple=True, help="Your own Python file with methods, tasks, profiles or suites."
        ),
        "device": click.option("--device", default="cpu", show_default=True, help="Where training runs: cpu or cuda."),
        "precision": click.option(
            "--precision", default="auto", show_default=True, help="auto (bf16 where the hardware has it), fp32, bf16."
        ),
        "threads": click.option(
            "--threads", default=1, show_default=True, help="Training threads of a cell; part of its id."
        ),
        "jobs": click.option(
            "--jobs", default=None, type=click.IntRange(1), help="Cells at once (else one a GPU, or cores / threads)."
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="JSON, for machines."),
    }

    def decorate(function: Any) -> Any:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


def warn(store: Store | None) -> None:
    """Name every corrupt file that was set aside."""
    for warning in store.warnings if store else ():
        click.echo(f"bench: {warning}", err=True)


def prepare(data: str | None, plugin: Sequence[str]) -> None:
    """Name the data folder for every process, and load the user's files."""
    if data is not None:
        os.environ["BENCH_DATA"] = str(Path(data).expanduser().absolute())
    environment.data_root()
    if os.getcwd() not in sys.path:  # a user's module:function is looked for where the user stands  # noqa: PTH109
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))  # noqa: PTH109
    load(plugin)


def load(plugin: Sequence[str]) -> None:
    """The user's files, for what needs no data."""
    for file in plugin:
        discover.load_plugin(file)
