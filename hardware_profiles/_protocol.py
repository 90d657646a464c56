"""Two stored networks and a device go in; a measurement by the protocol of docs/protocol.md comes out.

A profile says how its device loads, clocks and watches (``Device``); what is compared with what, in which order and how
often, is the same for all.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slimbench.core import Level, Measurement, UserError
from slimbench.fresh import apart
from slimbench.hardware_profiles import _timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from slimbench.hardware_profiles._timing import Run, Samples

_PROCESSES = 5
_METERED_S = 1.0  # of one network alone, for its energy
_NOISY = 0.10  # an A/A interval wider than this, each way, is no measurement
_DRIFTS = 0.10


@dataclass(frozen=True)
class Seen:
    """What else went on around the timing. ``disturbed``: why it should be doubted, or None."""

    disturbed: str | None
    busy_cores: float
    load_average: tuple[float, float]
    clock_mhz: tuple[float | None, float | None]
    device: Mapping[str, Any] = field(default_factory=dict)


class Watch(Protocol):
    """Looks at the device around the timing; made before anything is loaded."""

    def begin(self) -> None:
        """Right before the first round."""
        ...

    def end(self) -> Seen:
        """Right after the last."""
        ...


class Ran(Protocol):
    """How networks were run."""

    @property
    def batch(self) -> int:
        """Images a forward pass."""
        ...

    @property
    def threads_used(self) -> int:
        """Threads of the host that run the network."""
        ...


class Device(Ran, Protocol):
    """What a profile tells the protocol about its device. It is pickled into processes of their own."""

    @property
    def device(self) -> str:
        """Its kind: "cpu", "cuda", "board"."""
        ...

    @property
    def samples(self) -> int:
        """Rounds of level full, in all processes together."""
        ...

    def ready(self, *, alone: bool) -> AbstractContextManager[None]:
        """Where networks are loaded and run; ``alone``: this process does nothing else, and may be pinned."""
        ...

    def translate(self, folder: Path, work: Path) -> Path:
        """The network of an artifact as a file that ``load`` takes; what is new lies in ``work``."""
        ...

    def load(self, file: Path) -> Run:
        """A forward pass of one batch."""
        ...

    def times(self, runs: Sequence[Run]) -> list[float]:
        """Milliseconds of each run, one after the other."""
        ...

    def peak(self, file: Path) -> dict[str, int | None]:
        """``peak_bytes`` that loading the network and one run add to this process; ``reserved_bytes``."""
        ...

    def joules(self) -> float | None:
        """A counter of the device's energy, or None where there is none."""
        ...

    def watch(self) -> Watch:
        """Begin to look."""
        ...


