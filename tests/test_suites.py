"""The suites that ship: complete, and with schedules in which every method works."""

from __future__ import annotations

from dataclasses import replace

from conftest import ROOT
from slimbench import discover, identity
from slimbench.core import Budget, Settings
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


def test_every_method_of_the_quick_suite_beats_chance_by_a_wide_margin(store):
    """One seed, not measured: the dense networks near their best, every compressed one at least half right."""
    suite = replace(discover.suite("quick"), seeds=(0,), profiles=())
    outcome = run(suite, Settings(), Options(jobs=2), store, PlainView())
    assert outcome.failed == 0
    for record in store.records():
        assert record.status == "ok", (record.label, record.reason)
        (top1,) = record.quality.values()
        assert top1.value > (95 if record.cell["reference"] else 70), (record.label, top1.value)
        assert top1.numerator / top1.denominator == top1.value / 100
        assert record.splits == {"train": 1200, "val": 197, "test": 400}


def test_every_suite_plans():
    """Each dense reference comes before what starts from it, and no id twice."""
    for suite in discover.suites().values():
        cells = plan(suite, Settings())
        ids = [identity.cell_id(cell) for cell in cells]
        assert len(set(ids)) == len(ids)
        for index, cell in enumerate(cells):
            assert cell.reference is None or identity.cell_id(cell.reference) in ids[:index]


def test_a_filter_keeps_what_it_names():
    """Methods by class with the suite's budgets, shares, seeds; an unknown mix of them is still planned."""
    quick = discover.suite("quick")
    part = Filter(methods=(discover.make("methods", "l1_channels(round_to=8)"),), keeps=(0.3, 0.6), seeds=(5,)).of(
        quick
    )
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


def test_a_recipe_is_refined_where_it_is_typed():
    """The same id as the task made in Python, so `bench train --epochs` and `bench run --task` meet."""
    from slimbench.tasks.cifar import CIFAR10

    typed = discover.make("tasks", "cifar10(recipe={'epochs': 30})")
    assert typed == CIFAR10(recipe=replace(CIFAR10.recipe, epochs=30))


def test_suite_files_say_what_they_are():
    """A docstring each."""
    for path in (ROOT / "benchmarks").glob("[a-z]*.py"):
        assert path.read_text().startswith('"""'), path.name
