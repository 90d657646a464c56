"""Many runners on one store, as a discrete-event simulation: what the leases cost at a million cells.

    python benchmarks/performance/simulation.py                            prints the table
    python benchmarks/performance/simulation.py --write docs/scaling.md    writes it between its markers

It follows ``leases.py`` and ``execute.py``: who has no work asks for every cell that others had when it asked last, and
that they have done since; dense cells come before those that start from them; a dead runner's cell is free after the
patience of an observer, and goes on from its last checkpoint. Lengths of cells are drawn from those of ``reports/``.
Operations on the store take a constant time each: where more are asked for than a store can do, it is slower than this.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tabulate import tabulate

from slimbench.leases import BEAT_S, PATIENCE_S
from slimbench.local import _LOOK_S

CHECKPOINT_S = 60.0
# Calls of the file system: a lease that is got, refused, found to be of a cell that is done; a cell that ends.
GOT, REFUSED, MADE, ENDED = 6, 5, 10, 20


@dataclass(frozen=True)
class Scene:
    """What is simulated. Rates are an hour and runner; ``walks``: every runner goes through the whole suite."""

    name: str
    runners: int
    cells: int
    operation_s: float = 0.002
    heirs: int = 15  # of each dense cell
    deaths: float = 1 / 24
    stalls: float = 0.0  # the runner stands still for ``stall_s``, and is taken for dead
    stall_s: float = 120.0
    restart_s: float = 300.0
    walks: bool = True


@dataclass
class Outcome:
    """Seconds are of runners, summed."""

    finished: list[int]  # how often each cell was
    useful_s: float = 0.0
    repeated_s: float = 0.0  # since the last checkpoint of a runner that died or stood still
    doubled_s: float = 0.0  # while another worked on the same cell
    store_s: float = 0.0
    idle_s: float = 0.0
    down_s: float = 0.0
    operations: float = 0.0
    deaths: int = 0
    stalls: int = 0
    span_s: float = 0.0


@dataclass
class _Runner:
    cell: int | None = None
    since: float = 0.0
    session: int = 0  # events of an earlier one are void
    seen: int = 0  # cells that were done when it asked last
    idle_since: float | None = None


@dataclass
class _World:
    scene: Scene
    lengths: list[float]  # of each cell, in seconds
    random: random.Random
    now: float = 0.0
    ready: deque[int] = field(default_factory=deque)
    events: list[tuple[float, int, Any]] = field(default_factory=list)
    order: count = field(default_factory=count)
    done: int = 0
    busy: int = 0
    idle: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left = list(self.lengths)
        self.runners = [_Runner() for _ in range(self.scene.runners)]
        self.out = Outcome([0] * len(self.lengths))
        self.ready.extend(range(0, len(self.lengths), 1 + self.scene.heirs))

    def run(self) -> Outcome:
        for name in range(len(self.runners)):
            self.at(0.0, self.ask, name, 0)
        while self.done < len(self.lengths):
            self.now, _, (what, *arguments) = heapq.heappop(self.events)
            what(*arguments)
        self.out.span_s = self.now
        self.out.idle_s += sum(self.now - r.idle_since for r in self.runners if r.idle_since is not None)
        return self.out

    def at(self, when: float, what: Any, *arguments: Any) -> None:
        heapq.heappush(self.events, (when, next(self.order), (what, *arguments)))

    def pay(self, operations: float) -> float:
        """Seconds that operations take."""
        self.out.operations += operations
        self.out.store_s += operations * self.scene.operation_s
        return operations * self.scene.operation_s

    def ask(self, name: int, session: int) -> None:
        """Look for work: at what others have, at what they have done since, at the next that is free."""
        runner = self.runners[name]
        if session != runner.session or runner.cell is not None:
            return
        waited = 0.0
        if runner.idle_since is not None:
            waited, runner.idle_since = self.now - runner.idle_since, None
            self.out.idle_s += waited
            self.idle.discard(name)
            self.out.operations += waited / _LOOK_S * REFUSED * self.busy if self.scene.walks else 0
        seconds = 0.0
        if self.scene.walks:
            seconds += self.pay(REFUSED * self.busy + MADE * (self.done - runner.seen))
            runner.seen = self.done
        if not self.ready:
            runner.idle_since = self.now
            self.idle.add(name)
            return
        runner.cell = self.ready.popleft()
        self.busy += 1
        runner.since = self.now + seconds + self.pay(GOT)
        self.begin(name)

    def begin(self, name: int) -> None:
        """What comes first: the cell's end, the runner's death, or its standing still."""
        runner, scene = self.runners[name], self.scene
        assert runner.cell is not None
        ends = runner.since + self.left[runner.cell]
        dies, stands = (
            runner.since + (self.random.expovariate(rate / 3600) if rate else float("inf"))
            for rate in (scene.deaths, scene.stalls)
        )
        when, what = min((ends, 0), (dies, 1), (stands, 2))
        self.at(when, (self.end, self.die, self.stand)[what], name)

    def end(self, name: int) -> None:
        runner = self.runners[name]
        assert runner.cell is not None
        self.finish(runner.cell)
        self.out.useful_s += self.left[runner.cell]
        self.busy -= 1
        runner.cell, runner.seen = None, runner.seen + 1
        self.at(self.now + self.pay(ENDED), self.ask, name, runner.session)

    def finish(self, cell: int) -> None:
        self.out.finished[cell] += 1
        if self.out.finished[cell] > 1:
            return
        self.done += 1
        if cell % (1 + self.scene.heirs) == 0:
            self.free(range(cell + 1, min(cell + 1 + self.scene.heirs, len(self.lengths))))

    def free(self, cells: Any) -> None:
        """These may be taken; idle runners see it when they look."""
        self.ready.extendleft(reversed(cells))
        for name in sorted(self.idle)[: len(cells)]:
            self.idle.discard(name)
            self.at(self.now + self.random.uniform(0, _LOOK_S), self.ask, name, self.runners[name].session)

    def let_go(self, runner: _Runner) -> int:
        """The runner's cell is another's as soon as somebody has been patient; its checkpoint stays."""
        cell = runner.cell
        assert cell is not None
        worked = self.now - runner.since
        kept = max(0.0, worked) // CHECKPOINT_S * CHECKPOINT_S
        self.out.useful_s += kept
        self.out.repeated_s += max(0.0, worked) - kept
        self.left[cell] -= kept
        self.busy -= 1
        runner.cell = None
        runner.session += 1
        self.at(self.now + PATIENCE_S, self.free, [cell])
        return cell

    def die(self, name: int) -> None:
        runner = self.runners[name]
        self.let_go(runner)
        self.out.deaths += 1
        self.out.down_s += self.scene.restart_s
        runner.seen = self.done  # the next one reads in its plan what is done
        self.at(self.now + self.scene.restart_s, self.ask, name, runner.session)

    def stand(self, name: int) -> None:
        """It wakes when another has its cell, and works on it until it looks at its leases, or to the end."""
        runner = self.runners[name]
        cell = self.let_go(runner)
        self.out.stalls += 1
        self.out.down_s += self.scene.stall_s
        looks = self.random.uniform(0, BEAT_S)
        self.at(self.now + self.scene.stall_s + looks, self.wake, name, cell, looks)

    def wake(self, name: int, cell: int, worked: float) -> None:
        self.out.doubled_s += min(worked, self.left[cell])
        if self.left[cell] <= worked:
            self.finish(cell)  # of the same bits as the other's
        self.ask(name, self.runners[name].session)


def simulate(scene: Scene, lengths: list[float], seed: int = 0) -> Outcome:
    """Run a scene to its end, each cell's length drawn from ``lengths`` (seconds)."""
    rng = random.Random(seed)
    return _World(scene, rng.choices(lengths, k=scene.cells), rng).run()


