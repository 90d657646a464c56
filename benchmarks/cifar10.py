"""Every method on CIFAR-10, at the five operating points that all suites share: ResNet-20, three seeds.

``cifar10`` trains as papers do. ``cifar10-reduced`` is for two cores: 6 epochs of dense training, 2 after the cut; its
rows compare methods that were trained as briefly, and say nothing of what any of them reaches. Its DASS has 4 cells.
``cifar10-reduced-rewound`` repairs at the full learning rate.
"""

from slimbench.benchmarks._arms import reduced, suite
from slimbench.core import Recipe
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU
from slimbench.tasks.cifar import CIFAR10

PROFILES = tuple(profile(threads=1, batch=batch) for profile in (CPU, OnnxCPU) for batch in (1, 32))
PAPER, REDUCED = (CIFAR10("resnet20", Recipe(epochs=epochs, weight_decay=5e-4)) for epochs in (200, 6))

suites = (
    suite("cifar10", "Every method on CIFAR-10", (PAPER,), 40, profiles=PROFILES),
    *reduced("cifar10", "Every method on CIFAR-10", REDUCED, 2, profiles=PROFILES),
)
