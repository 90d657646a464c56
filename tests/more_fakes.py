"""A method that disturbs the runner itself (a second plug-in file), and a view that remembers what it was shown."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Budget, Card, Task, Trainer
from slimbench.store import StoreFullError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Disturbs:
    """Does what ``how`` says."""

    how: str = "lingers"

    name: ClassVar[str] = "disturbs"
    card: ClassVar[Card] = Card(title="A fake", fidelity={"all tasks": "control"}, granularity="none")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        return getattr(self, self.how)(model)

    def lingers(self, model):
        """Leaves a thread behind that keeps its process from ending."""
        threading.Thread(target=time.sleep, args=(600,)).start()
        return model

    def fills_the_disk(self, model):
        raise StoreFullError("The disk that holds it is full: free some space and run the same command again.")


class Recorder:
    """A view that remembers."""

    def __init__(self):
        self.events, self.said = [], []

    def begin(self, stage, jobs, seconds_expected=0.0):
        self.said.append(f"{stage}: {jobs}")

    def show(self, event):
        self.events.append(event)

    def say(self, text, **facts):
        self.said.append(text)

    def close(self):
        pass

    def labels(self, kind):
        """The jobs of every event of a kind."""
        return [event.job.label for event in self.events if event.kind == kind]
