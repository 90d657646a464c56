"""A device's name goes in; the right to use it comes out: shared by all training, or alone, to measure.

It holds over all runs and stores of a user on this machine. Two locks a device: whoever wants it takes the gate first,
so that a measurement waits for the cells that train now and for none that come later.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOOK_S = 0.2


def say_nothing(what: str) -> None:
    """To nobody."""


def gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, each by the name with which CUDA_VISIBLE_DEVICES makes it the only one."""
    import torch

    count = torch.cuda.device_count()  # opens none of them
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named or map(str, range(count)))[:count]


@contextlib.contextmanager
def shared(device: str, say: Callable[[str], object] = say_nothing) -> Iterator[None]:
    """Use the device beside others, but beside no measurement. Says "waits" where it must, then "begins"."""
    with _lock(device, "gate") as gate, _lock(device, "use") as use:
        _take(gate, fcntl.LOCK_SH, say)
        _take(use, fcntl.LOCK_SH, say)
        fcntl.flock(gate, fcntl.LOCK_UN)
        say("begins")
        yield


@contextlib.contextmanager
def alone(device: str, patience_s: float = math.inf, say: Callable[[str], object] = say_nothing) -> Iterator[bool]:
    """One measurement on a device at a time, and none beside training. Says "waits" where it must, then "begins".

    Yields False, beside training nonetheless, where that has not ended after ``patience_s`` seconds.
    """
    with _lock(device, "gate") as gate, _lock(device, "use") as use:
        _take(gate, fcntl.LOCK_EX, say)
        is_alone = _take(use, fcntl.LOCK_EX, say, patience_s)
        say("begins")
        yield is_alone


def _lock(device: str, part: str) -> IO[str]:
    folder = os.environ.get("BENCH_LOCKS") or tempfile.gettempdir()
    return (Path(folder) / f"slimbench-{os.getuid()}-{device}.{part}.lock").open("a")


def _take(file: IO[str], mode: int, say: Callable[[str], object], patience_s: float = math.inf) -> bool:
    """Whether the lock was got in time."""
    ends, told = time.monotonic() + patience_s, False
    while True:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say("waits")
                told = True
            if time.monotonic() >= ends:
                return False
            time.sleep(_LOOK_S)
        else:
            return True
