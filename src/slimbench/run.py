"""A suite goes in; every cell that is not done is compressed, then measured; what is left of it is in the store."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slimbench import identity
from slimbench.core import Level, Record, Settings, Suite, UserError, sources
from slimbench.environment import environment
from slimbench.execute import Event, Executor, Job
from slimbench.leases import Claims
from slimbench.local import Local
from slimbench.measure import device_of, empty_record, measurement_id
from slimbench.plan import FINAL, estimate, expected_bytes, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from slimbench.core import Cell, HardwareProfile
    from slimbench.index import Standing
    from slimbench.leases import Leases
    from slimbench.progress import View
    from slimbench.store import Store


MEASURE_LIMIT_S = 1800.0


class StoppedError(UserError):
    """The run cannot go on: the sentence says why and what to do."""


@dataclass(frozen=True)
class Options:
    """How to run, none of it part of a result.

    Attributes:
        jobs: cells that are compressed at once, where no executor says.
        limit: at most so many cells this time; None: all.
        time_limit_s: overrides the suite's.
        executor: where cells are compressed; None: here.
        measure_only: compress nothing; what is done may come from another machine.

    """

    jobs: int = 1
    level: Level = "quick"
    limit: int | None = None
    fail_fast: bool = False
    time_limit_s: float | None = None
    plugins: tuple[str, ...] = ()
    executor: Executor | None = None
    measure_only: bool = False

    @property
    def where(self) -> Executor:
        """What compresses."""
        return self.executor or Local(self.jobs)


@dataclass(frozen=True)
class Outcome:
    """What a run left: ids of the suite's cells, and how many of its jobs failed."""

    ids: tuple[str, ...]
    failed: int
    seconds: dict[str, float]


def run(suite: Suite, settings: Settings, options: Options, store: Store, view: View) -> Outcome:
    """Run what is left of a suite; what another runner does of it meanwhile is waited for, and not done again.

    Raises: StoppedError; KeyboardInterrupt after ending every worker.
    """
    cells = identity.by_id(plan(suite, settings))
    seconds: dict[str, float] = {}
    failed = 0
    with store.leases(suite.name) as leases:
        todo, claims = _claimed(cells, store, leases)
        _tell(store, view)
        view.say(f"{suite.name}: {len(cells)} cells, {len(cells) - len(todo)} done, {len(todo)} to do")
        if todo and not options.measure_only:
            store.sweep(leases)
            with _timed(seconds, "check"):
                _check_data(todo.values(), store, options)
            with _timed(seconds, "compress"):
                limit_s = suite.time_limit_s if options.time_limit_s is None else options.time_limit_s
                failed += _compress(todo, limit_s, options, store, view, claims=claims)
                # a dense network that came out otherwise than before takes what started from the old one with it
                others = {cell_id: cell for cell_id, cell in cells.items() if cell_id not in todo}
                stale, claims = _claimed(others, store, leases)
                if stale and not options.limit and not (failed and options.fail_fast):
                    view.say(f"{len(stale)} cells started from a dense network that is no longer there: made again")
                    failed += _compress(stale, limit_s, options, store, view, claims=claims)
        if failed and options.fail_fast:
            return Outcome(tuple(cells), failed, seconds)
        with _timed(seconds, "measure"):
            failed += _measure(cells, suite, options, store, view, leases=leases)
    return Outcome(tuple(cells), failed, seconds)


def run_inside(cells: Iterable[Cell], options: Options, store: Store, view: View) -> None:
    """Compress what is left of a search's cells and of their references; nothing is measured.

    The caller holds the store. Raises: StoppedError.
    """
    every = identity.by_id(c for cell in cells for c in (cell.reference, cell) if c)
    with store.leases("a search") as leases:
        todo, claims = _claimed(every, store, leases)
        _tell(store, view)
        if todo:
            store.sweep(leases)
            _check_data(todo.values(), store, options)
            limit_s = Suite.time_limit_s if options.time_limit_s is None else options.time_limit_s
            _compress(todo, limit_s, options, store, view, claims=claims)


def _claimed(cells: dict[str, Cell], store: Store, leases: Leases) -> tuple[dict[str, Cell], Claims]:
    """What is left, and its records before: what another runner does meanwhile shows in one or in the other."""
    todo = left_to_do(cells, store)
    before = {cell_id: record for cell_id in todo if (record := store.record(cell_id))}
    return left_to_do(todo, store), Claims(leases, store.latest, before)


def left_to_do(cells: dict[str, Cell], store: Store) -> dict[str, Cell]:
    """The cells that are not done."""
    standings = store.standings()
    return {cell_id: cell for cell_id, cell in cells.items() if not is_done(cell_id, standings, store)}


def is_done(cell_id: str, standings: Mapping[str, Standing], store: Store) -> bool:
    """Whether a record is final, its network there, and the dense network it started from the one that is there."""
    standing = standings.get(cell_id)
    if standing is None or standing.status not in FINAL or standing.status == "unsupported":
        return standing is not None and standing.status == "unsupported"
    dense = standings.get(standing.reference)
    current = dense is None or dense.artifact in {"", standing.reference_artifact}
    return current and (standing.inner or store.has_network(cell_id))


def _tell(store: Store, view: View) -> None:
    """Pass on, once, what the store had to set aside."""
    while store.warnings:
        view.say(store.warnings.pop(0))


