"""DCSS (Zhao and Lee, arXiv 2010.14714): width search by gradients, against uniform width, and carried to other tasks.

The paper's tables are not at hand; what is judged are its claims: searched widths against uniform ones at equal MACs,
and for segmentation and super resolution widths searched on the task itself against widths searched on classification.

``dcss-cifar``, ``dcss-imagenet``, ``dcss-edsr``, ``dcss-segmentation`` and ``dcss-super-resolution`` have the authors'
epochs; ``-x4`` is that scale, where a pass has a quarter of the patches. ``-reduced`` is for two cores: fewer epochs,
and other data where theirs are large; warm-up, search and training stay 1 : 1 : 4. ``-distilled`` has the dense network
as a teacher, for the controls as well; the authors' loss, CE + 4 KL, is halved there, as if it had half the learning
rate and twice the weight decay. Tasks whose data are not at hand are left out by naming the others:
``bench run dcss-cifar --task "cifar10(...)"``.
"""

from dataclasses import replace

from slimbench.core import Arm, Budget, Method, Recipe, Suite, Task
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.uniform_width import UniformWidth
from slimbench.tasks.cifar import CIFAR10, CIFAR100
from slimbench.tasks.digits import Digits
from slimbench.tasks.div2k import DIV2K, T91
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.tasks.voc import VOC2012

CONTROLS = (UniformWidth("scratch-B"), UniformWidth("scratch-E"), L1Channels())
SEEDS = (0, 1, 2)

# CIFAR: 150 : 150 : 600 epochs. EDSR: 20 : 20 : 120 epochs of 128,000 patches: of ours on DIV2K 64 at x2, 274 at x4.
# ImageNet: 50 : 50 : 120. The authors' segmentation is unknown: 80 epochs, as is usual.
CIFAR = Recipe(epochs=600, batch_size=256, weight_decay=5e-4)
IMAGENET = Recipe(epochs=120, batch_size=256, weight_decay=1e-4)
EDSR = {
    scale: Recipe(epochs=epochs, batch_size=16, optimizer="adam", lr=2e-4, weight_decay=0.0)
    for scale, epochs in ((2, 64), (4, 274))
}
VOC = replace(VOC2012.recipe, epochs=80)

ON_CIFAR = DCSS(norm_momentum=0.01)
ON_IMAGENET = DCSS(warm_up=50, search=50, train=120, hold_out=0.04, norm_momentum=0.01)
ON_EDSR = DCSS(warm_up=20, search=20, train=120, search_lr=0.25, gate_lr=5e-5, weight_temperature=1.0)
CARRIED_TO_EDSR = replace(ON_CIFAR, warm_up=20, search=20, train=120, source=CIFAR10("edsr-baseline", CIFAR))


def beyond(method: DCSS, epochs: float) -> float:
    """Passes of warm-up and search where the training of the slim network takes as many epochs as the dense one's."""
    return round((method.warm_up + 2 * method.search) * (1 - method.hold_out) * epochs / method.train, 3)


def suite(name: str, title: str, tasks: tuple[Task, ...], methods: tuple[DCSS, ...], *others: Method) -> Suite:
    """One comparison at half the MACs. All tasks have one recipe, and all methods one total of training."""
    budget = Budget(0.5, epochs=beyond(methods[0], tasks[0].recipe.epochs))
    arms = (Arm((*methods, *others), (budget,)),)
    return Suite(name=name, title=f"DCSS: {title}", tasks=tasks, reference=Dense(), arms=arms, seeds=SEEDS)


def cifar(recipe: Recipe) -> tuple[Task, ...]:
    """The authors' three networks on both sets."""
    networks = ("preresnet20", "preresnet32", "preresnet56")
    return tuple(task(network, recipe) for task in (CIFAR10, CIFAR100) for network in networks)


def carried(method: DCSS, source: Task) -> tuple[DCSS, DCSS]:
    """Searched on the task itself; searched on classification and carried over."""
    return method, replace(method, source=source)


def edsr(name: str, title: str, methods: tuple[DCSS, ...]) -> tuple[Suite, ...]:
    """EDSR-baseline on DIV2K, a suite a scale: each has its own number of passes."""
    return tuple(
        suite(name + end, title.format(scale), (DIV2K("edsr-baseline", scale, EDSR[scale]),), methods, *CONTROLS)
        for scale, end in ((2, ""), (4, "-x4"))
    )


REDUCED = replace(CIFAR10.recipe, epochs=12)
IMAGENETS = tuple(ImageNet(f"imagenet-preresnet{depth}", IMAGENET) for depth in (18, 50))

suites = (
    suite(
        "dcss-cifar",
        "the authors' networks on CIFAR-10 and CIFAR-100",
        cifar(CIFAR),
        (ON_CIFAR, replace(ON_CIFAR, discretise="argmax"), replace(ON_CIFAR, penalty=1.0)),
        *CONTROLS,
    ),
    suite(
        "dcss-cifar-distilled",
        "the same, taught by the dense network",
        cifar(replace(CIFAR, distillation=0.5)),  # CE + 4 KL at temperature 2, halved
        (ON_CIFAR,),
        *CONTROLS,
    ),
    suite("dcss-cifar-reduced", "3 : 3 : 12 epochs on CIFAR-10 and CIFAR-100", cifar(REDUCED), (DCSS(),), *CONTROLS),
    suite("dcss-imagenet", "ResNet-18 and ResNet-50 on ImageNet", IMAGENETS, (ON_IMAGENET,), *CONTROLS),
    suite(
        "dcss-imagenet-reduced",
        "ResNet-18 on ImageNet, 4 : 4 : 16 epochs",
        (ImageNet("imagenet-preresnet18", replace(IMAGENET, epochs=16)),),
        (DCSS(hold_out=0.04),),
        *CONTROLS,
    ),
    *edsr("dcss-edsr", "EDSR-baseline x{} on DIV2K", (ON_EDSR,)),
    suite(
        "dcss-edsr-reduced",
        "EDSR-small x2 and x4 on T91 and BSDS500, 4 : 4 : 16 epochs",
        tuple(T91(scale=scale, recipe=replace(T91.recipe, epochs=16)) for scale in (2, 4)),
        (DCSS(),),
        *CONTROLS,
    ),
    suite(
        "dcss-segmentation",
        "widths for VOC 2012 searched there, and on ImageNet",
        (VOC2012("deeplabv3-resnet50", VOC),),
        carried(DCSS(), ImageNet("imagenet-resnet50", IMAGENET)),
        *CONTROLS,
    ),
    suite(
        "dcss-segmentation-reduced",
        "widths for texture_digits searched there, and on digits",
        (TextureDigits(),),
        carried(DCSS(), Digits("resnet14-b")),
        *CONTROLS,
    ),
    *edsr(
        "dcss-super-resolution",
        "widths for EDSR x{} on DIV2K searched there, and on CIFAR-10",
        (ON_EDSR, CARRIED_TO_EDSR),  # each searched as the authors search there
    ),
    suite(
        "dcss-super-resolution-reduced",
        "widths for EDSR-tiny on photos searched there, and on digits",
        (Photos(),),
        carried(DCSS(), Digits("edsr-tiny")),
        *CONTROLS,
    ),
)
