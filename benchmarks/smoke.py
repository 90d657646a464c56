"""The quick suite's shape in two or three minutes: smaller networks, few epochs, one seed. For CI."""

from dataclasses import replace

from slimbench.benchmarks.quick import CELLS
from slimbench.core import Arm, Budget, Recipe, Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dass import SparseScores
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

suite = Suite(
    name="smoke",
    title="Every method once, on a small network",
    tasks=(
        Digits("resnet14", Recipe(epochs=6, batch_size=64, lr=0.05)),
        TextureDigits(recipe=replace(TextureDigits.recipe, epochs=4)),
        Photos(recipe=replace(Photos.recipe, epochs=1)),
    ),
    reference=Dense(),
    arms=(
        Arm(
            methods=(
                RandomChannels(),
                L1Channels(),
                UniformWidth("scratch-E"),
                UniformWidth("scratch-B"),
                DCSS(),
                ETPF(),
                ResConv(),
                ResConvFromScratch(),
                GPP(),
                GPPGrown(),
            ),
            budgets=(Budget(0.5, epochs=3),),
        ),
        Arm(
            methods=(MagnitudeWeights(), SparseScores(), replace(CELLS, genotype="dass-99")),
            budgets=(Budget(0.2, "prunable_nonzero", epochs=3),),
        ),
    ),
    profiles=(CPU(threads=1, batch=1),),
    time_limit_s=120.0,
)
