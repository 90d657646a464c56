"""Are smaller networks faster? ResNet-20 on CIFAR-10 at two operating points, by channels, layers and single weights.

``realised-cifar`` trains each network for a twentieth of an epoch: its times are those of a network trained to the end,
its accuracy says nothing. DASS is a network of its own, of 4 cells, whose zeros no runtime here leaves out.
"""

from slimbench.core import Arm, Budget, Recipe, Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU
from slimbench.methods.dass import DASS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.resconv import ResConv
from slimbench.tasks.cifar import CIFAR10

EPOCHS = 0.05
THINNED = DASS("dass-99", 8, 4, pretrain=1, prune=1, finetune=1)

suite = Suite(
    "realised-cifar",
    "realised against theoretical speed-up, batch 1 and 32",
    (CIFAR10("resnet20", Recipe(epochs=EPOCHS), weights="akamaster"),),
    Dense(),
    (
        Arm((L1Channels(), ResConv()), (Budget(0.5, epochs=EPOCHS), Budget(0.25, epochs=EPOCHS))),
        Arm((THINNED,), tuple(Budget(k, "prunable_nonzero", epochs=2 * EPOCHS, tolerance=0.1) for k in (0.1, 0.01))),
    ),
    (0,),
    tuple(profile(threads=1, batch=batch) for profile in (CPU, OnnxCPU) for batch in (1, 32)),
)
