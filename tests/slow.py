"""A cell that trains for a while and writes down each step, for tests that cut it off."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from runs import more_fakes, suite_of
from slimbench.core import Arm, Budget

if TYPE_CHECKING:
    from pathlib import Path

STEPS = list(range(48))
SLOW = replace(suite_of(), arms=(Arm((more_fakes.Disturbs("trains_slowly"),), (Budget(1.0, epochs=8),)),))


def steps_of(folder: Path) -> list[int]:
    """The steps that were made."""
    file = folder / "steps"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def until(condition) -> None:
    """Wait for what another process does; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.1)


class AtStep(more_fakes.Recorder):
    """A view that does something once the cell has trained for some steps."""

    def __init__(self, folder: Path, act):
        super().__init__()
        self.folder, self.act = folder, act

    def show(self, event):
        super().show(event)
        if event.kind == "started":
            until(lambda: len(steps_of(self.folder)) > 4)
            self.act()
