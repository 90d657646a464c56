"""Records of a made-up night, and a hardware profile whose clock is a random number generator: a plug-in file."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimbench import identity
from slimbench.core import Cost, Record, Scores, Settings, pack
from slimbench.environment import environment
from slimbench.hardware_profiles import _protocol

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = range(6)
PROXY = "digits/resnet14 l1_channels 0.5 macs"


def record(seed: int, right: int = 180, *, proxy: str = PROXY, macs: int = 1000, **changes) -> Record:
    """A record on digits with ``right`` of 200 test samples classified."""
    cost = Cost(macs, 100, 100, 90, 50, 400)
    score = Scores(right / 2, right, 200, pack([1.0] * right + [0.0] * (200 - right)))
    label = f"{proxy} seed {seed}"
    made = Record(
        id=identity.digest(label),
        label=label,
        cell={"task": {"is": "digits"}, "seed": seed, "settings": identity.describe(Settings())},
        status="ok",
        quality={"top1": score},
        val_quality={"top1": score},
        cost=cost,
        dense_cost=cost,
        artifact=identity.digest([label, right, macs]),
        environment=environment(),
        finished="2026-01-01T00:00:00+00:00",
    )
    return replace(made, **changes)


def night(loss: int = 0, *, proxies: int = 1, noise: int = 0, **changes) -> list[Record]:
    """Six seeds of each proxy; ``noise`` draws other deviations, ``loss`` samples are lost by the first proxy."""
    draw = random.Random(noise)
    names = [PROXY, *(f"{PROXY}, {i}" for i in range(1, proxies))]
    return [
        record(seed, 180 + draw.randint(-3, 3) - (loss if name == PROXY else 0), proxy=name, **changes)
        for name in names
        for seed in SEEDS
    ]


@dataclass(frozen=True)
class Clockwork:
    """Times networks by what their folder's ``ms`` says, with 2 % of noise a pass and 1 % a session.

    Attributes:
        slot: how much slower any network is where it is loaded last.

    """

    disturbed: bool = False
    slot: float = 0.0

    name: ClassVar[str] = "clockwork"
    version: ClassVar[int] = 1
    device: ClassVar[str] = "clockwork"
    batch: ClassVar[int] = 1
    threads_used: ClassVar[int] = 1

    def unavailable(self) -> str | None:
        return None

    def measure(self, artifact: Path, reference: Path, level):
        count = artifact.parent / "sessions"
        session = int(count.read_text()) if count.exists() else 0
        count.write_text(str(session + 1))
        draw = np.random.RandomState(session)
        ms = {"dense": reference, "again": reference, "compressed": artifact}
        samples = {
            name: float((folder / "ms").read_text()) * (1 + 0.01 * draw.randn()) * (1 + 0.02 * draw.randn(30))
            for name, folder in ms.items()
        }
        samples["compressed"] *= 1 + self.slot
        seen = _protocol.Seen("a planted load" if self.disturbed else None, 0.0, (0.0, 0.0), (None, None))
        about = {"input_shape": (1, 1, 8, 8), "peak_bytes": None, "dense_peak_bytes": None}
        return _protocol.measurement(self, level, [_protocol.Session(samples, {}, seen)], about)
