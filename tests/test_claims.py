"""Claims of papers: complete, sourced, and judged by records alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conftest import ROOT
from made import DENSE_COST, measured, record
from slimbench import discover, identity
from slimbench.benchmarks.papers.claims import DASS, GPP, HEADLINE, PAPERS, RESCONV
from slimbench.core import Arm, Budget, Recipe, Spent
from slimbench.discover import found as plugins
from slimbench.methods import dass, gpp
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.resconv import ResConv, ResConvFromScratch
from slimbench.reports import audit, judging, papers, render
from slimbench.reports.claim import Claim, Paper, Place, Select
from slimbench.reports.rows import rows
from slimbench.statistics import Difference
from slimbench.store import Store
from slimbench.tasks.cifar import CIFAR10
from slimbench.tasks.digits import Digits
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.photos import Photos

BETTER = Claim("layers beat channels", "somewhere", "better", Select("resconv"), Select("l1_channels"))
WOBBLE = (0.0, 0.1, -0.1)


def pair(ours, theirs, seeds=3, **more):
    """Two methods on digits around two means, their differences wobbling by a tenth."""
    records = []
    for s in range(seeds):
        records += [record(Dense(), seed=s, **more), record(L1Channels(), 0.5, s, theirs, 500, **more)]
        records += [record(ResConv(), 0.5, s, ours + WOBBLE[s], 500, **more)]
    return records


def judged(claim, records, taken=()):
    """The findings of one claim."""
    return judging.findings(claim, rows(records, list(taken)))


def verdicts(claim, records, taken=()):
    return [finding.verdict for finding in judged(claim, records, taken)]


def test_the_whole_interval_decides():
    """Clearly above, clearly below, across."""
    assert verdicts(BETTER, pair(90.0, 88.0)) == ["supported"]
    assert verdicts(BETTER, pair(88.0, 90.0)) == ["not supported"]
    assert verdicts(BETTER, pair(88.1, 88.0)) == ["cannot tell"]


def test_one_network_of_several_seeds_decides_nothing():
    """Published weights are one, however many seeds; the auditor says so too."""
    claim = Claim("it reaches 90", "somewhere", "90", Select("l1_channels"), least=90.0)
    alike = [replace(r, artifact="n") for r in pair(95.0, 95.0) if "l1_channels" in r.label]
    (finding,) = judged(claim, alike)
    assert (finding.estimate.n, finding.verdict) == (1, "cannot tell")
    evidence = papers._evidence([(claim, [finding])])
    assert audit.tables(evidence, alike, []) == []
    (line,) = evidence[0].facts
    assert any("n is 3" in str(p) for p in audit.against([{**line, "n": 3}], alike, []))


def of_one_network(records):
    """As if every seed of a method had given the first one's network; the dense ones stay."""
    first = {r.cell["method"]["is"]: r for r in reversed(records)}
    return [
        r if r.cell["reference"] else replace(r, quality=first[name].quality, artifact=name)
        for r in records
        for name in (r.cell["method"]["is"],)
    ]


@pytest.mark.parametrize("figure", ["quality", "training memory"])
def test_one_pair_of_networks_at_several_seeds_decides_nothing(figure):
    """Neither which is better nor which takes more."""
    spent = Spent(peak_bytes=600, added_bytes=300)
    records = [replace(r, spent=spent) for r in of_one_network(pair(95.0, 90.0))]
    (finding,) = judged(replace(BETTER, figure=figure), records)
    assert (finding.estimate.n, finding.verdict) == (1, "cannot tell")


def test_the_best_rival_is_that_of_the_best_networks():
    """A network that came twice counts once in the mean, as in tables."""
    claim = replace(BETTER, theirs=Select(where={"ranking": ("layer", "global")}))
    twice = [
        replace(record(L1Channels(), 0.5, s, top1, 500), artifact=name)
        for s, (top1, name) in enumerate([(95.0, "n"), (95.0, "n"), (80.0, "m")])
    ]
    steady = [record(L1Channels("global"), 0.5, s, 89.0, 500) for s in range(3)]
    ours = [r for r in pair(95.0, 95.0) if "l1_channels" not in r.label]
    (finding,) = judged(claim, [*ours, *twice, *steady])
    assert finding.rival.method == "l1_channels(ranking=global)"


