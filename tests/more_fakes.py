"""Methods that misbehave towards the runner itself: a second plug-in file, for the tests of running."""

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
