"""A suite in one file: two ways of choosing channels, at two shares of the MACs, three seeds each."""

from slimbench import Arm, Budget, Recipe, Suite
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.tasks.digits import Digits

suite = Suite(  # several: suites = (Suite(...), Suite(...))
    name="mine",
    title="Does the choice of channels matter on digits?",
    tasks=(Digits("resnet14", Recipe(epochs=6, batch_size=64, lr=0.05)),),
    reference=Dense(),
    arms=(Arm(methods=(RandomChannels(), L1Channels()), budgets=(Budget(0.5, epochs=2), Budget(0.25, epochs=2))),),
    seeds=(0, 1, 2),
    profiles=(CPU(batch=1),),
)