def test_findings_of_two_recipes_are_told_apart():
    """By what parts their headings; of one task alone by nothing."""
    both = [*pair(90.0, 88.0), *pair(90.0, 88.0, task=Digits(recipe=Recipe(epochs=40)))]
    for records, told in ((both, ["16 dense epochs", "40 dense epochs"]), (both[:9], [""])):
        (table,) = papers._evidence([(BETTER, judged(BETTER, records))])
        where = [row[table.heads.index("where")].text for row in table.body]
        assert [text.partition(", recipe")[0] for text in where] == [
            f"digits/resnet20 ({part}" if part else "digits/resnet20" for part in told
        ]


def test_two_seeds_decide_nothing():
    """However far apart."""
    assert verdicts(BETTER, pair(95.0, 50.0, seeds=2)) == ["cannot tell"]


def test_without_records_a_claim_was_not_run():
    """Nor with those of one side alone."""
    assert judged(BETTER, []) == []
    assert judging.decided([]) == "not run"
    alone = [r for r in pair(90.0, 88.0) if "l1_channels" not in r.label]
    assert judged(BETTER, alone) == []


def test_only_rows_of_one_budget_are_compared():
    """A control with more left is no rival."""
    records = [r for r in pair(90.0, 88.0) if "l1_channels" not in r.label]
    records += [record(L1Channels(), 0.6, s, 99.0, 600) for s in range(3)]
    assert judged(BETTER, records) == []


def test_the_best_rival_counts():
    """Not the one that is easiest to beat."""
    claim = replace(BETTER, theirs=Select(where={"ranking": ("layer", "global")}))
    records = [*pair(90.0, 88.0), *(record(L1Channels("global"), 0.5, s, 95.0, 500) for s in range(3))]
    (finding,) = judged(claim, records)
    assert finding.rival.method == "l1_channels(ranking=global)"
    assert finding.verdict == "not supported"


def test_a_rival_differs_in_what_is_claimed_alone():
    """Where a claim is of one field, one network that is better for another reason decides nothing."""
    pushed, alone = gpp.GPP(), gpp.GPP(push="none")
    elsewise = gpp.GPP(push="none", streams=True)
    claim = Claim(
        "a push is better", "", "better", Select("gpp", {"push": "eigen-free"}), Select("gpp", {"push": "none"})
    )
    found = [record(Dense(), seed=s) for s in range(3)]
    for s in range(3):
        found += [record(pushed, 0.5, s, 90.0 + WOBBLE[s], 500), record(alone, 0.5, s, 88.0, 500)]
    found.append(record(elsewise, 0.5, 0, 95.0, 500))
    assert [finding.rival.method for finding in judged(claim, found)] == ["gpp(push=none, streams=True) v2"]
    (finding,) = judged(replace(claim, differs="push"), found)
    assert (finding.rival.method, finding.verdict) == ("gpp(push=none) v2", "supported")


def test_a_number_is_judged_with_its_gap():
    """Claimed -0.13, ours -2: in points and in standard errors of ours."""
    claim = replace(BETTER, theirs=Select("dense"), within="heading", least=-0.13, slack_sd=1.0, claimed=-0.13)
    (finding,) = judged(claim, pair(88.0, 80.0))
    assert finding.verdict == "not supported"
    assert finding.gap == pytest.approx(-1.87)
    assert finding.errors == pytest.approx(-1.87 / (0.1 / 3**0.5))
    assert verdicts(claim, pair(90.2, 80.0)) == ["supported"]
    assert verdicts(claim, pair(89.75, 80.0)) == ["cannot tell"], "within a deviation of the threshold"