def _check_data(cells: Any, store: Store, options: Options) -> None:
    """Look at every task's files first: nothing is trained on half of them."""
    tasks = dict.fromkeys(task for cell in cells for task in (cell.task, *sources(cell.method)))
    jobs = [
        Job(
            f"check-{index}",
            identity.task_label(task),
            {"do": "check", "task": task, "store": store.root},
            store.log("check"),
        )
        for index, task in enumerate(tasks)
    ]
    heavy = sorted({name for task in tasks for name in task.heavy})
    for event in Local().run(jobs, options.plugins, preload=heavy):
        if event.kind in {"failed", "stop"}:
            raise StoppedError(str(event.value))


def _compress(
    todo: dict[str, Cell], limit_s: float, options: Options, store: Store, view: View, *, claims: Claims
) -> int:
    chosen = dict(list(todo.items())[: options.limit])
    done = store.summaries()
    memory = expected_bytes(chosen, done)
    jobs = [
        Job(
            cell_id,
            identity.cell_label(cell),
            {"do": "compress", "cell": cell, "store": store.root},
            store.log(cell_id),
            identity.cell_id(cell.reference) if cell.reference else "",
            limit_s,
            memory.get(cell_id, 0),
            cell.settings.device,
        )
        for cell_id, cell in chosen.items()
    ]
    view.begin("compress", len(jobs), estimate(chosen.values(), done, store).seconds)
    failed = 0
    with contextlib.closing(options.where.run(jobs, options.plugins, claims)) as events:
        for event in events:
            view.show(event)
            if event.kind == "started" and event.job.after:
                store.bring(event.job.after)
            if event.kind == "stop":
                raise StoppedError(str(event.value))
            if event.kind == "done":
                store.publish(event.job.id)
            if event.kind == "failed":
                put_failure(todo[event.job.id], event, store)
            if has_failed(event):
                failed += 1
                if options.fail_fast:
                    view.say(f"stopped at the first failure: {event.job.label}; its log is {event.job.log}")
                    break
    return failed


def has_failed(event: Event) -> bool:
    """Whether a job ended badly: here, by its own account, or with another runner."""
    return event.kind == "failed" or (event.kind == "done" and event.value.status == "failed")


def put_failure(cell: Cell, event: Event, store: Store) -> bool:
    """Store that a cell ended badly, unless that would replace a result of before; whether it was stored."""
    known = store.latest(event.job.id)
    is_worth_it = known is None or known.status == "failed"
    if is_worth_it:
        store.put(failure(cell, event, store))
    return is_worth_it


def failure(cell: Cell, event: Event, store: Store) -> Record:
    """The record of a cell that ended badly: its cause, and where its log is."""
    reason = f"{event.value} (log: {event.job.log.relative_to(store.root)})"
    return Record(
        id=event.job.id,
        label=event.job.label,
        cell=identity.describe_cell(cell),
        status="failed",
        reason=reason,
        reference=event.job.after,
        environment=environment(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
    )


def _measure(
    cells: dict[str, Cell], suite: Suite, options: Options, store: Store, view: View, *, leases: Leases
) -> int:
    """One after another, and never beside training: the workers have ended."""
    usable = []
    for profile in suite.profiles:
        reason = profile.unavailable()
        if reason:
            view.say(f"profile {identity.label(profile)} is unavailable: {reason}")
        else:
            usable.append(profile)
    jobs = _measurements(cells, usable, options, store)
    before = {job.id: m for job in jobs if (m := store.measurement(job.id))}
    done = _measured(store)  # by another runner, since
    jobs = [job for job in jobs if job.id not in done]
    _tell(store, view)
    view.begin("measure", len(jobs))
    failed = 0
    for event in Local().run(jobs, options.plugins, Claims(leases, store.latest, before)):
        view.show(event)
        if event.kind == "started":
            store.bring(event.job.work["record"].id, event.job.work["reference"].id)
        if event.kind == "stop":
            raise StoppedError(str(event.value))
        if event.kind == "done":
            store.publish(event.job.id)
        if event.kind == "failed":
            work = event.job.work
            blank = empty_record(work["record"], work["reference"], work["profile"], options.level)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            store.put(replace(blank, status="failed", reason=str(event.value), finished=now))
        failed += has_failed(event)
    return failed


def _measurements(
    cells: dict[str, Cell],
    profiles: Sequence[HardwareProfile],
    options: Options,
    store: Store,
) -> list[Job]:
    """A job for each network and profile that this machine has not measured; level quick: the first seed only."""
    if not profiles:
        return []
    first = min(cell.seed for cell in cells.values())
    records = {record.id: record for record in store.summaries() if store.has_network(record.id)}
    jobs = {}
    for cell_id, cell in cells.items():
        record = records.get(cell_id)
        reference = records.get(record.reference or cell_id) if record else None
        if record is None or reference is None or (options.level == "quick" and cell.seed != first):
            continue
        for profile in profiles:
            name = measurement_id(record, reference, profile, options.level)
            work = {"do": "measure", "record": record, "reference": reference, "profile": profile}
            work |= {"level": options.level, "store": store.root}
            label = f"{record.label} on {identity.label(profile)}"
            device = device_of(profile)
            jobs[name] = Job(name, label, work, store.log(name), time_limit_s=MEASURE_LIMIT_S, device=device)
    done = _measured(store)
    return [job for name, job in jobs.items() if name not in done]


def _measured(store: Store) -> set[str]:
    """Measurements that are done: a refused one is tried again."""
    return {m.id for m in store.timings() if m.status in {"ok", "unsupported"}}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Any:
    started = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - started, 1)
