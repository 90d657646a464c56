"""One worker process, as its runner sees it: started, listened to, asked to end, and buried."""

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench import logs
from slimbench.execute import Event, Job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing import connection
    from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess

_LAST_S = 2.0  # for a process that has given its result to end
_CHUNK = 65536
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class Running:
    """A job under way.

    Attributes:
        ends: when it is killed, by time.monotonic.
        beside: other jobs ran at the same time, at any time.
        gpu: the only one that it sees, as CUDA_VISIBLE_DEVICES names it; None: those that the runner sees.
        said: its last word, an event's kind and value.

    """

    job: Job
    process: ForkServerProcess | SpawnProcess
    line: connection.Connection
    output: connection.Connection | None
    log: logs.Writer
    ends: float
    beside: bool
    gpu: str | None = None
    said: tuple[str, Any] | None = None

    @classmethod
    def start(
        cls,
        job: Job,
        plugins: tuple[str, ...],
        context: ForkServerContext | SpawnContext,
        *,
        memory_limit_bytes: int | None,
        gpu: str | None,
        beside: bool,
    ) -> Running:
        """Start a worker. What it must see of the environment goes with it: the fork server is older."""
        here, there = context.Pipe()
        output, printed = context.Pipe(duplex=False)
        environ = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
        visible = os.environ.get(_VISIBLE) if gpu is None else gpu
        environ |= {} if visible is None else {_VISIBLE: visible}
        arguments = (there, pickle.dumps(job.work), plugins, printed, environ)
        limit = {"memory_limit_bytes": memory_limit_bytes}
        process = context.Process(target=_enter, args=arguments, kwargs=limit, name=job.label)
        process.start()
        there.close()
        printed.close()
        os.set_blocking(output.fileno(), False)
        ends = time.monotonic() + (job.time_limit_s or math.inf)
        one = cls(job, process, here, output, logs.Writer(job.log), ends, beside, gpu)
        facts = {} if gpu is None else {"gpu": gpu}
        one.log.write("started", label=job.label, host=os.uname().nodename, pid=process.pid, **facts)
        return one

    def read(self) -> Iterator[Event]:
        """Progress that it sent; its last word is kept until it has ended."""
        try:
            while self.line.poll():
                kind, value = self.line.recv()
                if kind == "waits":  # for a measurement of another run
                    self.ends = math.inf
                    self.log.write("waits")
                elif kind == "begins":
                    self.ends = time.monotonic() + (self.job.time_limit_s or math.inf)
                elif kind == "progress":
                    self.log.progress(value)
                    yield Event(kind, self.job, value)
                elif self.said is None:
                    self.said = (kind, value)
                    self.ends = time.monotonic() + _LAST_S  # threads that a method left behind would keep it
        except (EOFError, OSError):
            return

    def read_output(self) -> bool:
        """Pass what it printed on to its log; whether there was any."""
        assert self.output
        chunk = b""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self.output.fileno(), _CHUNK)
            if not chunk:  # nobody can print any more
                self.output.close()
                self.output = None
        self.log.printed(chunk)
        return bool(chunk)

    def ask_to_end(self) -> None:
        """Training saves where it stands and ends; all else ends at once."""
        with contextlib.suppress(OSError):  # it has ended
            self.line.send("end")

    def kill(self) -> None:
        """The process and its children; it leads a group as soon as it has begun."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            assert self.process.pid
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def bury(self) -> None:
        """End it with all that it started, and read the last that it printed."""
        self.kill()
        self.process.join()
        while self.output and self.read_output():
            pass
        self.log.printed(b"", last=True)
        self.line.close()
        if self.output:
            self.output.close()


def context_for(job: Job) -> ForkServerContext | SpawnContext:
    """How a job's process starts: as a fork that has paid for its imports, or, where CUDA allows none, from nothing."""
    if job.device == "cuda" and not _forks_may_use_cuda():
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


@functools.cache
def _forks_may_use_cuda() -> bool:
    """Tried once: CUDA works in no fork of a process that has so much as asked for it."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    with undisturbed():
        process = context.Process(target=_try_cuda, args=(there,))
        process.start()
    there.close()
    with here, contextlib.suppress(EOFError):
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
def undisturbed() -> Iterator[None]:
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


def how_it_died(exitcode: int | None) -> str:
    """An exit code in words."""
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:  # real-time signals have none
            name = f"signal {-exitcode}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode} and said nothing"


def _enter(*arguments: Any, **limit: Any) -> None:
    """Where a worker begins; the import is the fork server's, so the runner itself stays light."""
    from slimbench import worker

    worker.main(*arguments, **limit)
