"""A job as a runner of its own: what a node of a cluster runs, with its lease, its log and its worker process.

Whoever submits it may die: the node goes on, and stores what comes of the job. If the node dies, the lease ends with
it, and the job is done again from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slimbench import discover
from slimbench.core import UserError
from slimbench.execute import Event, Job, Queue
from slimbench.leases import Claims, Leases
from slimbench.local import Local
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator, Sequence

Said = tuple[str, Any]  # an event's kind and value
_AGAIN_S = 60.0  # until a cluster that refused is asked again


@dataclass(frozen=True)
class Apart:
    """One job, to be sent away and called there.

    Attributes:
        work: the job's, pickled: it may need plug-ins that are loaded first.
        before: the record that there was when the run was planned, or None.
        environ: the BENCH_* variables and the search path of whoever sends it.

    """

    job: Job
    work: bytes
    plugins: tuple[str, ...]
    how: Local
    before: Any = None
    environ: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job, plugins: tuple[str, ...], how: Local, claims: Claims | None) -> Apart:
        """A job as it is now, with absolute paths: nodes share the folders, not the place where the user stands."""
        environ = {k: v for k, v in os.environ.items() if k.startswith("BENCH_") or k == "PYTHONPATH"}
        files = tuple(str(Path(plugin).absolute()) for plugin in plugins)
        before = claims.before.get(job.id) if claims else None
        return cls(replace(job, work={}), pickle.dumps(job.work), files, how, before, environ)

    def __call__(self) -> Said:
        """Do the job, or wait for whoever does it; the last event. What failed is recorded here."""
        from slimbench.run import put_failure

        os.environ.update(self.environ)
        sys.path += [part for part in self.environ.get("PYTHONPATH", "").split(os.pathsep) if part not in sys.path]
        for plugin in self.plugins:
            discover.load_plugin(plugin)
        job = replace(self.job, work=pickle.loads(self.work), after="")
        store = Store(job.work["store"])
        last, is_recorded = Event("failed", job, "it was not run"), False
        with _ended_by_sigterm(), Leases(store.root, job.label) as leases:
            claims = Claims(leases, store.record, {job.id: self.before})
            with contextlib.closing(self.how.run([job], self.plugins, claims)) as events:
                for last in events:
                    if last.kind == "failed":
                        is_recorded = put_failure(job.work["cell"], replace(last, job=self.job), store)
        return ("done", store.record(job.id)) if is_recorded else (last.kind, last.value)

    def checkpoint(self) -> Any:
        """What a cluster puts back in its queue when time runs out: the same job, which goes on where it is ended now.

        Called by the handler of the cluster's signal, which then ends this process; what the cluster sends besides
        must not cut short what is being saved.
        """
        from submitit.helpers import DelayedSubmission

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return DelayedSubmission(self)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """What a cluster sends some time before it kills: the first one ends this process in order, others are too late."""

    def end(*received: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: a handler that is not of Python


class RefusedError(UserError):
    """A cluster took none of the calls: perhaps just now."""


class Cluster(Protocol):
    """What sends calls away and asks what came of them."""

    def submit(self, calls: Sequence[Apart]) -> Sequence[Hashable]:
        """Hand calls over; a handle for each. Raises: RefusedError."""
        ...

    def ended(self, handles: Sequence[Hashable]) -> Sequence[tuple[Hashable, Said]]:
        """Those of the handles that have ended, with what they said; looks for a moment at most."""
        ...

    def cancel(self, handles: Sequence[Hashable]) -> None:
        """End what is under way."""
        ...


def drive(
    cluster: Cluster, jobs: Sequence[Job], plugins: tuple[str, ...], claims: Claims | None, *, at_once: int
) -> Generator[Event, None, None]:
    """Send jobs to a cluster, at most ``at_once`` at a time, each after the one that it starts from.

    Raises: RefusedError where none is under way; otherwise what was refused is sent again later.
    """
    queue = Queue(jobs)
    under_way: dict[Hashable, Job] = {}
    asks = 0.0  # not before, by time.monotonic
    try:
        while queue.ready or under_way:
            room = 0 if under_way and time.monotonic() < asks else at_once - len(under_way)
            wave = [queue.ready.popleft() for _ in range(min(room, len(queue.ready)))]
            calls = [Apart.of(job, plugins, Local(), claims) for job in wave]
            try:
                under_way |= zip(cluster.submit(calls) if calls else (), wave, strict=True)
            except RefusedError:
                if not under_way:
                    raise
                queue.ready.extendleft(reversed(wave))
                wave, asks = [], time.monotonic() + _AGAIN_S
            yield from (Event("started", job) for job in wave)
            for handle, (kind, value) in cluster.ended(list(under_way)):
                yield from queue.end(Event(kind, under_way.pop(handle), value))  # type: ignore[arg-type]
    finally:
        cluster.cancel(list(under_way))


def doze(seconds: float = 1.0) -> None:
    """Let a moment pass between two looks at a cluster."""
    time.sleep(seconds)
