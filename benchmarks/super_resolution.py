"""Every method on super resolution x2 and x4, trained on T91 and BSDS500's training images: EDSR-small, three seeds.

Tested on Set5, Set14 and B100, each by itself. DIV2K in place of T91: ``bench run super_resolution --task div2k``.
"""

from slimbench.benchmarks._arms import REFERENCE, arms
from slimbench.core import Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.tasks.div2k import T91

suite = Suite(
    name="super_resolution",
    title="Every method on super resolution",
    tasks=(T91(scale=2), T91(scale=4)),
    reference=REFERENCE,
    arms=arms(epochs=7),
    seeds=(0, 1, 2),
    profiles=(CPU(threads=1, batch=1),),
)
