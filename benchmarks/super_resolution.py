"""Every method on super resolution x2 and x4, trained on T91 and BSDS500's training images: EDSR-small, three seeds.

Tested on Set5, Set14 and B100, each by itself. DIV2K in place of T91: ``bench run super_resolution --task div2k``.
``super_resolution-reduced`` is for two cores: x2 alone, EDSR-tiny, 3 epochs of dense training, 1 after the cut. Its
DASS is four cells that the authors found: a search for eight takes as long here as all other rows together.
``super_resolution-reduced-rewound`` repairs at the full learning rate.
"""

from dataclasses import replace

from slimbench.benchmarks._arms import reduced, suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.tasks.div2k import T91

PROFILES = (CPU(threads=1, batch=1),)
TINY = T91(scale=2, network="edsr-tiny", recipe=replace(T91().recipe, epochs=3))

suites = (
    suite("super_resolution", "Every method on super resolution", (T91(scale=2), T91(scale=4)), 7, profiles=PROFILES),
    *reduced("super_resolution", "Every method on super resolution", TINY, 1, profiles=PROFILES),
)
