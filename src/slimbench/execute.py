"""Where the work runs: jobs go in; what came of each, as it happens, comes out. Here: local processes.

Each job is a process of its own, forked from a server that has done the heavy imports. One that crashes, is killed or
outlives its time limit is a ``failed`` event with the cause in words, and the others go on. What is particular to a
cluster is in ``slurm.py`` and ``on_ray.py``: there each job is a runner of its own, which comes back to this file.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Literal, Protocol

from slimbench import logs, memory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
    from pathlib import Path

    from slimbench.leases import Claims

_POLL_S = 0.5
_GRACE_S = 2.0  # for a process that has given its result to end
_LOOK_S = 2.0  # how often another runner's job is looked after
_CHUNK = 65536


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


@dataclass(frozen=True)
class Retry:
    """What a job gets that ran out of memory beside others: more tries, alone, after a wait that doubles."""

    times: int = 1
    wait_s: float = 5.0


@dataclass(frozen=True)
class Local:
    """Processes of this machine.

    Attributes:
        workers: at once, at most; fewer where the memory that is left is less than what jobs like these took.
        memory_limit_bytes: that one of them may take; None: no limit.

    """

    workers: int = 1
    memory_limit_bytes: int | None = None
    retry: Retry = Retry()

    def run(
        self,
        jobs: Sequence[Job],
        plugins: tuple[str, ...] = (),
        claims: Claims | None = None,
        preload: Sequence[str] = (),
    ) -> Generator[Event, None, None]:
        """Run jobs, in order as far as they may. ``preload``: modules that the fork server imports as it starts."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(["slimbench.preload", *preload])
        yield from _Pool(self, Queue(jobs), plugins, claims).run()


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


_LOST = "what it starts from failed: "


@dataclass
class _Running:
    job: Job
    process: ForkServerProcess | SpawnProcess
    line: connection.Connection
    output: connection.Connection | None
    log: logs.Writer
    ends: float  # when it is killed, by time.monotonic
    beside: bool  # other jobs, at any time
    said: tuple[str, Any] | None = None


@dataclass
class _Pool:
    """The processes of one run."""

    how: Local
    queue: Queue
    plugins: tuple[str, ...]
    claims: Claims | None
    running: dict[str, _Running] = field(default_factory=dict)
    elsewhere: dict[str, tuple[float, Job]] = field(default_factory=dict)  # when to look again
    again: dict[str, tuple[float, Job]] = field(default_factory=dict)  # ran out of memory: when to start, alone
    tries: dict[str, int] = field(default_factory=dict)
    checked: float = 0.0  # when it was last looked whether leases were lost

    def run(self) -> Generator[Event, None, None]:
        """Until nothing is left."""
        try:
            while self.queue.ready or self.running or self.elsewhere or self.again:
                yield from self._start()
                yield from self._listen()
                yield from self._give_up_lost()
        finally:
            for one in self.running.values():
                self._bury(one)
                one.log.write("stopped", reason="its runner was ended")
            self._drop(*self.running, *self.again)

    # ------------------------------------------------------------------------------------------------------ starting

    def _start(self) -> Iterator[Event]:
        """As many as there is room for; what another runner has is put by."""
        now = time.monotonic()
        if self.again:  # alone: nothing else starts before it has run
            when, job = next(iter(self.again.values()))
            if not self.running and now >= when:
                del self.again[job.id]
                self._begin(job)
            return
        due = [job for when, job in self.elsewhere.values() if now >= when]
        while len(self.running) < self.how.workers and (due or self.queue.ready):
            job = due.pop(0) if due else self.queue.ready.popleft()
            if not self._fits(job):
                if job.id not in self.elsewhere:
                    self.queue.ready.appendleft(job)
                return
            yield from self._claim(job, now)

    def _claim(self, job: Job, now: float) -> Iterator[Event]:
        answer, made = self.claims.ask(job.id) if self.claims else ("mine", None)
        if answer == "theirs":
            if job.id not in self.elsewhere:
                yield Event("elsewhere", job)
            self.elsewhere[job.id] = (now + _LOOK_S, job)
            return
        self.elsewhere.pop(job.id, None)
        if answer == "made":
            yield from self.queue.end(Event("done", job, made))
            return
        yield Event("started", job)
        self._begin(job)

    def _fits(self, job: Job) -> bool:
        """Whether the memory that is left, once those that run have grown to their size, is enough for one more."""
        if not self.running:
            return True
        pairs = ((one.job.memory_bytes, memory.resident_bytes(one.process.pid)) for one in self.running.values())
        growth = sum(max(0, whole - now) for whole, now in pairs)
        return memory.available_bytes() - growth >= job.memory_bytes

    def _begin(self, job: Job) -> None:
        with _undisturbed():
            context = _context(job)
            here, there = context.Pipe()
            output, printed = context.Pipe(duplex=False)
            environ = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
            arguments = (there, pickle.dumps(job.work), self.plugins, printed, environ)
            limit = {"memory_limit_bytes": self.how.memory_limit_bytes}
            process = context.Process(target=_enter, args=arguments, kwargs=limit, name=job.label)
            process.start()
            there.close()
            printed.close()
            os.set_blocking(output.fileno(), False)
            ends = time.monotonic() + (job.time_limit_s or math.inf)
            for other in self.running.values():
                other.beside = True
            one = _Running(job, process, here, output, logs.Writer(job.log), ends, beside=bool(self.running))
            one.log.write("started", label=job.label, host=os.uname().nodename, pid=process.pid)
            self.running[job.id] = one

    # ----------------------------------------------------------------------------------------------------- listening

    def _listen(self) -> Iterator[Event]:
        """Events of the next moment. A finished process is forgotten."""
        by_line = {one.line: one for one in self.running.values()}
        outputs = {one.output: one for one in self.running.values() if one.output}
        ends = [one.process.sentinel for one in self.running.values()]
        if not ends:
            time.sleep(_POLL_S if self.elsewhere or self.again else 0)
            return
        ready = connection.wait([*by_line, *outputs, *ends], _POLL_S)
        for thing in ready:
            if thing in outputs:
                _read_output(outputs[thing])  # type: ignore[index]
            elif thing in by_line:
                yield from _read(by_line[thing])  # type: ignore[index]
        for one in list(self.running.values()):
            if time.monotonic() > one.ends and one.process.is_alive():
                _kill(one)
                one.said = one.said or ("failed", f"stopped after its time limit of {one.job.time_limit_s:g} s")
            if not one.process.is_alive():
                yield from _read(one)
                self._bury(one)
                del self.running[one.job.id]
                yield from self._end(one)

    def _end(self, one: _Running) -> Iterator[Event]:
        """A job's last word, or another try for one that ran out of memory beside others."""
        job = one.job
        killed = one.process.exitcode == -signal.SIGKILL and one.said is None  # by the system, most likely
        kind, value = one.said or ("failed", how_it_died(one.process.exitcode))
        tries = self.tries.get(job.id, 0)
        if (kind == "memory" or killed) and tries < self.how.retry.times and (one.beside or tries):
            wait_s = self.how.retry.wait_s * 2**tries
            self.tries[job.id] = tries + 1
            self.again[job.id] = (time.monotonic() + wait_s, job)
            one.log.write("again", reason=str(value), wait_s=wait_s)
            yield Event("progress", job, {"stage": f"ran out of memory: again in {wait_s:g} s, alone"})
            return
        event = Event("failed" if kind == "memory" else kind, job, value)  # type: ignore[arg-type]
        one.log.write(event.kind, **({} if kind == "done" else {"reason": str(value)}))
        yield from self.queue.end(event)  # the lease is given back when whoever listens has stored the record
        self._drop(job.id)

    def _bury(self, one: _Running) -> None:
        """End a process with all that it started, and read the last that it printed."""
        _kill(one)
        one.process.join()
        while one.output and _read_output(one):
            pass
        one.log.printed(b"", last=True)
        one.line.close()
        if one.output:
            one.output.close()

    def _drop(self, *jobs: str) -> None:
        for job in jobs if self.claims else ():
            assert self.claims
            self.claims.leases.drop(job)

    def _give_up_lost(self) -> Iterator[Event]:
        """This runner was still for so long that another took a job over: its own process must not go on."""
        now = time.monotonic()
        if self.claims is None or now - self.checked < self.claims.leases.beat_s:
            return
        self.checked = now
        for job in self.claims.leases.lost() & set(self.running):
            one = self.running.pop(job)
            self._bury(one)
            one.log.write("lost", reason="another runner took it over")
            self.claims.leases.drop(job)
            self.elsewhere[job] = (now + _LOOK_S, one.job)
            yield Event("elsewhere", one.job)


