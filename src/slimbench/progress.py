"""Events of a run go in; what a person (or a machine) sees while it runs comes out."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from slimbench.execute import Event, Job


class View(Protocol):
    """Shows a run. ``begin`` opens a stage of so many jobs."""

    def begin(self, stage: str, jobs: int, seconds_expected: float = 0.0) -> None:
        """A stage of ``jobs`` jobs starts."""
        ...

    def show(self, event: Event) -> None:
        """Something happened to a job."""
        ...

    def say(self, text: str, **facts: Any) -> None:
        """A line for the reader; ``facts`` for machines."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def view(*, as_json: bool) -> View:
    """JSON lines for machines, a live display in a terminal, plain lines elsewhere."""
    if as_json:
        return JsonView()
    return LiveView() if sys.stdout.isatty() else PlainView()


def outcome(event: Event) -> str:
    """How a finished job went, in a few words."""
    if event.kind != "done":
        return f"failed: {event.value}"
    result = event.value
    if quality := getattr(result, "quality", None) or getattr(result, "val_quality", None):
        name, scores = next(iter(quality.items()))
        reached = f"{name} {scores.value:.2f}" + ("" if result.quality else " on val")
        return f"{result.status}, {reached}" + (f" ({result.reason})" if result.reason else "")
    if getattr(result, "measurement", None):
        m = result.measurement
        said = f"{m.p50_ms:.3g} ms, {m.ratio:.2f}x as fast as dense"
        return said + (f" (disturbed: {m.disturbed})" if m.disturbed else "")
    status = getattr(result, "status", "ok")
    return f"{status}: {result.reason}" if getattr(result, "reason", "") else status


def short_id(job: Job) -> str:
    """Enough of the id of the cell that a job makes, or measures, for `bench show` and others to find it."""
    return str(getattr(job.work.get("record"), "id", job.id))[:8]


class PlainView:
    """One line an event that matters."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.started = time.monotonic()

    def begin(self, stage: str, jobs: int, seconds_expected: float = 0.0) -> None:
        """Name the stage."""
        self.total, self.done, self.started = jobs, 0, time.monotonic()
        if jobs:
            self.say(f"{stage}: {jobs} to do")

    def show(self, event: Event) -> None:
        """Finished jobs, counted."""
        if event.kind == "elsewhere":
            self.say(f"{event.job.label}: another runner has it")
        if event.kind in {"done", "failed", "stop"}:
            self.done += 1
            done = f"[{self.done}/{self.total}] {short_id(event.job)}"
            self.say(f"{done} {event.job.label}: {outcome(event)}{self._left()}")

    def _left(self) -> str:
        """Time left, from this stage's pace so far."""
        left = (time.monotonic() - self.started) / max(1, self.done) * (self.total - self.done)
        return f"; about {duration(left)} left" if self.done < self.total else ""

    def say(self, text: str, **facts: Any) -> None:
        """Print."""
        print(text, flush=True)  # noqa: T201

    def close(self) -> None:
        """Nothing to put back."""


class JsonView(PlainView):
    """One JSON object a line."""

    def begin(self, stage: str, jobs: int, seconds_expected: float = 0.0) -> None:
        """The stage."""
        self._print(event="stage", stage=stage, jobs=jobs, seconds_expected=round(seconds_expected, 1))

    def show(self, event: Event) -> None:
        """Every event."""
        known: dict[str, Any] = {"event": event.kind, "id": event.job.id, "label": event.job.label}
        if event.kind == "progress":
            known |= event.value
        elif event.kind in {"done", "failed", "stop"}:
            known |= {"status": getattr(event.value, "status", event.kind), "outcome": outcome(event)}
        self._print(**known)

    def say(self, text: str, **facts: Any) -> None:
        """The text and its facts."""
        self._print(event="note", text=text, **facts)

    def _print(self, **facts: Any) -> None:
        print(json.dumps(facts), flush=True)  # noqa: T201


class LiveView(PlainView):
    """Bars: the stage, and each cell under way with its epoch and throughput."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console()
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
            console=self.console,
        )
        self.bars.start()
        self.stage: Any = None
        self.cells: dict[str, Any] = {}

    def begin(self, stage: str, jobs: int, seconds_expected: float = 0.0) -> None:
        """A bar for the stage."""
        super().begin("", 0, seconds_expected)
        self.total = jobs
        if self.stage is not None:
            self.bars.remove_task(self.stage)
        self.stage = self.bars.add_task(f"[bold]{stage}", total=max(1, jobs), completed=int(jobs == 0), what="")

    def show(self, event: Event) -> None:
        """Move the bars; finished jobs scroll away above them."""
        if event.kind == "started":
            self.cells[event.job.id] = self.bars.add_task(event.job.label, total=1, what="starting")
        elif event.kind == "progress":
            message = event.value
            what = message.get("stage") or f"{message['fit']}, {message['images_per_second']:,.0f} images/s"
            total, done = message.get("epochs", 1), message.get("epoch", 1)
            self.bars.update(self.cells[event.job.id], total=round(total), completed=int(done), what=what)
        elif event.kind == "elsewhere":
            super().show(event)
        else:
            if event.job.id in self.cells:
                self.bars.remove_task(self.cells.pop(event.job.id))
            super().show(event)
            self.bars.update(self.stage, completed=self.done, what=self._left().removeprefix("; "))

    def say(self, text: str, **facts: Any) -> None:
        """Print above the bars."""
        self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the display."""
        self.bars.stop()


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