def test_counts_are_judged_too():
    """Half of the MACs are removed, the params are all there."""
    macs = Claim("65 % removed", "", "", Select("resconv"), figure="macs removed", least=65.0, claimed=65.5)
    assert verdicts(macs, pair(90.0, 88.0)) == ["not supported"]
    (one,) = judged(replace(macs, least=49.9), pair(90.0, 88.0, seeds=1))
    assert (one.verdict, one.errors) == ("supported", None), "a count is exact: one seed says it, without an error"


def timed(ours, theirs, level="full", **more):
    """Two rows on one machine, each (low, high) of its ratio."""
    records = pair(90.0, 88.0)
    by_name = {r.cell["method"]["is"]: r for r in records if r.cell["seed"] == 0}
    return records, [
        measured(by_name[name], (low + high) / 2, low, high, level=level, **more)
        for name, (low, high) in (("resconv", ours), ("l1_channels", theirs))
    ]


def test_speed_needs_intervals_apart_and_a_full_measurement():
    """2.0 against 1.5 times as fast as dense."""
    claim = replace(BETTER, figure="speed", least=1.0)
    assert verdicts(claim, *timed((1.9, 2.1), (1.4, 1.6))) == ["supported"]
    assert verdicts(claim, *timed((1.4, 1.6), (1.9, 2.1))) == ["not supported"]
    assert verdicts(claim, *timed((1.4, 1.6), (1.5, 1.7))) == ["cannot tell"]
    assert verdicts(claim, *timed((1.9, 2.1), (1.4, 1.6), level="quick")) == ["cannot tell"]


def test_a_speed_is_of_the_profile_and_batch_that_a_claim_names():
    """Both batches are measured, and one is asked for; by another profile there is nothing."""
    claim = replace(BETTER, figure="speed", least=1.0)
    records, large = timed((1.9, 2.1), (1.4, 1.6))
    taken = [*large, *(at_batch(m, 1) for m in large)]
    assert [f.column.profile for f in judged(claim, records, taken)] == ["cpu", "cpu(batch=1)"]
    asked = replace(claim, profiles=("cpu",), batch=1)
    assert [f.column.profile for f in judged(asked, records, taken)] == ["cpu(batch=1)"]
    assert judged(replace(asked, profiles=("onnx_cpu",)), records, taken) == []


def at_batch(m, batch):
    """A measurement as the same profile leaves it at another batch."""
    profile = dict(m.profile) | {"label": f"cpu(batch={batch})"}
    return replace(m, id=f"{m.id}-{batch}", profile=profile, measurement=replace(m.measurement, batch=batch))


def peaked(ours, theirs, seeds=3):
    """Records of two methods, and measurements with (peak, dense peak) of each in MB, the same for every seed."""
    records = pair(90.0, 88.0, seeds)
    peaks = {"resconv": ours, "l1_channels": theirs}
    more = [(r, peaks[name]) for r in records if (name := r.cell["method"]["is"]) in peaks]
    return records, [measured(r, level="full", peak_bytes=p, dense_peak_bytes=d) for r, (p, d) in more]


def test_memory_is_no_nearer_than_two_sessions_of_one_network():
    """5 % less, while the dense network's own peak moved by 10 %."""
    claim = replace(BETTER, figure="memory", least=1.0)
    peaks = ((95, 100), (100, 100)), ((95, 100), (110, 110)), ((50, 100), (110, 110))
    found = [verdict for ours, theirs in peaks for verdict in verdicts(claim, *peaked(ours, theirs))]
    assert found == ["supported", "cannot tell", "supported"]


def test_memory_of_two_seeds_decides_nothing():
    """However far apart; and what three say is indicative."""
    claim = replace(BETTER, figure="memory", least=1.0)
    few = judged(claim, *peaked((50, 100), (100, 100), seeds=2))
    assert [f.verdict for f in few] == ["cannot tell"]
    enough = judged(claim, *peaked((50, 100), (100, 100)))
    words = judging.in_words(judging.decided(enough), enough)
    assert words == "supported (indicative: 3 seeds; by measurements of stored networks)"
    elsewhere = judged(claim, *peaked((50, 100), (100, 100), seeds=1))
    assert judging.decisive([*elsewhere, *enough]) == enough, "one seed yields to three"


