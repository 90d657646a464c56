"""Where the work runs: jobs go in; what came of each, as it happens, comes out.

Here is what all executors share. Processes of this machine are in ``local.py``; what is particular to a cluster is in
``slurm.py`` and ``on_ray.py``: there each job is a runner of its own, which comes back to ``local.py``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from slimbench.leases import Claims

_LOST = "what it starts from failed: "


@dataclass(frozen=True)
class Job:
    """One piece of work. ``after``: id of the job that must have been done before."""

    id: str
    label: str
    work: dict[str, Any]
    log: Path
    after: str = ""
    time_limit_s: float = 0.0
    memory_bytes: int = 0  # what jobs like it took; 0: unknown
    device: str = "cpu"  # what it computes on


@dataclass(frozen=True)
class Event:
    """What happened to a job; ``value`` is a progress message, a result, or a reason in words.

    "elsewhere": another runner has it; a result will come of that one. "stop": going on makes no sense (the disk is
    full, data are missing); nothing is recorded.
    """

    kind: Literal["started", "progress", "elsewhere", "done", "failed", "stop"]
    job: Job
    value: Any = None


class Executor(Protocol):
    """Runs jobs somewhere. Closing the iterator ends what is under way."""

    def run(self, jobs: Sequence[Job], plugins: tuple[str, ...], claims: Claims | None) -> Generator[Event, None, None]:
        """Run every job, each after the one that it starts from, and say what comes of it."""
        ...


class Queue:
    """Jobs that wait: those that may start, in order, and those whose start is not there yet."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        here = {job.id for job in jobs}
        self.ready = deque(job for job in jobs if job.after not in here)
        self._blocked: dict[str, list[Job]] = {}
        for job in jobs:
            if job.after in here:
                self._blocked.setdefault(job.after, []).append(job)

    def end(self, event: Event) -> Iterator[Event]:
        """A job's last word, and the failure of all that start from one that failed."""
        yield event
        heirs = self._blocked.pop(event.job.id, [])
        if event.kind == "done" and getattr(event.value, "status", "") != "failed":
            self.ready.extendleft(reversed(heirs))
            return
        cause = str(event.value if event.kind != "done" else event.value.reason)
        cause = cause.removeprefix(_LOST)
        for heir in heirs:
            yield from self.end(Event("failed", heir, _LOST + cause))
