"""A method that disturbs the runner itself (a second plug-in file), and a view that remembers what it was shown."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from slimbench import discover
from slimbench.core import Budget, Card, Split, Task, Trainer, UserError
from slimbench.files import StoreFullError

if TYPE_CHECKING:
    from torch import nn

discover.load_plugin(str(Path(__file__).with_name("fakes.py")))
from slimbench_plugin_fakes import Stripes  # noqa: E402  a module since the line above


@dataclass(frozen=True)
class OnDisk(Stripes):
    """Stripes that believe a file below BENCH_DATA, whose content is declared."""

    name: ClassVar[str] = "on_disk"
    content: ClassVar[str] = hashlib.sha256(b"whole").hexdigest()

    def load(self, split: Split):
        file = Path(os.environ["BENCH_DATA"]) / "stripes"
        if hashlib.sha256(file.read_bytes()).hexdigest() != self.content:
            raise UserError(f"{file} was altered: fetch it again.")
        return super().load(split)


@dataclass(frozen=True)
class Disturbs:
    """Does what ``how`` says."""

    how: str = "lingers"

    name: ClassVar[str] = "disturbs"
    card: ClassVar[Card] = Card(title="A fake", fidelity={"all tasks": "control"}, granularity="none")

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        return None

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        given = (model, trainer) if self.how.startswith("trains") else (model,)
        return getattr(self, self.how)(*given)

    def trains_slowly(self, model, trainer):
        """And writes down each step."""

        def writes(step):
            with (Path(os.environ["BENCH_MARKS"]) / "steps").open("a") as file:
                file.write(f"{step.index}\n")
            time.sleep(0.1)

        return trainer.fit(model, trainer.epochs_left, name="slow", after_step=writes)

    def trains_and_hangs(self, model, trainer):
        """After a single step."""
        trainer.fit(model, 1 / 6, name="short")
        time.sleep(600)

    def sees_a_gpu(self, model):
        """And writes down which."""
        with (Path(os.environ["BENCH_MARKS"]) / "seen").open("a") as file:
            file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\n")
        time.sleep(1.0)
        return model

    def lingers(self, model):
        """Leaves a thread behind that keeps its process from ending."""
        threading.Thread(target=time.sleep, args=(600,)).start()
        return model

    def naps(self, model):
        time.sleep(0.5)
        return model

    def forks(self, model):
        """Leaves a child behind that holds all that it inherited."""
        if (child := os.fork()) == 0:
            time.sleep(600)
        (Path(os.environ["BENCH_MARKS"]) / "child").write_text(str(child))
        return model

    def eats_memory(self, model):
        held = []
        while True:
            held.append(bytearray(2**26))

    def runs_out_once(self, model):
        """Of memory, the first time."""
        marker = Path(os.environ["BENCH_MARKS"]) / "ran-out"
        if not marker.exists():
            marker.touch()
            time.sleep(0.3)
            raise MemoryError("too little is left")
        return model

    def hangs_once(self, model):
        """The first time."""
        marker = Path(os.environ["BENCH_MARKS"]) / "hung"
        if not marker.exists():
            marker.touch()
            time.sleep(600)
        return model

    def kills_its_runner_once(self, model):
        """As a node that loses its power does: the fork server is between this process and its runner."""
        marker = Path(os.environ["BENCH_MARKS"]) / "killed"
        if not marker.exists():
            marker.touch()
            os.kill(psutil.Process().parent().ppid(), signal.SIGKILL)
            time.sleep(600)
        return model

    def alters_the_data(self, model):
        """While others still need them."""
        (Path(os.environ["BENCH_DATA"]) / "stripes").write_text("part")
        return model

    def fills_the_disk(self, model):
        raise StoreFullError("The disk that holds it is full: free some space and run the same command again.")


class Recorder:
    """A view that remembers."""

    def __init__(self):
        self.events, self.said, self.expected_s = [], [], {}

    def begin(self, stage, jobs, seconds_expected=0.0):
        self.said.append(f"{stage}: {jobs}")
        self.expected_s[stage] = seconds_expected

    def show(self, event):
        self.events.append(event)

    def say(self, text, **facts):
        self.said.append(text)

    def close(self):
        pass

    def labels(self, kind):
        """The jobs of every event of a kind."""
        return [event.job.label for event in self.events if event.kind == kind]