def recorded(folder: Path) -> list[float]:
    """Seconds of every record of a store that ended well."""
    bodies = (json.loads(file.read_text())["body"] for file in sorted((folder / "records").glob("*.json")))
    return [body["seconds"] for body in bodies if body["cost"]]


SCENES = (
    Scene("one folder", 10, 10_000),
    Scene("one folder", 100, 100_000),
    Scene("one folder", 1_000, 1_000_000),
    Scene("one folder, every runner stands still once in ten hours", 1_000, 1_000_000, stalls=0.1),
    Scene("slower: 20 ms an operation", 1_000, 1_000_000, operation_s=0.02),
    Scene("slower, one cell a job (`--executor slurm`)", 1_000, 1_000_000, operation_s=0.02, walks=False),
)


def row(scene: Scene, out: Outcome) -> dict[str, str]:
    """A line of the table."""
    whole = scene.runners * out.span_s

    def share(seconds: float) -> str:
        return f"{100 * seconds / whole:.2f} %"

    return {
        "": scene.name,
        "runners": f"{scene.runners:,}",
        "cells": f"{scene.cells:,}",
        "hours": f"{out.span_s / 3600:.1f}",
        "useful": share(out.useful_s),
        "asking the store": share(out.store_s),
        "idle": share(out.idle_s),
        "down": share(out.down_s),
        "repeated": share(out.repeated_s),
        "doubled": share(out.doubled_s),
        "operations a second": f"{out.operations / out.span_s:,.0f}",
        "deaths": f"{out.deaths:,}",
        "finished twice": f"{sum(n - 1 for n in out.finished):,}",
    }


BEGIN, END = "<!-- simulation: written by benchmarks/performance/simulation.py -->", "<!-- end of simulation -->"


def written_into(text: str, table: str) -> str:
    """``text`` with the table between its markers. Raises: ValueError where there are none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the text lacks the markers of the simulation")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(arguments: list[str]) -> None:
    lengths = recorded(Path(__file__).parents[2] / "reports")
    rows = [row(scene, simulate(scene, lengths)) for scene in SCENES]
    columns = list(rows[0])  # a scene a column: thirteen columns are too many for a page
    turned = [[name, *(line[name] for line in rows)] for name in columns[1:]]
    table = tabulate(turned, ["", *(line[""] for line in rows)], tablefmt="github", disable_numparse=True)
    if arguments[:1] == ["--write"]:
        document = Path(arguments[1])
        document.write_text(written_into(document.read_text(), table))
    else:
        print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