def _context(job: Job) -> ForkServerContext | SpawnContext:
    """How its process starts: as a fork that has paid for its imports, or, where CUDA allows none, from nothing."""
    if job.device == "cuda" and not _forks_may_use_cuda():
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


@functools.cache
def _forks_may_use_cuda() -> bool:
    """Tried once: CUDA works in no fork of a process that has so much as asked for it."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    with _undisturbed():
        process = context.Process(target=_try_cuda, args=(there,))
        process.start()
    there.close()
    with contextlib.suppress(EOFError):
        return bool(here.recv())
    return False


def _try_cuda(line: connection.Connection) -> None:
    import torch

    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError):
        line.send(False)
    else:
        line.send(True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Interrupts wait meanwhile: a worker that is cut off as it starts prints a traceback, and nobody would end it."""
    caught: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # others never see an interrupt
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    handlers = {number: signal.signal(number, lambda signum, frame: caught.append(signum)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in caught:
            signal.raise_signal(received)


def _enter(*arguments: Any, **limit: Any) -> None:
    """Where a worker begins; the import is the fork server's, so the runner itself stays light."""
    from slimbench import worker

    worker.main(*arguments, **limit)


def _kill(one: _Running) -> None:
    """The process and its children; it leads a group as soon as it has begun."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        assert one.process.pid
        os.killpg(one.process.pid, signal.SIGKILL)
    one.process.kill()


def _read(one: _Running) -> Iterator[Event]:
    """Progress that a process sent; its last word is kept until it has ended."""
    try:
        while one.line.poll():
            kind, value = one.line.recv()
            if kind == "waits":  # for a measurement of another run
                one.ends = math.inf
                one.log.write("waits")
            elif kind == "begins":
                one.ends = time.monotonic() + (one.job.time_limit_s or math.inf)
            elif kind == "progress":
                one.log.progress(value)
                yield Event(kind, one.job, value)
            elif one.said is None:
                one.said = (kind, value)
                one.ends = time.monotonic() + _GRACE_S  # threads that a method left behind would keep it
    except (EOFError, OSError):
        return


def _read_output(one: _Running) -> bool:
    """Pass what a process printed on to its log; whether there was any."""
    assert one.output
    chunk = b""
    with contextlib.suppress(BlockingIOError):
        chunk = os.read(one.output.fileno(), _CHUNK)
        if not chunk:  # nobody can print any more
            one.output.close()
            one.output = None
    one.log.printed(chunk)
    return bool(chunk)


def how_it_died(exitcode: int | None) -> str:
    """An exit code in words."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode} and said nothing"
