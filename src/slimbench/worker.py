"""What a worker process does: one job, apart from the runner, which gets its result and all that it prints.

A worker is a fork of the server in ``preload.py``. Method code runs only here: it may crash, hang or be killed.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import torch

from slimbench import devices, discover, memory
from slimbench.compress import compress
from slimbench.core import UserError, first_line
from slimbench.ending import EndedError, Ending
from slimbench.files import StoreFullError
from slimbench.measure import measure
from slimbench.store import Store

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from slimbench.core import Task

SENT_TO_ALL = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # by a cluster whose time runs out; the runner decides


def main(
    line: Connection,
    job: bytes,
    plugins: tuple[str, ...],
    output: Connection,
    environ: dict[str, str],
    *,
    memory_limit_bytes: int | None = None,
) -> None:
    """Run one pickled job and send what came of it: ("done", record), ("failed", reason) or ("memory", reason).

    What it prints, Python's own last words included, goes to ``output``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides what an interrupt ends
    for number in SENT_TO_ALL:  # likewise
        signal.signal(number, lambda *received: None)
    os.setpgid(0, 0)  # what a method forks ends with it
    os.environ.update(environ)
    torch.set_num_threads(1)  # torch mends its pool here, after the fork: two threads that came first would race
    ending = Ending()
    threading.Thread(target=_obey_the_runner, args=(line, ending), daemon=True).start()
    with os.fdopen(output.fileno(), "w", buffering=1, closefd=False) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        faulthandler.enable(file)
        if memory_limit_bytes:
            memory.limit(memory_limit_bytes)
        try:
            for plugin in plugins:
                discover.load_plugin(plugin)
            line.send(("done", run(pickle.loads(job), line, ending)))
        except EndedError:
            _end()
        except UserError as error:
            print(error)  # noqa: T201  into the log
            line.send(("stop" if stops_the_run(error) else "failed", str(error)))
        except Exception as error:  # noqa: BLE001  the border: whatever a method raises becomes a record
            traceback.print_exc()
            line.send(("memory" if memory.ran_out(error) else "failed", first_line(error)))  # the rest is in the log


def run(job: dict[str, Any], line: Connection, ending: Ending) -> Any:
    """Do what a job asks for. No cell trains beside a measurement: what it waits is no time of its own."""
    store = Store(job["store"])

    def say(what: str) -> None:
        line.send((what, None))

    if job["do"] == "check":
        return check(job["task"])
    if job["do"] == "compress":
        with devices.shared(job["cell"].settings.device, say):
            return compress(job["cell"], store, lambda message: line.send(("progress", message)), ending)
    return measure(job["record"], job["reference"], job["profile"], job["level"], store, say=say)


def check(task: Task) -> None:
    """Look at a task's data and network before anything is trained."""
    try:
        task.build()
        task.check()
    except UserError as error:
        raise DataError(str(error)) from error
    except Exception as error:
        if memory.ran_out(error):
            raise  # another time there may be more
        traceback.print_exc()  # into the log
        raise DataError(f"The data or the network of {task.name} cannot be loaded ({first_line(error)}).") from error


class DataError(UserError):
    """A task's data or weights are missing or altered, or nobody knows its network."""


def stops_the_run(error: UserError) -> bool:
    """Whether the error would meet every other job as well."""
    return isinstance(error, (StoreFullError, DataError))


def _obey_the_runner(line: Connection, ending: Ending) -> None:
    """The only thing that it ever says is that this has to end; when the line is closed, it is gone."""
    try:
        line.recv()
        if ending.ask():
            line.poll(None)
    finally:
        _end()


def _end() -> None:
    """This process, and all that a method left behind."""
    os.killpg(0, signal.SIGKILL)
