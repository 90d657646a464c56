"""Where the work runs: jobs go in; what came of each, as it happens, comes out. Here: local processes.

Each job is a process of its own, forked from a server that has done the heavy imports. One that crashes, is killed or
outlives its time limit is a ``failed`` event with the cause in words, and the others go on.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

_POLL_S = 0.5
_GRACE_S = 2.0  # for a process that has given its result to end


@dataclass(frozen=True)
class Job:
    """One piece of work. ``after``: id of the job that must have been done before."""

    id: str
    label: str
    work: dict[str, Any]
    log: Path
    after: str = ""
    time_limit_s: float = 0.0


@dataclass(frozen=True)
class Event:
    """What happened to a job; ``value`` is a progress message, a result, or a reason in words.

    "stop": going on makes no sense (the disk is full, data are missing); nothing is recorded.
    """

    kind: Literal["started", "progress", "done", "failed", "stop"]
    job: Job
    value: Any = None


@dataclass
class _Running:
    job: Job
    process: ForkServerProcess
    line: connection.Connection
    ends: float  # when it is killed, by time.monotonic
    said: Event | None = None


def run_local(
    jobs: Sequence[Job], workers: int, plugins: tuple[str, ...] = (), preload: Sequence[str] = ()
) -> Generator[Event, None, None]:
    """Run jobs on this machine, ``workers`` at a time, in order. Closing the iterator ends every process.

    Args:
        preload: modules that the server imports when it starts, with the first job of this process.

    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["slimbench.preload", *preload])
    waiting, running = deque(jobs), dict[str, _Running]()
    pending = {job.id for job in jobs}
    lost: dict[str, str] = {}
    try:
        while waiting or running:
            for job in [job for job in waiting if job.after in lost]:
                waiting.remove(job)
                pending.discard(job.id)
                lost[job.id] = f"what it starts from failed: {lost[job.after]}"
                yield Event("failed", job, lost[job.id])
            for job in [job for job in waiting if job.after not in pending][: workers - len(running)]:
                waiting.remove(job)
                running[job.id] = _start(context, job, plugins)
                yield Event("started", job)
            for event in _listen(running):
                if event.kind in {"done", "failed", "stop"}:
                    pending.discard(event.job.id)
                    if event.kind != "done":
                        lost[event.job.id] = str(event.value)
                yield event
    finally:
        for one in running.values():
            one.process.kill()
            one.process.join()
            one.line.close()


def _start(context: multiprocessing.context.ForkServerContext, job: Job, plugins: tuple[str, ...]) -> _Running:
    here, there = context.Pipe()
    environ = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
    arguments = (there, pickle.dumps(job.work), plugins, str(job.log), environ)
    process = context.Process(target=_enter, args=arguments, name=job.label)
    process.start()
    there.close()
    return _Running(job, process, here, time.monotonic() + (job.time_limit_s or math.inf))


def _enter(*arguments: Any) -> None:
    """Where a worker begins; the import is the fork server's, so the runner itself stays light."""
    from slimbench import worker

    worker.main(*arguments)


def _listen(running: dict[str, _Running]) -> Iterator[Event]:
    """Events of the next moment. A finished process is forgotten."""
    by_line = {one.line: one for one in running.values()}
    ready = connection.wait([*by_line, *(one.process.sentinel for one in running.values())], _POLL_S)
    for line in [line for line in ready if line in by_line]:
        yield from _read(by_line[line])  # type: ignore[index]
    for one in list(running.values()):
        if time.monotonic() > one.ends and one.process.is_alive():
            one.process.kill()
            limit = one.job.time_limit_s
            one.said = one.said or Event("failed", one.job, f"stopped after its time limit of {limit:g} s")
        if not one.process.is_alive():
            yield from _read(one)
            one.process.join()
            one.line.close()
            del running[one.job.id]
            yield one.said or Event("failed", one.job, how_it_died(one.process.exitcode))


def _read(one: _Running) -> Iterator[Event]:
    """Progress that a process sent; its last word is kept until it has ended."""
    try:
        while one.line.poll():
            kind, value = one.line.recv()
            if kind == "waits":  # for a measurement of another run
                one.ends = math.inf
            elif kind == "begins":
                one.ends = time.monotonic() + (one.job.time_limit_s or math.inf)
            elif kind == "progress":
                yield Event(kind, one.job, value)
            elif one.said is None:
                one.said = Event(kind, one.job, value)
                one.ends = time.monotonic() + _GRACE_S  # threads that a method left behind would keep it
    except (EOFError, OSError):
        return


def how_it_died(exitcode: int | None) -> str:
    """An exit code in words."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode} and said nothing"
