"""A store goes in; what runs where, since when and how far comes out. From files alone: any machine may ask.

Ages are by the clock of the store's file system: those of the machines that run may differ.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from slimbench import logs
from slimbench.files import file_system_s, modified_s
from slimbench.leases import PATIENCE_S, Leases
from slimbench.progress import duration

if TYPE_CHECKING:
    from slimbench.store import Store


@dataclass(frozen=True)
class Work:
    """A job that a runner has."""

    id: str
    label: str
    for_s: float
    how_far: str


@dataclass(frozen=True)
class Runner:
    """A runner of the store; ``sign`` is "runs", "silent" (it may be dead) or "dead" (its work is free)."""

    name: str
    what: str
    host: str
    pid: int
    silent_s: float
    sign: str
    work: tuple[Work, ...]


def runners(store: Store) -> list[Runner]:
    """Every runner, by name, with its jobs, the oldest first."""
    leases, now_s = Leases(store.root), _now_s(store)
    work: dict[str, list[Work]] = {}
    for link in sorted(leases.leases.glob("*")):
        if (holder := leases.owner(link.name)) and "." not in link.name:
            work.setdefault(holder[0], []).append(_work(store, link.name, max(0.0, now_s - modified_s(holder[1]))))
    names = {file.name for file in leases.runners.glob("[!.]*")} | set(work)
    return [_runner(leases, name, now_s, work.get(name, [])) for name in sorted(names)]


def _runner(leases: Leases, name: str, now_s: float, work: list[Work]) -> Runner:
    file = leases.runners / name
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError):  # its file is gone: it ended, or was found dead
        facts = {}
    silent_s = max(0.0, now_s - modified_s(file)) if facts else 0.0
    sign = "silent" if silent_s > facts.get("patience_s", PATIENCE_S) else "runs"
    sign = "dead" if leases.is_dead(name) else sign
    held = tuple(sorted(work, key=lambda job: -job.for_s))
    return Runner(name, facts.get("what", ""), facts.get("host", ""), facts.get("pid", 0), silent_s, sign, held)


def _work(store: Store, job: str, for_s: float) -> Work:
    log = store.log(job)
    return Work(job, logs.label(log), for_s, how_far(logs.last(log)))


def how_far(fact: dict[str, Any]) -> str:
    """The last event of a log in words."""
    if fact.get("event") != "progress":
        return {"started": "starts", "waits": "waits for the device"}.get(fact.get("event", ""), "") or "begins"
    if "epoch" not in fact:
        return str(fact.get("stage", ""))
    return (
        f"{fact['fit']}, epoch {fact['epoch']:.1f} of {fact['epochs']:.4g}, {fact['images_per_second']:,.0f} images/s"
    )


def as_text(found: list[Runner], done: int) -> str:
    """Runners and their work, for people."""
    lines = [f"{done} records; {len(found) or 'no'} runner{'' if len(found) == 1 else 's'}"]
    for one in found:
        sign = {
            "runs": f"last sign of life {duration(one.silent_s)} ago",
            "silent": f"no sign of life for {duration(one.silent_s)}: others take its work over",
            "dead": "dead: the next run takes its work over",
        }[one.sign]
        lines.append(f"\n{one.what or 'a run'} on {one.host or one.name}, process {one.pid}: {sign}")
        lines += [f"  {job.id}  {job.label}: for {duration(job.for_s)}, {job.how_far}" for job in one.work]
        lines += [] if one.work else ["  nothing under way"]
    return "\n".join(lines)


def as_json(found: list[Runner], done: int) -> str:
    """The same for machines."""
    return json.dumps({"records": done, "runners": [asdict(one) for one in found]}, indent=1)


def _now_s(store: Store) -> float:
    try:
        return file_system_s(store.root)
    except OSError:  # it may be read, not written
        return time.time()
