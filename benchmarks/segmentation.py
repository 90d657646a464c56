"""Every method on CamVid, at the five operating points that all suites share: a thin PSPNet, three seeds.

``segmentation-reduced`` is for two cores: 12 epochs of dense training, 3 after the cut. Its rows compare methods that
were trained as briefly, and say nothing of what any of them reaches. Its DASS is four cells that the authors found.
``segmentation-reduced-rewound`` repairs at the full learning rate.
"""

from dataclasses import replace

from slimbench.benchmarks._arms import reduced, suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.tasks.camvid import CamVid

PROFILES = (CPU(threads=1, batch=1),)
REDUCED = CamVid(recipe=replace(CamVid().recipe, epochs=12))

suites = (
    suite("segmentation", "Every method on CamVid", (CamVid(),), 30, profiles=PROFILES),
    *reduced("segmentation", "Every method on CamVid", REDUCED, 3, profiles=PROFILES),
)
