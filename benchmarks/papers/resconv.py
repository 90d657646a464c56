"""ResConv (Xu et al., arXiv 2011.14356): layers against channels at equal MACs, and its claims about training.

Claimed: ResNet-110 on CIFAR-10 loses 0.13 points with 65.5 % of its FLOPs and 55.5 % of its parameters removed; little
or no retraining is needed at low rates; deep plain networks train with residual convolutions; layers removed save more
time and memory than channels. The equations and every schedule are ours: a gap says nothing about the authors' numbers.

``resconv-resnet`` has the headline's point, ``resconv-vgg`` half of VGG-16, ``resconv-no-retraining`` low rates with
and without, ``resconv-plain`` networks with and without shortcuts, trained with and without residual convolutions.
``-reduced`` is for two cores; its ResNet-56 starts from published weights.
"""

from dataclasses import replace

from slimbench.core import Arm, Budget, Recipe, Suite, Task
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.resconv import ResConv, ResConvFromScratch
from slimbench.methods.uniform_width import UniformWidth
from slimbench.tasks.cifar import CIFAR10

SEEDS = (0, 1, 2)
PROFILES = (CPU(threads=1, batch=1), CPU(threads=1, batch=32))
RECIPE = Recipe(epochs=200, fine_tune_lr=0.01, weight_decay=1e-4)
HEADLINE = Budget(0.345, params_keep=0.445, epochs=80)
RATES = (0.9, 0.8, 0.7)


def suite(name: str, title: str, tasks: tuple[Task, ...], *arms: Arm, profiles: tuple[CPU, ...] = PROFILES) -> Suite:
    """Three seeds of some arms."""
    return Suite(name, f"ResConv: {title}", tasks, Dense(), arms, SEEDS, profiles)


def headline(budget: Budget, *others: ResConv | ResConvFromScratch) -> tuple[Arm, ...]:
    """Layers to MACs and parameters at once; channels, and a narrower network, to the same MACs."""
    macs = replace(budget, params_keep=None)
    channels = (L1Channels(), UniformWidth("scratch-E"), UniformWidth("scratch-B"))
    return Arm((ResConv(), *others), (budget,)), Arm((ResConv(), *channels), (macs,))


def networks(recipe: Recipe, *names: str) -> tuple[Task, ...]:
    """On CIFAR-10."""
    return tuple(CIFAR10(name, recipe) for name in names)


SCRATCH = (ResConvFromScratch(), ResConvFromScratch(variant="R1"))  # which differ where there are shortcuts
UNTUNED = ResConv(sparse_share=1.0)  # its budget goes into the search, and nothing is trained after the cut
LOW = Arm((UNTUNED, ResConv(), L1Channels()), tuple(Budget(keep, epochs=40) for keep in RATES))
TRAINED = Arm((ResConvFromScratch(),), (Budget(1.0),))

suites = (
    suite(
        "resconv-resnet",
        "ResNet-56 and ResNet-110 on CIFAR-10 at the headline's point",
        networks(RECIPE, "resnet56", "resnet110"),
        *headline(HEADLINE, ResConv(form="B"), ResConv(penalty="macs"), *SCRATCH),
    ),
    suite(
        "resconv-resnet-reduced",
        "ResNet-56 with published weights at the headline's point, 3 epochs",
        (CIFAR10("resnet56", weights="akamaster"),),
        Arm((ResConv(),), (replace(HEADLINE, epochs=3),)),
        Arm((ResConv(), L1Channels()), (Budget(0.345, epochs=3),)),
    ),
    suite(
        "resconv-vgg",
        "VGG-16 on CIFAR-10",
        networks(replace(RECIPE, weight_decay=5e-4), "vgg16-bn"),
        Arm((ResConv(), ResConvFromScratch(), L1Channels()), (Budget(0.5, epochs=80),)),
    ),
    suite("resconv-no-retraining", "low rates", networks(RECIPE, "resnet56", "vgg16-bn"), LOW),
    suite(
        "resconv-no-retraining-reduced",
        "low rates of ResNet-56 with published weights, 2 epochs",
        (CIFAR10("resnet56", weights="akamaster"),),
        Arm((UNTUNED, ResConv()), (Budget(0.7, epochs=2), Budget(0.9, epochs=2))),
    ),
    suite(
        "resconv-plain",
        "plain networks and ResNets, trained with and without residual convolutions",
        networks(RECIPE, "plain20", "plain56", "resnet20", "resnet56"),
        TRAINED,
    ),
    suite(
        "resconv-plain-reduced",
        "the same, 6 epochs",
        networks(replace(RECIPE, epochs=6), "plain20", "plain56", "resnet20"),
        TRAINED,
        profiles=(),
    ),
)
