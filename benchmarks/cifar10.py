"""Every method on CIFAR-10, at the five operating points that all suites share: ResNet-20, three seeds.

``cifar10`` trains as papers do. ``cifar10-reduced`` is for two cores: 6 epochs of dense training, 2 after the cut; its
rows compare methods that were trained as briefly, and say nothing of what any of them reaches. Its DASS has 4 cells.
"""

from slimbench.benchmarks._arms import REFERENCE, arms
from slimbench.core import Recipe, Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU
from slimbench.methods.dass import DASS
from slimbench.tasks.cifar import CIFAR10


def suite(name: str, title: str, recipe: Recipe, epochs: float, cells: DASS = DASS()) -> Suite:
    """All arms on one recipe."""
    profiles = tuple(profile(threads=1, batch=batch) for profile in (CPU, OnnxCPU) for batch in (1, 32))
    return Suite(name, title, (CIFAR10("resnet20", recipe),), REFERENCE, arms(epochs, cells), (0, 1, 2), profiles)


suites = (
    suite("cifar10", "Every method on CIFAR-10", Recipe(epochs=200, weight_decay=5e-4), 40),
    suite(
        "cifar10-reduced",
        "Every method on CIFAR-10, 6 + 2 epochs",
        Recipe(epochs=6, weight_decay=5e-4),
        2,
        DASS("dass-99", 8, 4),
    ),
)