def test_memory_of_training_is_without_what_the_process_holds():
    """Python and the data are in both peaks, which hides a method that takes three times as much."""
    claim = replace(BETTER, theirs=Select("dense"), within="heading", figure="training memory", least=1 / 1.5)
    told = {"resconv": Spent(peak_bytes=600, added_bytes=300), "dense": Spent(peak_bytes=400, added_bytes=100)}
    records = [replace(r, spent=told.get(r.cell["method"]["is"], r.spent)) for r in pair(90.0, 88.0)]
    (one,) = judged(claim, records)
    assert (one.verdict, one.estimate.mean) == ("not supported", pytest.approx(1 / 3))
    older = [replace(r, spent=replace(r.spent, added_bytes=None)) for r in records]
    assert judged(claim, older) == [], "they do not tell"


def test_a_reduced_recipe_is_marked_and_yields_to_a_full_one():
    """By epochs and by network, on the same line and in the verdict."""
    claim = replace(BETTER, places=(Place(("cifar10",), ("resnet20",), (200, 40)),))
    budget = Budget(0.5, epochs=3)
    recipe = Recipe(epochs=6)
    reduced = pair(90.0, 88.0, task=CIFAR10("resnet32", recipe), budget=budget)
    found = judged(claim, reduced)
    assert (
        found[0].reduced
        == "cifar10/resnet32 instead of resnet20 on cifar10, 6 of 200 dense epochs, 3 of 40 compression epochs"
    )
    assert judging.in_words("supported", found) == "supported (reduced recipe; indicative: 3 seeds)"
    full = pair(88.0, 90.0, task=CIFAR10("resnet20", Recipe(epochs=200)), budget=Budget(0.5, epochs=40))
    both = judged(claim, [*reduced, *full])
    assert {finding.verdict for finding in both} == {"supported", "not supported"}
    assert judging.decided(both) == "not supported"
    assert judging.in_words("not supported", both) == "not supported (indicative: 3 seeds)"


def test_each_place_of_a_paper_has_its_own_epochs():
    """What is full on small images is none of large ones, and the other way round."""
    claim = replace(BETTER, places=(Place(("cifar10",), epochs=(200, 40)), Place(("digits",), epochs=(16, 0))))
    (small,) = judged(claim, pair(90.0, 88.0))
    assert small.reduced == ""
    (short,) = judged(claim, pair(90.0, 88.0, task=CIFAR10("resnet20", Recipe(epochs=16)), budget=Budget(0.5)))
    assert short.reduced == "16 of 200 dense epochs, 0 of 40 compression epochs"
    (neither,) = judged(claim, pair(90.0, 88.0, task=Photos()))
    assert neither.reduced.startswith("photos/edsr-tiny instead of cifar10; digits, ")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_each_place_of_a_claim_has_a_suite_that_counts_as_full(paper):
    """With its tasks, its networks and its epochs; but for the ladder, ours being elsewhere than the paper's."""
    made = [
        ({"is": task.name, "network": task.network}, task.recipe.epochs, budget.epochs)
        for suite in discover.suites().values()
        for arm in (*suite.arms, Arm((), (Budget(1.0),)))
        for task in suite.tasks
        for budget in arm.budgets
    ]
    for claim in paper.claims:
        for place in claim.places:
            if claim.ours.tasks == ("cifar10",) and place.tasks == ("imagenet",):
                continue
            full = [one for one in made if place.holds(one[0]) and one[1] >= place.epochs[0]]
            assert any(compression >= place.epochs[1] for _, _, compression in full), (claim.says, place)


def test_findings_that_disagree_leave_no_verdict():
    """Which the words say."""
    found = [*judged(BETTER, pair(90.0, 88.0)), *judged(BETTER, pair(88.0, 90.0))]
    assert judging.decided(found) == "cannot tell"
    assert "findings disagree: supported 1, not supported 1, cannot tell 0" in judging.in_words("cannot tell", found)


