"""What the suites on real data share: every method and control at five operating points."""

from dataclasses import replace

from slimbench.core import Arm, Budget, HardwareProfile, Suite, Task
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

REFERENCE = Dense()
KEEPS = (0.5, 0.35, 0.25, 0.18, 0.125)
SPARSE_KEEPS = (0.1, 0.05, 0.01)
FOUND_CELLS = DASS("dass-99", 8, 4)  # of the reduced suites: four cells that the authors found, in place of a search


def arms(epochs: float, cells: DASS = DASS()) -> tuple[Arm, ...]:
    """Channels and layers by their MACs, single weights by their number; ``epochs`` each after the cut."""
    smaller = (
        RandomChannels(),
        L1Channels(),
        L1Channels(ranking="global"),
        UniformWidth("scratch-E"),
        UniformWidth("scratch-B"),
        DCSS(),
        ETPF(),
        ETPF(rule="budget"),
        ResConv(),
        ResConvFromScratch(),
        GPP(),
        GPP(push="none"),
        GPPGrown(),
    )
    sparser = (MagnitudeWeights("layer"), MagnitudeWeights("global"), SparseScores())
    sparse = tuple(Budget(keep, "prunable_nonzero", epochs=epochs) for keep in SPARSE_KEEPS)
    return (
        Arm(smaller, tuple(Budget(keep, epochs=epochs) for keep in KEEPS)),
        Arm(sparser, sparse),
        # layers of few weights keep one more than their share, which at 1 % of a small network is some per cent
        Arm((cells,), tuple(replace(budget, tolerance=0.1) for budget in sparse)),
    )


def suite(
    name: str,
    title: str,
    tasks: tuple[Task, ...],
    epochs: float,
    *,
    profiles: tuple[HardwareProfile, ...],
    cells: DASS = DASS(),
) -> Suite:
    """All arms on these tasks, three seeds."""
    return Suite(name, title, tasks, REFERENCE, arms(epochs, cells), (0, 1, 2), profiles)


def reduced(
    name: str, title: str, task: Task, epochs: float, *, profiles: tuple[HardwareProfile, ...]
) -> tuple[Suite, Suite]:
    """``name-reduced`` and ``name-reduced-rewound``: short, with four cells that DASS's authors found.

    Rewound, what inherits weights trains at the rate of fresh ones, not at a lower one (after Renda et al., 2020).
    """
    full = replace(task.recipe, fine_tune_lr=task.recipe.lr)
    rewound: Task = replace(task, recipe=full)  # type: ignore[type-var]  # tasks are dataclasses
    short = f"{title}, {task.recipe.epochs:g} + {epochs:g} epochs"
    return (
        suite(f"{name}-reduced", short, (task,), epochs, profiles=profiles, cells=FOUND_CELLS),
        suite(
            f"{name}-reduced-rewound",
            f"{short} at the full rate",
            (rewound,),
            epochs,
            profiles=profiles,
            cells=FOUND_CELLS,
        ),
    )
