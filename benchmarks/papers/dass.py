"""DASS (Mousavi et al., ACM TECS 2023): cells made for sparse weights, against hand-made networks pruned alike.

Claimed: a sparse MobileNetV2 (99 % by the authors' scripts) reaches 73.44 % on CIFAR-10, a DASS network 81.35 %, with
inference 3.87 times as fast on a CPU. Which of its sizes that is, the abstract does not say: claims are judged on
"small", which is that of the DARTS cells too.

Every task is a dense peer's: dense, pruned by learned scores, and beside it networks of cells, whose share is of their
own weights and whose MACs and speed are told against the peer. ``dass-cifar`` has the cells that the authors found
(arm A), ``dass-cifar-search`` searches (arm B), ``dass-imagenet`` is the authors' recipe there.
``dass-cifar-thinned`` is for two cores: a MobileNetV2 of an eighth of its widths and cells as narrow.
"""

from dataclasses import replace

from slimbench.core import Arm, Budget, Recipe, Suite, Task
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dass import DASS, SparseScores
from slimbench.methods.dense import Dense
from slimbench.methods.magnitude_weights import MagnitudeWeights
from slimbench.tasks.cifar import CIFAR10
from slimbench.tasks.imagenet import ImageNet

SEEDS = (0, 1, 2)
PROFILES = (CPU(threads=1, batch=1), CPU(threads=1, batch=32))
RECIPE = Recipe(epochs=600, lr=0.1, fine_tune_lr=0.01, weight_decay=3e-4, clip_norm=5.0)
IMAGENET = Recipe(epochs=90, batch_size=8, lr=0.1, fine_tune_lr=0.01, weight_decay=3e-5)

# 600 : 20 : 200 epochs; a search of 100 : 50 : 100 on halves takes 225 passes over train besides, in second order 525
FOUND = DASS("dass-99", 30, 16, pretrain=600, prune=20, finetune=200, auxiliary=0.4, drop_path=0.2)
SIZES = {"tiny": (30, 16), "small": (36, 20), "medium": (86, 12), "large": (108, 14)}
SEARCHED = replace(
    FOUND,
    genotype="",
    search_channels=16,
    search_cells=8,
    search_pretrain=100,
    search_prune=50,
    search_finetune=100,
    search_batch_size=32,
    unrolled=True,
)
SCORES = SparseScores(prune=20, finetune=200)
AFTER, FIRST_ORDER, SECOND_ORDER = 220.0, 225.0, 525.0


def sparse(epochs: float, *keeps: float) -> tuple[Budget, ...]:
    """Shares of single weights. Small layers keep one weight more than theirs: at 1 % some per cent."""
    return tuple(Budget(keep, "prunable_nonzero", epochs=epochs, tolerance=0.1) for keep in keeps)


def suite(name: str, title: str, tasks: tuple[Task, ...], *arms: Arm) -> Suite:
    """Three seeds, timed."""
    return Suite(name, f"DASS: {title}", tasks, Dense(), arms, SEEDS, PROFILES)


def cells(*genotypes: str) -> tuple[DASS, ...]:
    """Networks of the size "tiny"."""
    return tuple(replace(FOUND, genotype=genotype) for genotype in genotypes)


LARGER = tuple(replace(FOUND, channels=width, cells=count) for width, count in list(SIZES.values())[1:])
DARTS = replace(FOUND, genotype="darts", channels=36, cells=20)
PEERS = tuple(CIFAR10(network, RECIPE) for network in ("mobilenetv2", "resnet18-cifar"))

# Thinned: 2 : 1 : 1 epochs, four cells of 8 channels, no auxiliary head and no dropped paths, as fits few epochs.
THINNED = DASS("dass-99", 8, 4, pretrain=2, prune=1, finetune=1)
THIN = CIFAR10("mobilenetv2-eighth", replace(RECIPE, epochs=2, lr=0.1))

suites = (
    suite(
        "dass-cifar",
        "the authors' cells at 99, 95 and 90 % on CIFAR-10, against MobileNetV2 and ResNet-18",
        PEERS,
        Arm((SCORES, MagnitudeWeights(), DARTS), sparse(AFTER, 0.01, 0.05, 0.1)),
        Arm((FOUND, *LARGER, *cells("dass-one-loop")), sparse(AFTER, 0.01)),
        Arm(cells("dass-95"), sparse(AFTER, 0.05)),
        Arm(cells("dass-90"), sparse(AFTER, 0.1)),
        Arm((FOUND, DARTS), (Budget(1.0, "prunable_nonzero", epochs=AFTER),)),
    ),
    suite(
        "dass-cifar-search",
        "cells searched on CIFAR-10 at 99, 95 and 90 %",
        PEERS[:1],
        Arm((SEARCHED,), sparse(AFTER + SECOND_ORDER, 0.01, 0.05, 0.1)),
        Arm((replace(SEARCHED, unrolled=False),), sparse(AFTER + FIRST_ORDER, 0.01, 0.05, 0.1)),
        Arm((SCORES,), sparse(AFTER, 0.01, 0.05, 0.1)),
    ),
    suite(
        "dass-imagenet",
        "the authors' cells on ImageNet, 48 channels and 14 cells",
        (ImageNet("imagenet-mobilenetv2", IMAGENET),),
        Arm((DASS("dass-99", 48, 14, pretrain=90, prune=20, finetune=90),), sparse(110, 0.01)),
        Arm((SparseScores(prune=20, finetune=90),), sparse(110, 0.01)),
    ),
    suite(
        "dass-cifar-thinned",
        "a thinned pair at 99 %, 2 : 1 : 1 epochs",
        (THIN,),
        Arm((THINNED, replace(THINNED, genotype="darts")), sparse(2, 0.01)),
        Arm((SparseScores(prune=1, finetune=1),), sparse(2, 0.01)),
    ),
)
