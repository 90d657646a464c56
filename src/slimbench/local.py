"""Jobs as processes of this machine, apart from the runner.

Each job is a process of its own, forked from a server that has done the heavy imports where its device allows that.
One that crashes, is killed or outlives its time limit is a ``failed`` event with the cause in words, and the others go
on.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING

from slimbench import memory
from slimbench.core import UserError
from slimbench.execute import Event, Job, Queue
from slimbench.process import Running, context_for, how_it_died, undisturbed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from slimbench.leases import Claims

_POLL_S = 0.5
_LOOK_S = 2.0  # how often another runner's job is looked after


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
        retry: of what ran out of memory.
        gpus: each process sees one of them, that which fewest use; none named: whatever the runner sees.
        grace_s: that training has to save where it stands when the run is ended. Less than the 10 s of Docker, the 30 s
            of Slurm and Kubernetes.

    """

    workers: int = 1
    memory_limit_bytes: int | None = None
    retry: Retry = Retry()
    gpus: tuple[str, ...] = ()
    grace_s: float = 8.0

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


@dataclass
class _Pool:
    """The processes of one run."""

    how: Local
    queue: Queue
    plugins: tuple[str, ...]
    claims: Claims | None
    running: dict[str, Running] = field(default_factory=dict)
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
            self._end_all()

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
        """On the GPU that fewest use."""
        used = Counter(one.gpu for one in self.running.values())
        gpu = min(self.how.gpus, key=lambda name: used[name], default=None)
        with undisturbed():  # until it is known here, nobody would end it
            for other in self.running.values():
                other.beside = True
            self.running[job.id] = Running.start(
                job,
                self.plugins,
                context_for(job),
                memory_limit_bytes=self.how.memory_limit_bytes,
                gpu=gpu,
                beside=bool(self.running),
            )

    # ----------------------------------------------------------------------------------------------------- listening

    def _listen(self) -> Iterator[Event]:
        """Events of the next moment. A finished process is forgotten."""
        if not self.running:
            time.sleep(_POLL_S if self.elsewhere or self.again else 0)
            return
        yield from self._hear(_POLL_S)
        for one in list(self.running.values()):
            if time.monotonic() > one.ends and one.process.is_alive():
                one.kill()
                one.said = one.said or ("failed", f"stopped after its time limit of {one.job.time_limit_s:g} s")
            if not one.process.is_alive():
                yield from one.read()
                one.bury()
                del self.running[one.job.id]
                yield from self._end(one)

    def _hear(self, patience_s: float) -> Iterator[Event]:
        """Whatever the processes say and print next."""
        by_line = {one.line: one for one in self.running.values()}
        outputs = {one.output: one for one in self.running.values() if one.output}
        ends = [one.process.sentinel for one in self.running.values()]
        for thing in connection.wait([*by_line, *outputs, *ends], patience_s):
            if thing in outputs:
                outputs[thing].read_output()  # type: ignore[index]
            elif thing in by_line:
                yield from by_line[thing].read()  # type: ignore[index]

    def _end(self, one: Running) -> Iterator[Event]:
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
            yield Event("progress", job, {"stage": f"ran out of memory: tried again in {wait_s:g} s, alone"})
            return
        event = Event("failed" if kind == "memory" else kind, job, value)  # type: ignore[arg-type]
        one.log.write(event.kind, **({} if kind == "done" else {"reason": str(value)}))
        yield from self.queue.end(event)  # the lease is given back when whoever listens has stored the record
        self._drop(job.id)

    def _end_all(self) -> None:
        """Training saves where it stands before it ends; what has not ended in time is killed, as all else is."""
        for one in self.running.values():
            one.ask_to_end()
        ends = time.monotonic() + self.how.grace_s
        try:
            while self.running and (left := ends - time.monotonic()) > 0:
                deque(self._hear(left), maxlen=0)
                for one in [one for one in self.running.values() if not one.process.is_alive()]:
                    self._stop(one)
        finally:  # a second interrupt ends the wait
            for one in list(self.running.values()):
                self._stop(one)
            self._drop(*self.again)

    def _stop(self, one: Running) -> None:
        deque(one.read(), maxlen=0)
        one.bury()
        one.log.write("done" if one.said and one.said[0] == "done" else "stopped", reason="its runner was ended")
        del self.running[one.job.id]
        self._drop(one.job.id)

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
        try:
            lost = self.claims.leases.lost()
        except (OSError, UserError):  # a store that is away for a moment takes nothing over
            return
        for job in lost & set(self.running):
            one = self.running.pop(job)
            one.bury()
            one.log.write("lost", reason="another runner took it over")
            self.claims.leases.drop(job)
            self.elsewhere[job] = (now + _LOOK_S, one.job)
            yield Event("elsewhere", one.job)