def test_a_full_timing_yields_to_no_quick_one():
    """Which alone would leave it open; where there are quick ones alone, so it is."""
    claim = replace(BETTER, figure="speed", least=1.0)
    records, quick = timed((1.9, 2.1), (1.4, 1.6), level="quick")
    _, full = timed((1.9, 2.1), (1.4, 1.6))
    full = [at_batch(m, 1) for m in full]
    assert judging.decided(judged(claim, records, quick)) == "cannot tell"
    assert judging.decided(judged(claim, records, [*quick, *full])) == "supported"


def test_the_newest_version_of_a_method_decides():
    """What an older one said stays among the findings."""
    older = [
        replace(r, id=f"{r.id}-1", cell=r.cell | {"method": r.cell["method"] | {"version": 1}})
        for r in pair(86.0, 88.0)
        if r.cell["method"]["is"] == "resconv"
    ]
    both = judged(BETTER, [*pair(90.0, 88.0), *older])
    assert {finding.verdict for finding in both} == {"supported", "not supported"}
    assert judging.decided(both) == "supported"


def test_the_newest_rival_is_the_one_to_beat():
    """What an older version of it reached does not count, and versions that never meet leave a verdict."""
    older = [
        replace(r, id=f"{r.id}-0", cell=r.cell | {"method": r.cell["method"] | {"version": 0}})
        for r in pair(90.0, 95.0)
        if r.cell["method"]["is"] == "l1_channels"
    ]
    (finding,) = judged(BETTER, [*pair(90.0, 88.0), *older])
    assert finding.verdict == "supported"
    ours, theirs = (replace_version(r, 9) for r in (finding.row, finding.rival))
    crossed = [replace(finding, row=ours), replace(finding, rival=theirs)]
    assert judging.in_words(judging.decided(crossed), crossed).startswith("supported")


def replace_version(row, version):
    """A row as another version of its method would have made it."""
    method = row.first.cell["method"] | {"version": version}
    return replace(row, records=tuple(replace(r, cell=r.cell | {"method": method}) for r in row.records))


def test_one_value_that_has_to_be_there_is_no_list_of_letters():
    """``where`` may hold a word alone."""
    claim = replace(
        BETTER, ours=Select("etpf", {"function": "GA_Func2"}), theirs=Select("l1_channels"), each="function"
    )
    found = judged(claim, [*pair(90.0, 80.0), *of_functions("GA_Func2", top1=90.0)])
    assert judging.decided(found) == "supported"


def of_functions(*names, top1=80.0):
    """Three seeds of each of these pruning functions."""
    return [record(ETPF(function=n), 0.5, s, top1 + WOBBLE[s], 500) for n in names for s in range(3)]


@pytest.mark.parametrize("absent", ["", "SymDiv", "GA_Func2"])
def test_each_that_a_claim_names_has_to_be_there(absent):
    """Of the evolved ones, and of those that they have to beat."""
    claim = Claim(
        "evolved beats",
        "",
        "each of two",
        Select("etpf", {"function": ("GA_Func1", "GA_Func2")}),
        Select("etpf", {"function": ("SymDiv", "FDR")}),
        each="function",
    )
    first, evolved = (
        [name for name in names if name != absent] for names in (("SymDiv", "FDR"), ("GA_Func1", "GA_Func2"))
    )
    dense = [record(Dense(), seed=s) for s in range(3)]
    better = [r for i, name in enumerate(evolved) for r in of_functions(name, top1=90.0 + i + 0.01 * i)]
    found = judged(claim, [*dense, *of_functions(*first), *better])
    words = judging.in_words(judging.decided(found), found)
    if not absent:
        assert words == "supported (indicative: 3 seeds)"
    else:
        assert words.startswith("cannot tell")
        assert absent == "SymDiv" or "without GA_Func2" in words


