"""Every night: the smoke suite with six seeds, so that a paired test can say something. Half an hour on two cores.

Its scores are proxies: short schedules on small images, which move when something in the engine does. They rank no
method. Nothing is measured here: `bench check` times what changed against the baseline's own networks.
"""

from dataclasses import replace

from slimbench.benchmarks import smoke
from slimbench.statistics import ENOUGH_SEEDS

suite = replace(
    smoke.suite,
    name="nightly",
    title="Every method on small networks, with six seeds",
    seeds=tuple(range(ENOUGH_SEEDS)),
    profiles=(),
    time_limit_s=600.0,  # a busy machine is no fault of a method
)
