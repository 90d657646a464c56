"""`bench run --all`: every method on every embedded task, one operating point, two seeds, minutes on two cores.

The schedules are short and the images small: the table shows that everything works and how it reads, and decides
nothing between methods.
"""

from slimbench.core import Arm, Budget, Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.cuda import CUDA
from slimbench.hardware_profiles.edge_container import EdgeContainer
from slimbench.hardware_profiles.edge_remote import EdgeRemote
from slimbench.hardware_profiles.executorch_cpu import ExecuTorchCPU
from slimbench.hardware_profiles.onnx_cpu import OnnxCPU
from slimbench.hardware_profiles.openvino import OpenVINO
from slimbench.methods.dass import DASS, SparseScores
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.gpp import GPP, GPPGrown
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.magnitude_weights import MagnitudeWeights
from slimbench.methods.random_channels import RandomChannels
from slimbench.methods.resconv import ResConv, ResConvFromScratch
from slimbench.methods.uniform_width import UniformWidth
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

# a search of a few epochs over three cells, and a network as small: it shows that it runs, not what it can find
CELLS = DASS(
    channels=8,
    cells=3,
    search_channels=4,
    search_cells=3,
    search_pretrain=0.25,
    search_prune=0.125,
    search_finetune=0.25,
)

suite = Suite(
    name="quick",
    title="Every method on every embedded task",
    tasks=(Digits(), TextureDigits(), Photos()),
    reference=Dense(),
    arms=(
        Arm(
            methods=(
                RandomChannels(),
                L1Channels(),
                L1Channels(ranking="global"),
                UniformWidth("scratch-E"),
                UniformWidth("scratch-B"),
                DCSS(),
                ETPF(),
                ResConv(),
                ResConvFromScratch(),
                GPP(),
                GPPGrown(),
            ),
            budgets=(Budget(0.5, epochs=8),),
        ),
        Arm(
            methods=(MagnitudeWeights("layer"), MagnitudeWeights("global"), SparseScores(), CELLS),
            budgets=(Budget(0.2, "prunable_nonzero", epochs=8),),
        ),
    ),
    seeds=(0, 1),
    profiles=(
        CPU(threads=1, batch=32),
        OnnxCPU(batch=32),
        OpenVINO(threads=1, batch=32),
        ExecuTorchCPU(batch=32),
        CUDA(batch=32),
        EdgeContainer(),
        EdgeRemote(),
    ),
    time_limit_s=600.0,
)