def test_networks_of_one_recipe_can_be_rivals():
    """The ladder: another network of the same task, never of another recipe."""
    recipe = Recipe(epochs=200)
    claim = Claim(
        "a", "", "", Select("dense", networks=("inception3",)), Select("dense", networks=("resnet20",)), "recipe"
    )
    tall = [record(Dense(), seed=s, top1=92.0 + WOBBLE[s], task=CIFAR10("inception3", recipe)) for s in range(3)]
    short = [record(Dense(), seed=s, task=CIFAR10("resnet20", recipe)) for s in range(3)]
    assert verdicts(claim, [*tall, *short]) == ["supported"]
    other = [record(Dense(), seed=s, task=CIFAR10("resnet20", Recipe(epochs=9))) for s in range(3)]
    assert judged(claim, [*tall, *other]) == []


# ------------------------------------------------------------------------------------------------- the five papers

CLAIMS = [(paper, claim) for paper in PAPERS for claim in paper.claims]


def test_every_claim_has_source_and_criterion_and_names_what_exists():
    """Methods, tasks, and fields of methods."""
    for paper, claim in CLAIMS:
        assert claim.says, paper.name
        assert claim.source, claim.says
        assert claim.criterion, claim.says
        assert (claim.claimed is None) == (not claim.convention), claim.says
        assert set(claim.profiles) <= set(plugins("hardware_profiles")), claim.says
        assert {name for place in claim.places for name in place.tasks} <= set(plugins("tasks")), claim.says
        for select in filter(None, (claim.ours, claim.theirs)):
            assert select.method in {"", *plugins("methods")}, claim.says
            assert set(select.tasks) <= set(plugins("tasks")), claim.says
            fields = plugins("methods")[select.method].__dataclass_fields__ if select.method else {}
            where = {n: v for names, v in select.where.items() for n in ([names] if isinstance(names, str) else names)}
            assert set(where) <= set(fields), claim.says
            for name, value in where.items():
                choices = getattr(fields[name].type, "__args__", None) or str(fields[name].type)
                assert (
                    not isinstance(value, str)
                    or "Literal" not in str(choices)
                    or repr(value) in str(choices).replace('"', "'")
                ), f"{claim.says}: {value!r} is no {name}"


def test_a_claim_can_be_seen_by_some_suite():
    """Each claim that has rows of its own fits a cell of a paper's suite; none waits for a run that cannot be."""
    from types import SimpleNamespace

    cells = []
    for suite in discover.suites().values():
        for task in suite.tasks:
            points = [
                (suite.reference, Budget(1.0)),
                *((m, b) for arm in suite.arms for m in arm.methods for b in arm.budgets),
            ]
            cells += [
                {
                    "task": identity.describe(task) | {"family": task.family, "label": identity.task_label(task)},
                    "method": identity.describe(method),
                    "budget": identity.describe(budget),
                }
                for method, budget in points
            ]
    fake = [SimpleNamespace(first=SimpleNamespace(cell=cell)) for cell in cells]
    for _, claim in CLAIMS:
        for select in (claim.ours, claim.theirs):
            assert select is None or any(map(select.fits, fake)), f"{claim.says}: {select}"


def test_claims_against_the_project_own_records():
    """A table a paper, every claim on one line, and all of it adds up."""
    store = Store(ROOT / "reports", create=False)
    records, taken = store.records(), store.measurements()
    tables = papers.tables(PAPERS, records, taken, lambda method: "card")
    assert [t.title for t in tables if "claimed against" in t.title] == [
        f"{paper.title}: claimed against reproduced" for paper in PAPERS
    ]
    lines = [line for t in tables if "claimed against" in t.title for line in t.facts]
    assert len(lines) == len(CLAIMS)
    assert {line["verdict"] for line in lines} <= {"supported", "not supported", "cannot tell", "not run"}
    assert audit.tables(tables, records, taken) == []
    evidence = [line for t in tables for line in t.facts if "gap" in line]
    assert evidence
    assert all(line["ids"] for line in evidence)
    text = render.markdown(tables)
    assert "reduced: " in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ours": 5.0, "low": 4.0, "high": 6.0}, "ours is 5, and by the records 2"),
        ({"low": 1.0}, "low is 1, and by the records 1.75"),
        ({"n": 6}, "n is 6, and by the records 3"),
        ({"gap": 1.0}, "the gap is 1, and ours - claimed is -0.5"),
        ({"verdict": "not supported"}, "not supported, and the interval is [1.75"),
        ({"least": 3.0}, "supported, and the interval is"),
        ({"ids": "0000"}, "no record 0000"),
    ],
)
def test_the_auditor_works_out_findings_again(change, says):
    """From the records of both sides."""
    records = pair(90.0, 88.0)
    paper = Paper("X", "Methods", ("resconv",), (replace(BETTER, claimed=2.5, convention="points"),))
    _, evidence = papers.overview((paper,), records, [])
    assert audit.tables([evidence], records, []) == []
    changed = replace(evidence, facts=tuple({**line, **change} for line in evidence.facts))
    assert any(says in str(p) for p in audit.tables([changed], records, [])), audit.tables([changed], records, [])


