"""What profiles of this machine's processor share: threads, its clock, load, memory and energy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import psutil

from slimbench import memory
from slimbench.core import Level, Measurement, UserError
from slimbench.environment import clock_mhz, physical_cores, usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.hardware_profiles._protocol import Seen
    from slimbench.hardware_profiles._timing import Run

_CLOCK_DRIFT = 0.10
_LOOK_S = 0.25
_SPARE = 0.3  # of a core: the system itself
_METERS = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Host:
    """fp32 on a fixed number of threads, on as many physical cores.

    Attributes:
        threads: "all": one a physical core.
        batch: images a forward pass.
        samples: rounds of level full, over five processes; MLPerf asks 24,576 for a 90th percentile and 270,336 for a
            99th.

    """

    threads: int | Literal["all"] = 1
    batch: int = 32
    samples: int = 200

    device: ClassVar[str] = "cpu"
    takes_onnx: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name, least in (("threads", 1), ("batch", 1), ("samples", 10)):
            if (given := getattr(self, name)) != "all" and given < least:
                raise UserError(f"{name}={given} is impossible: give at least {least}.")

    @property
    def threads_used(self) -> int:
        """A number."""
        return physical_cores() if self.threads == "all" else self.threads

    def unavailable(self) -> str | None:
        """Too few cores for the threads."""
        cores, threads = physical_cores(), self.threads_used
        return None if threads <= cores else f"{threads} threads on {cores} cores would wait for each other"

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """By the common protocol."""
        from slimbench.hardware_profiles import _protocol

        return _protocol.compare(self, artifact, reference, level)  # type: ignore[arg-type]  # a runtime adds ready, load

    def translate(self, folder: Path, work: Path) -> Path:
        """Nothing to do: PyTorch loads the artifact."""
        return folder

    def times(self, runs: Sequence[Run]) -> list[float]:
        """By the processor's clock."""
        from slimbench.hardware_profiles import _timing

        return _timing.times(runs)

    def peak(self, file: Path) -> dict[str, int | None]:
        """Resident bytes; None where the system does not tell.

        The first time is not looked at: what a runtime imports and sets up for any network is not this one's.
        """
        memory.count_exactly()
        self.load(file)()
        memory.give_back()
        before = memory.resident(peak=not memory.forget_peak())
        self.load(file)()
        peak = memory.resident(peak=True)
        return {"peak_bytes": peak - before if peak and before else None}

    def load(self, file: Path) -> Run:
        """A runtime's own."""
        raise NotImplementedError

    def joules(self) -> float | None:
        """Of all processors, by RAPL, where the system lets this process read it."""
        try:
            meters = [meter for meter in _METERS.glob("intel-rapl:*") if meter.name.count(":") == 1]
            return sum(int((meter / "energy_uj").read_text()) for meter in meters) / 1e6 if meters else None
        except OSError:
            return None

    def runtime(self) -> dict[str, str]:
        """Its name and version."""
        import torch

        return {"runtime": f"torch {torch.__version__.partition('+')[0]}"}

    def watch(self) -> HostWatch:
        """Load and clock."""
        return HostWatch(self.threads_used, self.runtime())


def pin(threads: int) -> None:
    """Keep this process on as many physical cores: the last ones, since the first serve interrupts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, usable_cores()[-threads:])


class HostWatch:
    """Counts the cores that other processes keep busy, right before and meanwhile, and looks at the clock."""

    def __init__(self, threads: int, runtime: dict[str, str]) -> None:
        """Before this process is pinned to as many cores: pinned, it shares none with other work."""
        self.threads, self.runtime, self.cores = threads, runtime, physical_cores()
        self.busy, self.load = busy_cores(), os.getloadavg()[0]

    def begin(self) -> None:
        """Right before the first round."""
        self.clock, self.beside = clock_mhz(), Beside()

    def end(self) -> Seen:
        """Right after the last."""
        from slimbench.hardware_profiles._protocol import Seen

        busy, clocks = max(self.busy, self.beside.cores()), (self.clock, clock_mhz())
        load = (self.load, os.getloadavg()[0])
        spare = physical_cores() - self.threads
        return Seen(disturbed(busy, spare, self.cores, clocks), busy, load, clocks, self.runtime)


class Beside:
    """Counts the cores that other processes keep busy while this one works."""

    def __init__(self) -> None:
        self._started, self._own, self._all = time.monotonic(), time.process_time(), _busy_seconds()

    def cores(self) -> float:
        """Since the start."""
        elapsed, own = time.monotonic() - self._started, time.process_time() - self._own
        if elapsed < _LOOK_S:
            return 0.0  # the system counts in hundredths of a second
        return max(0.0, _busy_seconds() - self._all - own) / elapsed


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def busy_cores() -> float:
    """Cores that other work keeps busy right now. (The load average still remembers our own training.)"""
    return float(psutil.cpu_percent(interval=_LOOK_S)) / 100 * (os.cpu_count() or 1)


def disturbed(busy: float, spare: int, cores: int, clocks: Sequence[float | None]) -> str | None:
    """Why a timing should be doubted, or None: foreign load, or a clock that drifts or is throttled.

    Args:
        busy: cores that other work keeps busy. spare: those that may be busy, none in level full: caches, memory and
            clock are shared. cores: of the machine that timed. clocks: MHz before and after.

    """
    if busy > spare + _SPARE:
        return f"other work kept {busy:.1f} of {cores} cores busy"
    before, after = clocks
    if before and after and abs(after - before) > _CLOCK_DRIFT * before:
        return f"the clock went from {before:.0f} to {after:.0f} MHz"
    return None
