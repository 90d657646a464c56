"""What the command line says of where cells are compressed goes in; an executor comes out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from slimbench import devices, environment
from slimbench.core import UserError
from slimbench.local import Local

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from slimbench.core import Settings
    from slimbench.execute import Executor

NAMES = ("local", "slurm", "ray")
LEAST_MINUTES = 5  # Slurm tells of the end 1.5 to 2.5 minutes before it; less, and nothing would get on


def executor(
    name: str,
    settings: Settings,
    scripts: Path,
    *,
    jobs: int | None,
    memory_gb: float | None,
    address: str,
    slurm: Sequence[str],
) -> Executor:
    """An executor by name.

    Args:
        scripts: folder for what a cluster is told to do.
        jobs: cells at once; None: as many as there is room for.
        memory_gb: of one cell: its limit here, its share of a node on a cluster.
        slurm: options of sbatch, ``NAME=VALUE``; ``minutes`` of an allocation too.

    Raises: UserError.

    """
    gpus = int(settings.device == "cuda")
    if memory_gb is not None and not math.isfinite(memory_gb):
        raise UserError(f"--memory {memory_gb} is no number of GiB: leave it out for no limit.")
    if slurm and name != "slurm":
        raise UserError("--slurm gives options to sbatch: say --executor slurm too.")
    if name == "slurm":
        from slimbench.slurm import Slurm

        told = options_of(slurm)
        minutes = _minutes(told.pop("minutes", "240"))
        return Slurm(scripts, jobs or 64, minutes, memory_gb, settings.threads, gpus, told)
    if name == "ray":
        from slimbench.on_ray import OnRay

        return OnRay(address, jobs or 1024, settings.threads, gpus, memory_gb)
    return local(settings, jobs, memory_gb)


def local(settings: Settings, jobs: int | None, memory_gb: float | None = None) -> Local:
    """Processes of this machine: one a GPU where cells train there, else one for as many cores as a cell has threads.

    More than there are GPUs share them evenly; fewer leave some idle.
    """
    if settings.device == "cuda":
        gpus = devices.gpus()
        room = len(gpus)
    else:
        gpus, room = (), environment.physical_cores() // settings.threads
    return Local(jobs or max(1, room), None if memory_gb is None else int(memory_gb * 2**30), gpus=gpus)


def options_of(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a table. Raises: UserError."""
    for text in texts:
        if not all(text.partition("=")):
            raise UserError(f"Cannot read --slurm {text!r}: write NAME=VALUE, e.g. partition=gpu.")
    return {name.replace("-", "_"): value for name, _, value in (text.partition("=") for text in texts)}


def _minutes(text: str) -> int:
    if not text.isdecimal() or int(text) < LEAST_MINUTES:
        raise UserError(
            f"--slurm minutes={text} is impossible: give the whole minutes of one allocation, {LEAST_MINUTES} or more."
        )
    return int(text)
