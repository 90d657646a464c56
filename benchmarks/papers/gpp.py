"""GPP (Tian et al., arXiv 2009.13716): pushed and pruned networks against the companion paper's, which are only pruned.

The abstract gives no numbers, and neither loss nor schedule: what is judged is whether the push beats cross-entropy
alone at equal size, and both the same rates by L1 norm and at random (as the companion compared itself with Li et al.);
and whether grown Inception networks beat residual ones of equal MACs.

``gpp-cifar`` and ``gpp-imagenet`` have the companion's networks and a schedule of ours; ``gpp-threshold`` raises eta
until validation suffers, as the companion does; ``gpp-ladder`` trains Inception with 3, 6, 9 and 12 modules beside
ResNet-20, 32, 44 and 56, ``gpp-growth`` grows the first of them; ``gpp-mnist`` is fast; ``gpp-windows`` is our
extension. ``gpp-streams-reduced`` asks what it costs to keep residual streams: the companion had none. ``-reduced`` is
for two cores.
"""

from dataclasses import replace

from slimbench.core import Arm, Budget, Method, Recipe, Suite, Task
from slimbench.methods.dense import Dense
from slimbench.methods.gpp import GPP, GPPGrown
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.random_channels import RandomChannels
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.mnist import MNIST
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

SEEDS = (0, 1, 2)
RECIPE = Recipe(epochs=200, fine_tune_lr=0.01, weight_decay=5e-4)
IMAGENET = Recipe(epochs=90, batch_size=256, fine_tune_lr=0.01, weight_decay=1e-4)
FAST = Recipe(epochs=10, batch_size=100, optimizer="adam", lr=1e-3, fine_tune_lr=5e-4, weight_decay=1e-5, augment=False)

# five rounds of 30 epochs of push and 30 of retraining; the final retraining is of 110, the last round's 30 and 80 more
PAPER = GPP(rounds=5, push_share=0.5, final=4 / 3)
EPOCHS = 380.0
REDUCED = GPP(images=5000, push_share=0.8)  # 0.8 of 2 epochs are push, 1.2 the final retraining


def suite(name: str, title: str, tasks: tuple[Task, ...], *arms: Arm) -> Suite:
    """Three seeds of some arms."""
    return Suite(name, f"GPP: {title}", tasks, Dense(), arms, SEEDS)


def alone(method: GPP) -> GPP:
    """Cross-entropy alone: the companion's LDA."""
    return replace(method, push="none")


def compared(method: GPP) -> tuple[Method, ...]:
    """The push and its ablation, the companion, its rates by norm and at random, and the controls' own rates."""
    same_rates = (replace(alone(method), pick="l1"), replace(alone(method), pick="random"))
    return method, replace(method, push="eigen"), alone(method), *same_rates, L1Channels(), RandomChannels()


def points(epochs: float, *keeps: float) -> tuple[Budget, ...]:
    """Shares of MACs."""
    return tuple(Budget(keep, epochs=epochs) for keep in keeps)


LADDER = (*(f"inception{modules}" for modules in (3, 6, 9, 12)), *(f"resnet{depth}" for depth in (20, 32, 44, 56)))

suites = (
    suite(
        "gpp-cifar",
        "VGG-16 and Inception on CIFAR-10 and CIFAR-100",
        tuple(task(network, RECIPE) for task in (CIFAR10, CIFAR100) for network in ("vgg16-bn", "inception9")),
        Arm(compared(PAPER), points(EPOCHS, 0.5, 0.35, 0.25, 0.18)),
    ),
    suite(
        "gpp-cifar-reduced",
        "quarter-width VGG-16 on CIFAR-10, push against cross-entropy alone, 2 epochs",
        (CIFAR10("vgg16-bn-quarter", replace(RECIPE, epochs=4)),),
        Arm((REDUCED, alone(REDUCED)), points(2, 0.5, 0.25)),
    ),
    suite(
        "gpp-cifar-reduced-controls",
        "the same with the same rates by norm and at random",
        (CIFAR10("vgg16-bn-quarter", replace(RECIPE, epochs=4)),),
        Arm(compared(REDUCED), points(2, 0.5, 0.25)),
    ),
    suite(
        "gpp-streams-reduced",
        "residual streams kept and pruned, in ResNet-20 on CIFAR-10, 2 epochs at the full rate",
        (CIFAR10("resnet20", Recipe(epochs=6, weight_decay=5e-4, fine_tune_lr=0.1)),),
        Arm(
            (GPP(), alone(GPP()), GPP(streams=True), alone(GPP(streams=True))),
            points(2, 0.5, 0.25),
        ),
    ),
    suite(
        "gpp-threshold",
        "eta raised by 0.1 a round until validation loses 1 %",
        tuple(CIFAR100(network, RECIPE) for network in ("vgg16-bn", "inception9")),
        Arm(
            tuple(replace(method, eta=0.1, rounds=10) for method in (PAPER, alone(PAPER))),
            points(680, 1.0),  # the share comes out as it does: those cells are off budget
        ),
    ),
    suite(
        "gpp-ladder",
        "Inception beside ResNets of equal MACs",
        tuple(CIFAR10(network, RECIPE) for network in LADDER),
        Arm((), ()),  # the dense networks alone
    ),
    suite(
        "gpp-ladder-reduced",
        "its first rung, 6 epochs",
        tuple(CIFAR10(network, replace(RECIPE, epochs=6)) for network in ("inception3", "resnet20")),
        Arm((), ()),
    ),
    suite(
        "gpp-growth",
        "three modules grown to at most twelve, pruned to what three cost",
        (CIFAR10("inception3", RECIPE),),
        Arm((GPPGrown(steps=3, then=PAPER), PAPER), points(EPOCHS, 1.0)),
    ),
    suite(
        "gpp-imagenet",
        "GoogLeNet's nine modules, and Inception-88",
        tuple(ImageNet(f"imagenet-inception{modules}", IMAGENET) for modules in (9, 28)),
        Arm((replace(PAPER, rounds=3), alone(replace(PAPER, rounds=3)), L1Channels()), points(90, 0.62, 0.44)),
    ),
    suite(
        "gpp-mnist",
        "MLP and LeNet-5 on MNIST",
        tuple(MNIST(network, FAST) for network in ("mlp", "lenet5")),
        Arm(compared(GPP()), points(6, 0.25, 0.1)),
    ),
    suite(
        "gpp-windows",
        "segmentation and super resolution",
        (TextureDigits(), Photos()),
        Arm(compared(GPP()), points(8, 0.5)),
    ),
)
