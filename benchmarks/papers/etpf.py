"""ETPF (Liu et al., arXiv 2110.10876): functions against each other, at the same widths and the same retraining.

That isolates what the paper is about. Its tables are not at hand; what is judged is whether evolved functions rank
above their seeds and the baselines, on the tasks that they were evolved on and on others.

``etpf-lenet`` and ``etpf-vgg`` have the authors' counts, rounds and epochs, ``etpf-resnet`` their uniform 40 % on other
networks, ``etpf-imagenet`` the same by torchvision's recipe (theirs is unknown). ``-reduced`` is for two cores.
``etpf-windows`` is our extension to segmentation and super resolution. ``etpf-proxy`` has the trials of ``bench
evolve``, and the same with the dense network's whole schedule: do short trials rank functions as long ones do?

``etpf-resnet`` is near to the authors' networks and recipe, not equal: its ResNets are post-activation, with shortcuts
that skip pixels and pad channels with zeros (theirs: pre-activation, pooled and padded), and L2 is 8e-4 of all weights
throughout (theirs: of convolutions and linear layers, and 1e-3 in retraining).

Everywhere the rate falls by our cosine and the last epoch counts. Theirs falls in steps (VGG: by 0.28 at epochs 40 and
80, from the best weights so far; ResNets: to a tenth every 80), and the best on test is kept. Of both VGGs
``vgg16-relu-bn-fc`` alone has their dropout.
"""

from dataclasses import replace

from slimbench.core import Arm, Budget, Method, Recipe, Suite, Task
from slimbench.methods.dense import Dense
from slimbench.methods.etpf.functions import BASELINES, EVOLVED, INSPIRED, SEEDS
from slimbench.methods.etpf.method import ETPF
from slimbench.methods.etpf.schedules import trial
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.digits import Digits
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.mnist import MNIST
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

EVERY = (*SEEDS, *EVOLVED, *INSPIRED, *BASELINES)
OF_THE_PAPER = (*SEEDS, "GA_Func1", "GA_Func2", "GA_Func3", "GA_Func4")
SEEDS_OF_CELLS = (0, 1, 2)

# Adam 5e-4, batches of 200, 100 epochs a round, no augmentation; L2 7e-5 of all weights, theirs of linear ones
LENET = Recipe(
    epochs=100, batch_size=200, optimizer="adam", lr=5e-4, fine_tune_lr=5e-4, weight_decay=7e-5, augment=False
)
VGG = Recipe(epochs=200, fine_tune_lr=6e-3, weight_decay=1e-3)  # 100 epochs a round
RESNET = Recipe(epochs=200, fine_tune_lr=0.1, weight_decay=8e-4)  # retrained from the full rate, for as long
IMAGENET = Recipe(epochs=90, batch_size=256, lr=0.1, fine_tune_lr=0.01, weight_decay=1e-4)


def suite(
    name: str, title: str, tasks: tuple[Task, ...], method: ETPF, *budgets: Budget, functions: tuple[str, ...] = EVERY
) -> Suite:
    """Every function at the operating points of one method."""
    methods: tuple[Method, ...] = tuple(replace(method, function=function) for function in functions)
    return Suite(name, f"ETPF: {title}", tasks, Dense(), (Arm(methods, budgets),), SEEDS_OF_CELLS)


def tried(name: str, title: str, task: Task, epochs: float) -> Suite:
    """Every function as ``bench evolve`` tries it on a task, but with all of train and so many epochs."""
    method, budget = trial(task, 0.35, epochs, None)
    return suite(name, title, (task,), method, budget)


def proxy(name: str, task: Task) -> Suite:
    """Trials of the evolution, and the same with four times the epochs."""
    method, budget = trial(task, 0.35, None, 2000)
    title = f"{task.name}, does the proxy rank as the whole schedule does"
    longer = replace(budget, epochs=task.recipe.epochs)
    return suite(name, title, (task,), method, budget, longer, functions=OF_THE_PAPER)


UNIFORM = ETPF(ratio=0.4)
HALF = Budget(0.505, epochs=200)  # what uniform 40 % leaves of ResNet-56 (50.6 %) and ResNet-110 (50.4 %)
VGGS = tuple(CIFAR10(network, VGG) for network in ("vgg16-bn-fc", "vgg16-relu-bn-fc"))

suites = (
    tried("etpf-lenet", "LeNet-5 5-11-40 on MNIST", MNIST(recipe=LENET), 300),
    tried("etpf-lenet-reduced", "the same, 2 epochs a round", MNIST(recipe=replace(LENET, epochs=10)), 6),
    *(
        tried(f"etpf-vgg-{place}", f"VGG-16 40-40-78-78-154x3-308x7 on CIFAR-10, {task.network}", task, 200)
        for place, task in zip(("bn-relu", "relu-bn"), VGGS, strict=True)
    ),
    suite(
        "etpf-resnet",
        "ResNet-56 and ResNet-110 on CIFAR-10 and CIFAR-100, uniform 40 %",
        tuple(task(network, RESNET) for task in (CIFAR100, CIFAR10) for network in ("resnet56", "resnet110")),
        UNIFORM,
        HALF,
    ),
    suite(
        "etpf-resnet-reduced",
        "ResNet-20 with published weights on CIFAR-10, uniform 40 %, 1 epoch",
        (CIFAR10("resnet20", weights="akamaster"),),
        UNIFORM,
        Budget(0.5148, epochs=1),
    ),
    suite(
        "etpf-imagenet",
        "ResNet-50 on ImageNet, uniform 40 %",
        (ImageNet("imagenet-resnet50", IMAGENET),),
        UNIFORM,
        Budget(0.47, epochs=30),
        functions=OF_THE_PAPER,
    ),
    suite(
        "etpf-windows", "segmentation and super resolution", (TextureDigits(), Photos()), ETPF(), Budget(0.5, epochs=6)
    ),
    proxy("etpf-proxy-classification", Digits()),
    proxy("etpf-proxy-segmentation", TextureDigits()),
)
