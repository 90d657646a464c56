"""How much memory this machine has left, what one cell may take of it, and what a training took."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")
_MMAP_THRESHOLD = -3  # of glibc's mallopt; what is set stays, else it grows with what was freed


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


class Taken:
    """Memory of this process, or what is allocated on its GPU, from the moment that this is made."""

    def __init__(self, device: torch.device) -> None:
        """Forget the highest so far, where the system can."""
        self._device = device
        self._before = _highest(device)
        self._rest = _held(device) if _forgotten(device) else None

    @property
    def peak_bytes(self) -> int:
        """The most that was held so far, also before: what a machine must have."""
        return max(self._before, _highest(self._device))

    @property
    def added_bytes(self) -> int | None:
        """The most since, beyond what was held at first; None where that cannot be told."""
        return None if self._rest is None else max(0, _highest(self._device) - self._rest)


def _highest(device: torch.device) -> int:
    if device.type == "cuda":
        from torch import cuda

        return cuda.max_memory_allocated(device)
    if told := resident(peak=True):
        return told
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _held(device: torch.device) -> int | None:
    if device.type == "cuda":
        from torch import cuda

        return cuda.memory_allocated(device)
    return resident()


def _forgotten(device: torch.device) -> bool:
    if device.type == "cuda":
        from torch import cuda

        cuda.reset_peak_memory_stats(device)
        return True
    give_back()
    return forget_peak()


def resident(*, peak: bool = False) -> int | None:
    """Resident memory of this process in bytes, now or at its highest; None where the system does not tell."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))
    except (OSError, StopIteration):
        return None


def forget_peak() -> bool:
    """Whether the system let the highest so far be forgotten; else only what goes beyond it is seen."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def count_exactly() -> None:
    """From here on large blocks are the system's own and go back to it at once, where the C library can: what is held
    is what is used. Else blocks lie between what was freed, and that counts too. It costs time: for those who count.
    """
    _libc("mallopt", _MMAP_THRESHOLD, 128 * 1024)


def give_back() -> None:
    """Memory that is free in this process, to the system, where its C library can: what is taken again is seen then."""
    gc.collect()
    _libc("malloc_trim", 0)


def _libc(name: str, *arguments: int) -> None:
    """A function of the C library, where there is one."""
    with contextlib.suppress(AttributeError, OSError):
        getattr(ctypes.CDLL(None), name)(*arguments)