@pytest.mark.parametrize("figure", ["speed", "memory"])
def test_the_auditor_works_out_what_was_timed_again(figure):
    """A quotient of two rows, or dense / ours, with its interval."""
    for theirs in (BETTER.theirs, None):
        claim = replace(BETTER, figure=figure, least=1.0, theirs=theirs)
        records, taken = timed((1.9, 2.1), (1.4, 1.6)) if figure == "speed" else peaked((50, 100), (100, 110))
        _, evidence = papers.overview((Paper("X", "Methods", ("resconv",), (claim,)),), records, taken)
        assert evidence.facts
        assert audit.tables([evidence], records, taken) == []
        for name in ("ours", "low", "high"):
            more = [{**line, name: line[name] + 0.1} for line in evidence.facts]
            assert audit.tables([replace(evidence, facts=tuple(more))], records, taken)


def test_an_overview_has_every_claim_with_what_decided_it():
    """One finding with its interval and place, several as their range, none as not run; each finding with its ids."""
    version = f"v{ResConv.card.version}"
    other = replace(BETTER, says="layers are no better", theirs=Select("random_channels"))
    paper = Paper("X", "Methods", ("resconv",), (replace(BETTER, claimed=2.5, convention="points"), other))
    claims, evidence = papers.overview((paper,), pair(90.0, 88.0), [])
    assert [[entry.text for entry in line] for line in claims.body] == [
        [
            "X",
            "layers beat channels",
            "2.5 (points)",
            f"2.00 points [1.75, 2.25] (3), {version}, digits/resnet20",
            "supported (indicative: 3 seeds)",
        ],
        ["X", "layers are no better", "", "", "not run"],
    ]
    (line,) = evidence.body
    assert line[3].text == f"resconv v{ResConv.card.version} 0.5 macs"
    assert len(line[-1].text.split()) == 6
    twice = pair(90.0, 88.0) + pair(85.0, 88.0, task=Digits(recipe=Recipe(epochs=1)))
    claims, _ = papers.overview((paper,), twice, [])
    assert [entry.text for entry in claims.body[0]][3] == f"-3.00 to 2.00 points in 2 findings, {version}"
    dB = [replace(one, quality={"psnr_y": one.quality["top1"]}) for one in pair(85.0, 88.0, task=Photos())]
    claims, _ = papers.overview((paper,), pair(90.0, 88.0) + dB, [])
    assert [entry.text for entry in claims.body[0]][3] == (
        f"2.00 points [1.75, 2.25] (3), {version}, digits/resnet20; "
        f"-3.00 dB [-3.25, -2.75] (3), {version}, photos/edsr-tiny"
    )


