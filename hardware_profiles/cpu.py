"""This machine's processor, by PyTorch: batch norm folded on both sides, dense and compressed interleaved."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from slimbench.core import Level, Measurement
from slimbench.environment import clock_mhz, physical_cores

if TYPE_CHECKING:
    from collections.abc import Callable

_LEVELS = {"quick": (30, 0.1, 1.0), "full": (200, 2.0, 20.0)}  # rounds, warm-up seconds at least and at most
_NOISY = 0.10  # an A/A interval wider than this, each way, is no measurement
_CLOCK_DRIFT = 0.10
_LOOK_S = 0.25
_SPARE = 0.3  # of a core: the system itself


@dataclass(frozen=True)
class CPU:
    """fp32, channels last, a fixed number of threads and batch; 30 (quick) or 200 (full) interleaved rounds."""

    threads: int = 1
    batch: int = 32

    name: ClassVar[str] = "cpu"
    version: ClassVar[int] = 1

    def unavailable(self) -> str | None:
        """Too few cores for the threads."""
        cores = physical_cores()
        return None if self.threads <= cores else f"{self.threads} threads on {cores} cores would wait for each other"

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """Dense, dense again (the noise floor) and compressed, one forward pass each a round, in random order."""
        import torch

        from slimbench.hardware_profiles import _timing

        torch.set_num_threads(self.threads)
        rounds, at_least, at_most = _LEVELS[level]
        busy_before, load_before = busy_cores(), os.getloadavg()[0]
        peak, dense_peak = (_in_a_child(self._peak, folder) for folder in (artifact, reference))
        with torch.inference_mode():
            # three copies: a network that runs twice a round would find its weights in the cache more often
            runs = {"dense": self._load(reference), "again": self._load(reference), "compressed": self._load(artifact)}
            for run in runs.values():
                _timing.warm_up(run, at_least, at_most)
            clock_before, beside = clock_mhz(), _Beside()
            samples = _timing.interleaved(runs, rounds)
            busy, clock_after = max(busy_before, beside.cores()), clock_mhz()
        ratio, low, high = _timing.ratio(samples["dense"], samples["compressed"])
        _, same_low, same_high = _timing.ratio(samples["dense"], samples["again"])
        noise = max(abs(same_low - 1), abs(same_high - 1))
        return Measurement(
            **_timing.percentiles(samples["compressed"]),
            dense_p50_ms=_timing.percentiles(samples["dense"])["p50_ms"],
            ratio=ratio,
            ratio_low=low,
            ratio_high=high,
            noise=noise,
            level=level,
            disturbed=disturbed(busy, self.threads, (clock_before, clock_after), noise),
            batch=self.batch,
            threads=self.threads,
            samples=rounds,
            peak_bytes=peak,
            dense_peak_bytes=dense_peak,
            busy_cores=busy,
            load_average=(load_before, os.getloadavg()[0]),
            clock_mhz=(clock_before, clock_after),
            input_shape=self._shape(artifact),
        )

    def _shape(self, folder: Path) -> tuple[int, ...]:
        from slimbench.artifact import verify

        return (self.batch, *verify(folder)["input"])

    def _load(self, folder: Path) -> Callable[[], object]:
        """A forward pass of one batch by the network in ``folder``."""
        import torch

        from slimbench.hardware_profiles import _program

        inputs = torch.randn(self._shape(folder), generator=torch.Generator().manual_seed(0))
        inputs = inputs.to(memory_format=torch.channels_last)
        network = _program.load_folded(folder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return lambda: network(inputs)

    def _peak(self, folder: Path) -> int | None:
        """Memory in bytes that loading the network and running one batch adds to this process."""
        import torch

        before = _resident(peak=False)
        _reset_peak()
        with torch.inference_mode():
            self._load(folder)()
        peak = _resident(peak=True)
        return peak - before if peak and before else None


def _in_a_child(function: Callable[[Path], int | None], folder: Path) -> int | None:
    """The function's answer from a process of its own: memory that another network left free would be reused."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=lambda: there.send(function(folder)))
    child.start()
    there.close()
    try:
        answer: int | None = here.recv()
    except EOFError:
        answer = None  # the measurement itself will say what is wrong with the network
    child.join()
    return answer


class _Beside:
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


def disturbed(busy: float, threads: int, clocks: tuple[float | None, float | None], noise: float) -> str | None:
    """Why a timing should be doubted, or None: foreign load, a drifting clock, or an unsteady A/A ratio."""
    cores = physical_cores()
    if busy > cores - threads + _SPARE:
        return f"other work kept {busy:.1f} of {cores} cores busy"
    before, after = clocks
    if before and after and abs(after - before) > _CLOCK_DRIFT * before:
        return f"the clock went from {before:.0f} to {after:.0f} MHz"
    if noise > _NOISY:
        return f"dense against itself varies by {100 * noise:.0f} %"
    return None


def _resident(*, peak: bool) -> int | None:
    """Resident memory of this process in bytes, now or at its highest; None where the system does not tell."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))
    except (OSError, StopIteration):
        return None


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the highest so far then stands for the peak
