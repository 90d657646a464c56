"""Record A/A looks of this machine as it is, for the alarm budget: ``python tests/record_noise.py STORE MINUTES``.

A store's smallest networks, in turn, are timed against themselves by the profile ``cpu`` as a night's looks are,
disturbed or not; memory is not metered meanwhile. ``noise.json`` gets another recording: what machine it was, and of
each look the seconds since the start, whether other work disturbed it and how much slower each session saw the one
copy. Give it BENCH_LOCKS of its own, so that it waits for nobody.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import time
from pathlib import Path

from slimbench import baseline, discover, latency
from slimbench.environment import environment
from slimbench.hardware_profiles import _protocol
from slimbench.store import Store

FILE = Path(__file__).with_name("noise.json")
NETWORKS = 12


def recording(store: Store, minutes: float) -> dict:
    """Looks at all networks in turn, for so many minutes."""
    profile, looks = discover.make("hardware_profiles", "cpu"), []
    _protocol._peak = lambda *_, **__: {"peak_bytes": None}
    every = [store.artifact(cell.id) for cell in baseline.timed_cells(baseline.newest(store.records()))]
    networks = sorted(every, key=lambda folder: sum(file.stat().st_size for file in folder.iterdir()))[:NETWORKS]
    started, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    for network in itertools.cycle(networks):
        if (elapsed := time.monotonic() - began) > 60 * minutes:
            break
        taken = latency.sessions(profile, network, network)
        doubt = latency.Look.of(taken).disturbed
        sys.stderr.write(f"{len(looks)} looks, {elapsed:.0f} s: {doubt or 'quiet'}\n")
        looks.append([round(elapsed), int(doubt is not None), *(round(seen.slower, 4) for seen in taken)])
    here = environment()
    about = {name: here[name] for name in ("cpu", "cores", "system") if name in here}
    return {"on": f"{started:%Y-%m-%d}", **about, "torch": here["versions"]["torch"], "looks": looks}


def written(noise: dict) -> str:
    """A line a look."""
    lines = json.dumps(noise, indent=1)
    for looks in (recorded["looks"] for recorded in noise["latency"]):
        for one in looks:
            lines = lines.replace(json.dumps([one], indent=1)[2:-2].strip(), json.dumps(one))
    return lines + "\n"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(recording(Store(sys.argv[1], create=False), float(sys.argv[2]))))