def test_a_claimed_number_stands_in_the_row_that_it_is_of():
    """ResNet-110 at the headline's point, and no other network's row."""
    from slimbench.reports import table

    def at(network):
        task = CIFAR10(network, Recipe(epochs=200))
        dense = record(Dense(), task=task)
        cut = replace(DENSE_COST, macs=345, params=45, nonzero=45, prunable_nonzero=40)
        budget = Budget(0.345, params_keep=0.445, epochs=80)
        return [dense, record(ResConv(), task=task, budget=budget, cost=cut)]

    (found,) = table.tables(at("resnet110"), [])
    told = dict(zip(found.heads, (e.text for e in found.body[1]), strict=True))["claimed"]
    assert told.startswith("-0.13 points of top-1, at 65.5 % of FLOPs")
    (other,) = table.tables(at("resnet56"), [])
    assert "claimed" not in other.heads


def test_scratch_training_is_compared_within_its_heading():
    """Deep plain networks: three seeds that train against three that do not."""
    (claim,) = [c for c in RESCONV.claims if "plain" in c.says]
    task = CIFAR10("plain56", Recipe(epochs=200))
    records = [record(Dense(), seed=s, top1=20.0, task=task) for s in range(3)]
    records += [
        record(ResConvFromScratch(), seed=s, top1=90.0 + WOBBLE[s], task=task, budget=Budget(1.0)) for s in range(3)
    ]
    (finding,) = judged(claim, records)
    assert (finding.verdict, finding.reduced) == ("supported", "")
    assert isinstance(finding.estimate, Difference)


def test_the_headline_is_of_networks_that_were_cut_to_both_of_its_shares():
    """The same share of MACs alone is another point."""
    (row,), (other,) = (
        rows([record(ResConv(), task=CIFAR10("resnet56"), budget=Budget(0.345, params_keep=params))], []).values()
        for params in (0.445, None)
    )
    assert HEADLINE.fits(row[0])
    assert not HEADLINE.fits(other[0])
    (claim,) = [c for c in RESCONV.claims if c.figure == "params removed"]
    assert claim.ours is HEADLINE


def test_claims_of_dass_are_of_one_size():
    """Small against DARTS cells as large; no other size has a word in any of the claims."""
    task = CIFAR10("mobilenetv2", Recipe(epochs=600))
    budget = Budget(0.01, "prunable_nonzero", epochs=220)
    sizes = (30, 16), (36, 20), (86, 12), (108, 14)
    methods = [dass.DASS("dass-99", width, count) for width, count in (*sizes, (36, 4), (8, 20))]
    methods += [dass.DASS("darts", 36, 20), dass.DASS("darts", 30, 16), dass.SparseScores()]
    records = [record(Dense(), seed=s, task=task) for s in range(3)]
    records += [record(m, seed=s, task=task, budget=budget, top1=80.0 + WOBBLE[s]) for m in methods for s in range(3)]
    taken = [measured(r) for r in records if r.cell["seed"] == 0 and r.reference]
    taken += [at_batch(m, 1) for m in taken]
    found = [finding for claim in DASS.claims[1:] for finding in judged(claim, records, taken)]
    assert [(f.claim.figure, f.row.method) for f in found] == [
        (figure, found[0].row.method) for figure in ("quality", "quality", "speed", "quality")
    ]
    assert "channels=36" in found[0].row.method
    assert [f.column.profile for f in found if f.column] == ["cpu(batch=1)"]
    assert "channels=36" in found[-1].rival.method
    assert all("small" in claim.criterion for claim in DASS.claims[1:])


def test_a_claim_of_the_push_is_not_of_the_companion_s_pruning():
    """On ILSVRC-2012, where both run."""
    claim = GPP.claims[-1]
    task = ImageNet("imagenet-inception28")
    pushed, alone = (rows([record(m, 0.5, task=task)], []) for m in (gpp.GPP(), gpp.GPP(push="none")))
    fits = [claim.ours.fits(row) for group in (pushed, alone) for found in group.values() for row in found]
    assert fits == [True, False]


def test_slack_that_the_paper_does_not_give_is_marked_as_ours():
    """A threshold below the claimed number, and deviations that are forgiven."""
    lenient = [c for p in PAPERS for c in p.claims if c.claimed is not None and (c.least != c.claimed or c.slack_sd)]
    assert lenient
    assert [claim.says for claim in lenient if "ours" not in claim.criterion] == []