@dataclass(frozen=True)
class Plan:
    """How much a level asks for: rounds a process, and seconds of warm-up at least and at most."""

    rounds: int
    warm_s: tuple[float, float]
    processes: int
    is_full: bool

    @classmethod
    def of(cls, device: Device, level: Level) -> Plan:
        """The level's, on a device."""
        if level == "quick":
            return cls(30, (0.1, 1.0), 1, False)
        return cls(max(2, device.samples // _PROCESSES), (2.0, 20.0), _PROCESSES, True)


@dataclass(frozen=True)
class Session:
    """What one process found: milliseconds and millijoules by network, and what went on meanwhile."""

    samples: dict[str, Samples]
    energy_mj: dict[str, float | None]
    seen: Seen


def compare(device: Device, compressed: Path, dense: Path, level: Level) -> Measurement:
    """Dense, dense again (the noise floor) and compressed, one forward pass each a round, in random order.

    Level "quick" is one session in a process forked from this one, "full" five in processes started for them, or fewer:
    the first that is disturbed is the last. So this process runs no network on its cores: what is forked after that may
    wait for ever. A GPU that this process has used is lost in what is forked from it: its quick session is here.

    Raises: UserError where a network cannot be loaded.
    """
    from slimbench import artifact

    plan = Plan.of(device, level)
    about: dict[str, Any] = {"input_shape": (device.batch, *artifact.verify(compressed)["input"])}
    with tempfile.TemporaryDirectory() as work:
        files = {}
        for of, folder in (("", compressed), ("dense_", dense)):
            (part := Path(work) / f"network_{of}").mkdir()
            files[of] = apart(device.translate, folder, part, anew=False)
            about[f"{of}artifact_bytes"] = _size(files[of])
            about |= {of + name: size for name, size in _peak(device, files[of], anew=plan.is_full).items()}
        sessions: list[Session] = []
        while len(sessions) < plan.processes and not (sessions and sessions[-1].seen.disturbed):
            ask = (device, files[""], files["dense_"], plan, len(sessions))
            is_apart = plan.is_full or device.device == "cpu"
            sessions.append(apart(session, *ask, anew=plan.is_full) if is_apart else session(*ask))
    return measurement(device, level, sessions, about)


def session(device: Device, compressed: Path, dense: Path, plan: Plan, seed: int) -> Session:
    """All that one process measures."""
    watch = device.watch()
    with device.ready(alone=plan.is_full):
        # three copies: a network that runs twice a round would find its weights in the cache more often
        files = {"dense": dense, "again": dense, "compressed": compressed}
        runs = {name: device.load(file) for name, file in files.items()}
        for run in runs.values():
            _timing.warm_up(run, *plan.warm_s, device.times)
        watch.begin()
        samples = _timing.interleaved(runs, plan.rounds, seed, device.times)
        seen = watch.end()
        metered = [name for name in ("dense", "compressed") if plan.is_full]
        return Session(samples, {name: energy_of(device, runs[name]) for name in metered}, seen)


def energy_of(device: Device, run: Run) -> float | None:
    """Millijoules of one run, from a second of runs; None where nothing meters it, or where the counter began anew."""
    before, spent_ms, runs = device.joules(), 0.0, 0
    if before is None:
        return None
    while spent_ms < 1000 * _METERED_S:
        spent_ms += device.times([run])[0]
        runs += 1
    after = device.joules()
    return 1000 * (after - before) / runs if after is not None and after >= before else None


def _peak(device: Device, file: Path, *, anew: bool) -> dict[str, int | None]:
    try:
        peak: dict[str, int | None] = apart(_peak_here, device, file, anew=anew)
    except (RuntimeError, UserError):
        return {"peak_bytes": None}  # the measurement itself will say what is wrong with the network
    return peak


def _peak_here(device: Device, file: Path) -> dict[str, int | None]:
    with device.ready(alone=False):
        return device.peak(file)


def measurement(device: Ran, level: Level, sessions: Sequence[Session], about: dict[str, Any]) -> Measurement:
    """Percentiles, ratio, noise and doubts of samples; ``about``: what is known without them, by field."""
    import numpy as np

    samples = {name: np.stack([s.samples[name] for s in sessions]) for name in ("dense", "again", "compressed")}
    ratio, low, high = _timing.ratio(samples["dense"], samples["compressed"])
    _, same_low, same_high = _timing.ratio(samples["dense"], samples["again"])
    noise, drift = max(abs(same_low - 1), abs(same_high - 1)), _timing.drift(samples["dense"])
    last, about = sessions[-1].seen, about | _timing.percentiles(samples["compressed"])
    energy = [_mean([s.energy_mj.get(name) for s in sessions]) for name in ("compressed", "dense")]
    return Measurement(
        **about,
        dense_p50_ms=_timing.percentiles(samples["dense"])["p50_ms"],
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        noise=noise,
        level=level,
        disturbed=last.disturbed or unsteady(noise, drift),
        batch=device.batch,
        threads=device.threads_used,
        samples=samples["compressed"].size,
        busy_cores=max(s.seen.busy_cores for s in sessions),
        load_average=(sessions[0].seen.load_average[0], last.load_average[1]),
        clock_mhz=(sessions[0].seen.clock_mhz[0], last.clock_mhz[1]),
        processes=len(sessions),
        energy_mj=energy[0],
        dense_energy_mj=energy[1],
        drift=drift,
        device=dict(last.device),
    )


def unsteady(noise: float, drift: float) -> str | None:
    """Why the samples themselves should be doubted, or None."""
    if noise > _NOISY:
        return f"dense against itself varies by {100 * noise:.0f} %"
    return f"dense drifted by {100 * drift:.0f} % within a process" if drift > _DRIFTS else None


def _mean(values: Sequence[float | None]) -> float | None:
    metered = [value for value in values if value is not None]
    return sum(metered) / len(metered) if metered else None


def _size(file: Path) -> int:
    """Bytes of what the runtime loads: a program, or a file with its weights beside it."""
    from slimbench import artifact

    if file.is_dir():
        return (file / artifact.PROGRAM).stat().st_size
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*"))
