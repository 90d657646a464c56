"""The suites that ship: complete, and with schedules in which every method works."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conftest import ROOT
from slimbench import discover, identity
from slimbench.core import Budget, MissingDataError, Settings, UserError
from slimbench.plan import Filter, plan
from slimbench.progress import PlainView
from slimbench.run import Options, run


def ours(kind: str) -> set[str]:
    """Declared names of the plug-ins that ship."""
    return {n for n, c in discover.found(kind).items() if c.__module__.startswith("slimbench.")}


def test_the_quick_suite_has_every_method_and_profile():
    """`bench run --all` means all: a new file in the folder must join."""
    quick = discover.suite("quick")
    methods = {type(method).name for arm in quick.arms for method in arm.methods} | {type(quick.reference).name}
    assert methods == ours("methods")
    assert {type(profile).name for profile in quick.profiles} == ours("hardware_profiles")


# Headline on test: chance (mIoU of "all texture"; bicubic's PSNR-Y), and the least for dense and compressed networks.
LEAST = {"digits": (10.0, 95.0, 70.0), "texture_digits": (7.7, 40.0, 17.0), "photos": (29.80, 30.4, 30.1)}
SPLITS = {"digits": (1200, 197, 400), "texture_digits": (240, 60, 180)}


@pytest.mark.long
@pytest.mark.timeout(1800)  # a whole task of the suite, on cores that other tests use as well
@pytest.mark.parametrize("name", sorted(LEAST))
def test_every_method_of_the_quick_suite_beats_chance_by_a_wide_margin(store, name):
    """One seed, not measured: the dense networks near their best, every compressed one far from chance."""
    quick = discover.suite("quick")
    suite = replace(quick, seeds=(0,), profiles=(), tasks=tuple(task for task in quick.tasks if task.name == name))
    outcome = run(suite, Settings(), Options(jobs=2), store, PlainView())
    assert outcome.failed == 0
    chance, dense, least = LEAST[name]
    for record in store.records():
        assert record.status == "ok", (record.label, record.reason)
        score = next(iter(record.quality.values()))
        assert score.value > (dense if record.cell["reference"] else least) > chance, (record.label, score.value)
        scale = 1 if name == "photos" else 100
        assert score.numerator / score.denominator == pytest.approx(score.value / scale)
        if name in SPLITS:
            assert tuple(record.splits[split] for split in ("train", "val", "test")) == SPLITS[name]


def test_the_quick_suite_has_a_task_of_each_family():
    """The embedded ones, which need no data."""
    assert {task.name for task in discover.suite("quick").tasks} == set(LEAST)
    assert len({task.family for task in discover.suite("quick").tasks}) == 3


def test_every_suite_plans(real_data):
    """Each dense reference comes before what starts from it, and no id twice."""
    planned = set()
    for suite in discover.suites().values():
        try:
            cells = plan(suite, Settings())
            ids = [identity.cell_id(cell) for cell in cells]
        except MissingDataError:
            continue  # an id needs the data
        planned.add(suite.name)
        assert len(set(ids)) == len(ids)
        for index, cell in enumerate(cells):
            assert cell.reference is None or identity.cell_id(cell.reference) in ids[:index]
    assert planned >= {"quick", "nightly", "cifar10", "segmentation", "super_resolution", "gpp-cifar"}


def test_a_filter_keeps_what_it_names():
    """Methods by class with the suite's budgets, shares, seeds; an unknown mix of them is still planned."""
    quick = discover.suite("quick")
    rounded, digits = discover.make("methods", "l1_channels(round_to=8)"), discover.make("tasks", "digits")
    part = Filter(methods=(rounded,), keeps=(0.3, 0.6), seeds=(5,), tasks=(digits,)).of(quick)
    cells = plan(part, Settings())
    assert [identity.cell_label(cell).split(" ", 1)[1] for cell in cells] == [
        "dense dense seed 5",
        "l1_channels(round_to=8) 0.3 macs seed 5",
        "l1_channels(round_to=8) 0.6 macs seed 5",
    ]
    assert cells[1].budget == Budget(0.3, epochs=8)
    sparse = Filter(methods=(discover.make("methods", "magnitude_weights"),)).of(quick)
    compressed = [cell for cell in plan(sparse, Settings()) if cell.reference]
    assert {cell.budget.resource for cell in compressed} == {"prunable_nonzero"}


