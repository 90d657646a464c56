"""Every method on CamVid, at the five operating points that all suites share: a thin PSPNet, three seeds."""

from slimbench.benchmarks._arms import REFERENCE, arms
from slimbench.core import Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.tasks.camvid import CamVid

suite = Suite(
    name="segmentation",
    title="Every method on CamVid",
    tasks=(CamVid(),),
    reference=REFERENCE,
    arms=arms(epochs=30),
    seeds=(0, 1, 2),
    profiles=(CPU(threads=1, batch=1),),
)
