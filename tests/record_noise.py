"""Record A/A looks of this machine as it is, for the alarm budget: ``python tests/record_noise.py STORE MINUTES``.

A store's quickest networks, in turn, are timed against themselves by the profile ``cpu`` as a night's looks are,
disturbed or not, but for two things: ten looks share a process and its copies of the network, and no memory is metered.
So many more looks fit. ``noise.json`` gets another recording: what machine it was, and of each look the seconds since
the start, which sessions other work disturbed (x), and how much slower each of them saw the one copy.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench import baseline, discover, latency
from slimbench.environment import machine
from slimbench.hardware_profiles import _protocol, _timing
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.latency import Look

FILE = Path(__file__).with_name("noise.json")
NETWORKS = 12
LOOKS = 10  # of one process


def recording(store: Store, minutes: float) -> dict[str, Any]:
    """Looks at the networks in turn, for so many minutes."""
    cells = sorted(baseline.timed_cells(baseline.newest(store.records())), key=lambda cell: cell.macs)
    networks = [store.artifact(cell.id) for cell in cells[:NETWORKS]]
    looks: list[list[Any]] = []
    started, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    for network in itertools.cycle(networks):
        for sessions in looks_at(network):
            doubts = "".join("x" if seen.disturbed else "." for seen in sessions)
            looks.append([round(time.monotonic() - began), doubts, *(round(seen.slower, 4) for seen in sessions)])
            sys.stderr.write(f"{looks[-1]}\n")
            if time.monotonic() - began > 60 * minutes:
                return {"on": f"{started:%Y-%m-%d}", **machine(), "looks": looks}
    raise AssertionError


def looks_at(network: Path) -> Iterator[list[Look]]:
    """Ten looks' sessions, in each second of which the copies change places."""
    profile = discover.make("hardware_profiles", "cpu")
    plan = _protocol.Plan.of(profile, "quick")
    about = {"input_shape": (1, 1, 8, 8), "peak_bytes": None, "dense_peak_bytes": None}
    with profile.ready(alone=False):
        runs = {name: profile.load(network) for name in ("dense", "again", "compressed")}
        for run in runs.values():
            _timing.warm_up(run, *plan.warm_s, profile.times)
        for _ in range(LOOKS):
            sessions = []
            for turn in range(latency.SESSIONS):
                watch = profile.watch()
                watch.begin()
                samples = _timing.interleaved(runs, plan.rounds, turn, profile.times)
                session = _protocol.Session(samples, {}, watch.end())
                taken = _protocol.measurement(profile, "quick", [session], about)
                slower = (taken.ratio if turn % 2 else 1 / taken.ratio) - 1
                sessions.append(latency.Look(slower, taken.disturbed))
            yield sessions


def written(noise: dict[str, Any]) -> str:
    """A line a look, and a line a proxy."""
    scores = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in noise["scores"].items())
    parts = []
    for recorded in noise["latency"]:
        about = json.dumps({name: value for name, value in recorded.items() if name != "looks"}).removesuffix("}")
        looks = ",\n".join(f"   {json.dumps(look)}" for look in recorded["looks"])
        parts.append(f'  {about}, "looks": [\n{looks}\n  ]}}')
    latencies = ",\n".join(parts)
    quiet = json.dumps(noise["quiet"])
    return f'{{"scores": {{\n{scores}\n }},\n "quiet": {quiet},\n "latency": [\n{latencies}\n ]\n}}\n'


if __name__ == "__main__":
    noise = json.loads(FILE.read_text())
    noise["latency"].append(recording(Store(sys.argv[1], create=False), float(sys.argv[2])))
    FILE.write_text(written(noise))