def test_a_share_that_a_suite_has_is_for_the_methods_that_have_it():
    """Half of the MACs asks nothing of single weights, unless they are named; a share of nobody's is for all."""
    suite = discover.suite("cifar10-reduced")

    def points(*keeps: float, methods: tuple[object, ...] = ()) -> list[list[float]]:
        return [[budget.keep for budget in arm.budgets] for arm in Filter(methods=methods, keeps=keeps).of(suite).arms]

    assert points(0.5, 0.1) == [[0.5], [0.1], [0.1]]
    assert points(0.3, 0.3) == [[0.3], [0.3], [0.3]]
    layers, weights = (discover.make("methods", name) for name in ("l1_channels", "magnitude_weights"))
    assert points(0.5, 0.1, methods=(layers, weights)) == [[0.5], [0.1]]
    assert points(0.5, 0.1, methods=(weights,)) == [[0.1]], "whatever else is named"
    assert points(0.5, methods=(layers, weights)) == [[0.5], [0.5]], "none that was named is left out"
    assert points(0.5, 0.3, methods=(layers,)) == [[0.5, 0.3]]
    wide = Filter(keeps=(0.01,)).of(suite).arms[-1].budgets
    assert [budget.tolerance for budget in wide] == [0.1], "what else an operating point says stays"


def test_the_epochs_of_a_filter_are_those_of_every_budget():
    """Not of the dense network; what else an operating point says stays, and what differed in them alone is one."""
    suite = discover.suite("quick")
    halves = (Budget(0.5, epochs=8), Budget(0.5, epochs=4), Budget(0.2, tolerance=0.1))
    suite = replace(suite, arms=(replace(suite.arms[0], budgets=halves),))
    asked = Filter(epochs=3).of(suite)
    assert asked.arms[0].budgets == (Budget(0.5, epochs=3), Budget(0.2, epochs=3, tolerance=0.1))
    assert Filter(epochs=0).of(suite).arms[0].budgets[0] == Budget(0.5)
    assert next(cell.budget for cell in plan(asked, Settings()) if not cell.reference) == Budget(1.0)
    assert Filter().of(suite) == suite


def test_impossible_shares_are_refused_whoever_has_them():
    """The dense network alone has none."""
    dense = (discover.make("methods", "dense"),)
    for part, words in ((Filter(methods=dense, keeps=(0,)), "keep=0"), (Filter(methods=dense, epochs=-1), "epochs=-1")):
        with pytest.raises(UserError, match=f"{words} is impossible"):
            part.of(discover.suite("quick"))


def test_a_recipe_is_refined_where_it_is_typed():
    """The same id as the task made in Python, so `bench train --epochs` and `bench run --task` meet."""
    from slimbench.tasks.cifar import CIFAR10

    typed = discover.make("tasks", "cifar10(recipe={'epochs': 30})")
    assert typed == CIFAR10(recipe=replace(CIFAR10.recipe, epochs=30))


@pytest.mark.parametrize("name", ["dcss-edsr", "dcss-edsr-x4", "dcss-super-resolution", "dcss-super-resolution-x4"])
def test_a_pass_has_fewer_patches_at_a_larger_scale(name):
    """120 epochs of 128,000 patches, as the authors have, of 800 images of DIV2K's usual size."""
    (task,) = discover.suite(name).tasks
    side = task.patch  # of the small image
    patches = 800 * (2040 // task.scale // side) * (1356 // task.scale // side)
    assert task.recipe.epochs * patches / 128_000 == pytest.approx(120, rel=0.03)


def test_suite_files_say_what_they_are():
    """A docstring each."""
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        assert path.read_text().startswith('"""'), path.name
