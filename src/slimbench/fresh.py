"""A function goes in; its answer from a process of its own comes out, while this process sleeps."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from typing import TYPE_CHECKING, Any

from slimbench import discover
from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


def apart(function: Callable[..., Any], *args: Any, anew: bool) -> Any:
    """``function(*args)``, which must be picklable, answered by a process that ends with this one.

    Args:
        anew: started from nothing, in seconds, so that memory lies elsewhere; else forked from this process.

    Raises: UserError as the function does; RuntimeError in words for what else goes wrong there.

    """
    from slimbench.process import how_it_died

    context: Any = multiprocessing.get_context("spawn" if anew else "fork")
    here, there = context.Pipe()
    job = pickle.dumps((function, args))
    process = context.Process(target=_answer, args=(there, None if anew else here, job, discover.plugin_files()))
    process.start()
    there.close()
    try:
        kind, value = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"while it measured, {how_it_died(process.exitcode)}") from None
    finally:
        here.close()
        process.join()
    if kind == "answer":
        return value
    raise UserError(value) if kind == "user" else RuntimeError(value)


def _answer(line: Connection, inherited: Connection | None, job: bytes, plugins: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides what an interrupt ends
    if inherited:
        inherited.close()
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    try:
        for plugin in plugins:
            discover.load_plugin(plugin)
        function, args = pickle.loads(job)
        said = ("answer", function(*args))
    except UserError as error:
        said = ("user", str(error))
    except Exception as error:  # noqa: BLE001  the border: it is raised again on the other side
        said = ("error", f"{type(error).__name__}: {error}")
    line.send(said)


def _end_with(line: Connection) -> None:
    """The other side never sends: when the line can be read, it has been closed."""
    with contextlib.suppress(OSError):
        line.poll(None)
        os._exit(1)
