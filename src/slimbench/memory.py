"""How much memory this machine has left, and what one cell may take of it."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(cgroup: Path = _CGROUP) -> int:
    """What new work may take without swapping: the system's, or the container's where that is less."""
    left = int(psutil.virtual_memory().available)
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            left = min(left, int((cgroup / most).read_text()) - int((cgroup / used).read_text()))
    return max(0, left)


def resident_bytes(pid: int | None) -> int:
    """What a process holds now; 0 for one that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def limit(limit_bytes: int) -> None:
    """From here on this process and its children get no more private memory each: an allocation fails instead."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that there was too little memory, on the CPU or on a GPU."""
    words = ("can't allocate memory", "bad_alloc", "out of memory", "Cannot allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(word in str(error) for word in words)
    )
