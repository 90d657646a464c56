"""Functions evolve: by the operators of DEAP as the authors set them, over cells that never open test."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conftest import FAKES, fakes
from runs import PLUGINS, more_fakes
from slimbench import cli, discover, identity
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Settings, UserError
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF, evolution, functions, space
from slimbench.methods.etpf.course import Course
from slimbench.methods.etpf.evolution import Evolution, Individual
from slimbench.reports import render, table
from slimbench.reports.evolution import draw
from slimbench.run import Options, left_to_do
from slimbench.store import Store

STRIPES = fakes.Stripes()
WRONG = """
from slimbench.core import Metric
from slimbench.tasks.digits import Digits

class Wrong(Digits):
    name = "wrong_digits"
    metrics = (Metric("error", "%", higher_is_better=False),)
"""


def by_size(generation, newcomers):
    """A fitness that anything can be given: the smaller, the fitter."""
    for one in newcomers:
        assert one.fitness is None
        one.fitness = 100.0 - space.size(one.expression)
        one.scores = {"size": one.fitness}


def by_depth(generation, newcomers):
    """The deeper, the fitter."""
    for one in newcomers:
        one.fitness = float(space.depth(one.expression))


def course_of(**settings):
    evolved = Evolution(evolution.Settings(**settings), by_size)
    populations = list(evolved.run(evolution.first_population()))
    return evolved, populations


# ------------------------------------------------------------------------------------------------------- generations


def test_the_authors_settings_are_the_defaults():
    """Two copies of each of seven seeds; six survive; probabilities of three quarters; ten generations."""
    s = evolution.Settings()
    assert (s.population, s.survivors, s.generations, s.crossover, s.mutation) == (14, 6, 10, 0.75, 0.75)
    evolved, (first,) = course_of(generations=0)
    counts = {name: sum(one.expression == functions.function(name) for one in first) for name in functions.SEEDS}
    assert counts == dict.fromkeys(functions.SEEDS, 2)
    assert evolved.generations == [list(range(14))]


def test_the_best_survive_with_their_fitness_and_the_others_are_their_children():
    """Six of fourteen, by fitness; nobody is evaluated twice, no parent is changed."""
    evolved, populations = course_of(generations=4)
    texts = [space.formula(one.expression) for one in evolved.everyone]
    for generation, (before, after) in enumerate(itertools.pairwise(populations), 1):
        best = sorted(before, key=lambda one: -one.fitness)[:6]
        assert after[:6] == best
        assert sorted(one.fitness for one in after[:6]) == sorted(one.fitness for one in best)
        children = after[6:]
        assert len(children) == 8
        for child in children:
            assert child.born == generation
            assert set(child.parents) <= {one.number for one in best}
            assert evolution.is_valid(child.expression)
            if not child.changed:
                assert child.expression == evolved.everyone[child.parents[0]].expression
            assert (len(child.parents) > 1) <= ("crossover" in child.changed)
    assert [space.formula(one.expression) for one in evolved.everyone] == texts
    assert [one.number for one in evolved.everyone] == list(range(14 + 4 * 8))
    assert {how for one in evolved.everyone for how in one.changed} == {"crossover", "mutation"}


def test_an_evolution_repeats_itself_and_leaves_the_callers_random_numbers_alone():
    """The same seed, the same course; another seed, another."""
    random.seed(5)
    expected = random.random()
    random.seed(5)
    one, two = (evolution.document(course_of(generations=3)[0]) for _ in range(2))
    assert random.random() == expected
    assert one == two
    assert evolution.document(course_of(generations=3, seed=1)[0])["individuals"] != one["individuals"]
    longer = evolution.document(course_of(generations=4)[0])
    assert longer["individuals"][: len(one["individuals"])] == one["individuals"]


def test_probabilities_are_those_that_are_set():
    """None of both: copies of parents. Mutation alone: one parent each."""
    copies, _ = course_of(generations=2, crossover=0.0, mutation=0.0)
    assert all(not one.changed for one in copies.everyone)
    mutants, _ = course_of(generations=2, crossover=0.0, mutation=1.0)
    assert all(one.changed == ("mutation",) and len(one.parents) == 1 for one in mutants.everyone[14:])


def test_a_tournament_draws_without_replacement():
    """Nobody wins twice, and no two of the worst ever win."""
    _, populations = course_of(generations=3, selection="tournament", mutation=0.0, crossover=0.0)
    for before, after in itertools.pairwise(populations):
        numbers = [one.number for one in after[:6]]
        assert len(set(numbers)) == 6
        assert set(numbers) <= {one.number for one in before}
        assert len({one.number for one in sorted(before, key=lambda one: one.fitness)[:2]} & set(numbers)) < 2


def test_trees_never_get_deeper_than_formulas_can_be_read(monkeypatch):
    """A child beyond that is drawn again: it would end the course."""
    monkeypatch.setattr(space, "DEEPEST", 7)
    evolved = Evolution(evolution.Settings(generations=5), by_depth)
    list(evolved.run(evolution.first_population()))
    assert max(space.depth(one.expression) for one in evolved.everyone) <= 7


def test_depth_can_be_limited():
    """Children deeper than that are drawn again; without a limit trees that are rewarded for it grow."""

    def deepest(limit):
        evolved = Evolution(evolution.Settings(generations=5, deepest=limit), by_depth)
        list(evolved.run(evolution.first_population()))
        return max(space.depth(one.expression) for one in evolved.everyone)

    assert deepest(6) <= 6 < deepest(None)


def test_what_stays_invalid_is_its_parent_again(monkeypatch):
    """After as many draws as are allowed."""
    drawn = []
    monkeypatch.setattr(evolution, "REDRAWS", 3)
    monkeypatch.setattr(evolution, "is_valid", drawn.append)
    evolved, _ = course_of(generations=1, crossover=1.0, mutation=1.0)
    assert all(not one.changed for one in evolved.everyone)
    assert len(drawn) == 4 * 3 + 8 * 3


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("sum(abs(WI))", True),
        ("sum(P @ tran(P))", True),
        ("sum(X @ tran(X))", False),
        ("sum(m_inv(Q @ tran(Q)))", False),
        ("X", False),
        ("mean(mX)", False),
        ("sqrt(num(P) - num(X))", False),
    ],
)
def test_validity_is_decided_by_evaluation(text, valid):
    """A finite number for each channel; matrices of samples by samples are too large."""
    assert evolution.is_valid(space.parse(text)) == valid


@pytest.mark.parametrize(
    "settings",
    [{"survivors": 14}, {"survivors": 0}, {"generations": -1}, {"crossover": 5.0}, {"mutation": float("nan")}],
)
def test_settings_that_nothing_evolves_by_are_refused(settings):
    """In one sentence."""
    with pytest.raises(UserError, match="impossible"):
        evolution.Settings(**settings)


def test_a_population_that_cannot_hold_the_first_functions_is_refused():
    """Rather than dropping some in silence."""
    with pytest.raises(UserError, match="cannot hold the 7 functions"):
        course_of(population=5, survivors=2)


# ------------------------------------------------------------------------------------------------------ cells inside


def test_a_cell_inside_a_search_never_opens_test(store, monkeypatch):
    """Scored on val, no network kept, done once, not in the tables, another id than the cell of a comparison."""
    opened = []
    evaluate = fakes.Stripes.evaluate
    monkeypatch.setattr(fakes.Stripes, "evaluate", lambda *a: (opened.append(a[2]), evaluate(*a))[1])
    dense = Cell(STRIPES, Dense(), Budget(1.0), 0)
    compress(dense, store)
    opened.clear()
    inner = Cell(STRIPES, ETPF(), Budget(0.5, epochs=1), 0, reference=dense, inner=True)
    record = compress(inner, store)
    assert opened == ["val"]
    assert record.quality == {}
    assert record.val_quality["top1"].value > 0
    assert record.artifact == ""
    assert not store.artifact(record.id).exists()
    assert identity.cell_id(inner) != identity.cell_id(replace(inner, inner=False))
    assert not left_to_do({record.id: inner}, store)
    assert record.id not in render.csv(table.tables(store.records(), []))
    assert record.id not in render.markdown(table.tables(store.records(), []))


def test_a_search_never_starts_from_weights_that_have_seen_val(store, monkeypatch, real_data):
    """Published ones: its scores would be of what they know."""
    task = discover.make("tasks", "cifar10(weights='akamaster')")
    from slimbench.compress import why_unsupported

    dense = Cell(task, Dense(), Budget(1.0), 0)
    cell = Cell(task, ETPF(), Budget(0.5), 0, reference=dense)
    assert why_unsupported(cell) is None
    assert "have seen" in why_unsupported(replace(cell, inner=True))


# ------------------------------------------------------------------------------------------------------- the course

FIRST = ("WL1", "FDR")


def course(store, view=None, generations=2, tasks=(STRIPES,), seeds=(0,), **settings):
    """A small evolution on stripes."""
    method, budget = ETPF(images=40), Budget(0.4, epochs=1)
    cells = []
    for task in tasks:
        for seed in seeds:
            dense = Cell(task, Dense(), Budget(1.0), seed, Settings())
            cells.append(Cell(task, method, budget, seed, Settings(), dense, inner=True))
    how = evolution.Settings(population=4, survivors=2, generations=generations, seed=3, **settings)
    first = [functions.function(text) for text in FIRST]
    return Course(first, cells, how, Options(jobs=2, plugins=PLUGINS), store, view or more_fakes.Recorder())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A course of two generations after the first on two tasks, and its store."""
    store = Store(tmp_path_factory.mktemp("finished") / "store")
    view = more_fakes.Recorder()
    other = fakes.Stripes("resnet14")
    done = course(store, view, tasks=(STRIPES, other))
    return done, done.run(), store, view


def test_fitness_is_the_geometric_mean_of_what_cells_score_on_val(finished):
    """Each individual's scores are those of records in the store, one cell a function and task."""
    done, best, store, _ = finished
    document = json.loads(done.file.read_text())
    assert [len(numbers) for numbers in document["generations"]] == [4, 4, 4]
    records = {record.id: record for record in store.records()}
    for one in document["individuals"]:
        cells = done._cells(space.formula(space.canonical(space.parse(one["expression"]))))
        scores = [records[identity.cell_id(cell)].val_quality["top1"].value for cell in cells]
        assert list(one["scores"].values()) == scores
        assert one["fitness"] == pytest.approx((scores[0] * scores[1]) ** 0.5)
    assert best == max(document["individuals"], key=lambda one: one["fitness"])["expression"]
    inner = [record for record in records.values() if record.cell.get("inner")]
    unique = {space.canonical(space.parse(one["expression"])) for one in document["individuals"]}
    assert len(inner) == 2 * len(unique)
    assert all(record.quality == {} for record in inner)


def test_the_best_functions_are_told_after_every_generation(finished):
    """With their names or formulas, for people and for machines."""
    _, _, _, view = finished
    told = [text for text in view.said if text.startswith("after generation")]
    assert len(told) == 3
    assert "WL1" in told[0]


def test_a_finished_course_is_not_run_again(finished, monkeypatch):
    """The same document, and no cell at all."""
    done, best, store, _ = finished
    before, count = done.file.read_text(), len(store.records())
    again = course(store, tasks=(STRIPES, fakes.Stripes("resnet14")))
    monkeypatch.setattr("slimbench.methods.etpf.course.run_inside", None)
    assert again.run() == best
    assert done.file.read_text() == before
    assert len(store.records()) == count


def test_a_killed_course_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    """Killed in the second generation, with half of its cells done: the same course as straight through."""
    done, _, _, _ = finished
    store = Store(tmp_path / "store")
    tasks = (STRIPES, fakes.Stripes("resnet14"))

    class Dies(more_fakes.Recorder):
        def show(self, event):
            super().show(event)
            if event.kind == "done" and any(text.startswith("after generation 0") for text in self.said):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        course(store, Dies(), tasks=tasks).run()
    half = json.loads(course(store, tasks=tasks).file.read_text())
    assert len(half["generations"]) == 1
    resumed = course(store, tasks=tasks)
    resumed.run()
    assert resumed.file.name == done.file.name
    assert json.loads(resumed.file.read_text()) == json.loads(done.file.read_text())


def test_a_shorter_run_leaves_a_longer_course_as_it_is(finished):
    """Its file has every generation that was ever finished."""
    done, _, store, _ = finished
    before = done.file.read_text()
    course(store, generations=0, tasks=(STRIPES, fakes.Stripes("resnet14"))).run()
    assert done.file.read_text() == before


def test_a_trial_that_failed_is_not_tried_again(store, monkeypatch):
    """Also where the generation was killed before it was written: the course would go another way."""
    run = course(store, generations=0)
    run.first = [functions.function("WL1"), functions.function("sum(WI @ tran(mX)) / sum(sub(W, W))")]
    run.run()
    run.file.unlink()
    view = more_fakes.Recorder()
    again = course(store, view, generations=0)
    again.first = run.first
    again.run()
    assert not view.events
    assert json.loads(again.file.read_text())["individuals"][1]["fitness"] == 0


def test_seeds_of_trials_are_averaged(store):
    """Fitness is of the mean over seeds."""
    run = course(store, generations=0, seeds=(0, 1))
    run.run()
    document = json.loads(run.file.read_text())
    records = {record.id: record for record in store.records()}
    first = document["individuals"][0]
    cells = run._cells(space.formula(space.canonical(space.parse(first["expression"]))))
    scores = [records[identity.cell_id(cell)].val_quality["top1"].value for cell in cells]
    assert first["fitness"] == pytest.approx(sum(scores) / 2)


def test_a_function_that_fails_has_no_fitness_and_the_others_go_on(store, monkeypatch):
    """Valid on the test argument, not on a layer: its cell fails, it dies out."""
    run = course(store, generations=1)
    run.first = [functions.function("WL1"), functions.function("sum(WI @ tran(mX)) / sum(sub(W, W))")]
    run.run()
    document = json.loads(run.file.read_text())
    assert [one["fitness"] > 0 for one in document["individuals"][:4]] == [True, False, True, False]
    assert {one["born"] for one in document["individuals"]} == {0, 1}


def test_where_no_function_can_be_tried_the_reason_is_told(store):
    """Rather than evolving noise."""
    run = course(store, generations=1)
    run.first = [functions.function("sum(WI @ tran(mX)) / sum(sub(W, W))")]
    with pytest.raises(UserError, match=r"No function could be tried .InvalidExpressionError: an operator"):
        run.run()


def test_a_damaged_course_is_named(finished, tmp_path):
    """Finished cells are kept all the same."""
    store = Store(tmp_path / "store")
    broken = course(store)
    broken.file.parent.mkdir(parents=True)
    broken.file.write_text("{")
    with pytest.raises(UserError, match="is damaged: delete it"):
        broken.run()


def test_other_first_functions_are_another_course(store):
    """The same settings and trials."""
    one, two = course(store), course(store)
    two.first = two.first[:1]
    assert one.file != two.file


# ------------------------------------------------------------------------------------------------- pictures, command


def test_pictures_are_drawn_of_failures_too(tmp_path):
    """Two files; a course in which some failed, and one in which all newcomers did."""
    everyone = [
        Individual(0, "P", 0, fitness=50.0, scores={"a": 50.0}),
        Individual(1, "Q", 1, (0,), ("mutation",), {"a": 0.0}, 0.0),
        Individual(2, "X", 1, (0,), ("mutation",), {"a": 60.0}, 60.0),
    ]
    evolved = Evolution(evolution.Settings(), by_size, everyone, [[0], [0, 1, 2]])
    written = draw(evolution.document(evolved), tmp_path / "pictures")
    assert [path.name for path in written] == ["fitness.png", "genealogy.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in draw(evolution.document(evolved), tmp_path / "pictures")] == first


def test_evolve_is_a_command(tmp_path, monkeypatch):
    """Listed, explained, run: the best formula, its course, pictures beside it."""
    monkeypatch.chdir(tmp_path)
    assert "evolve" in CliRunner().invoke(cli.main, ["--help"]).output
    arguments = ["evolve", "--plugin", str(FAKES), "--tasks", "stripes", "--population", "3", "--survivors", "1"]
    arguments += ["--generations", "1", "--initial", "WL1", "--initial", "FDR", "--epochs", "0.5", "--images", "40"]
    done = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "after generation 1" in done.output
    (file,) = (tmp_path / "bench_store/evolutions").glob("*.json")
    assert str(file) in done.output
    assert sorted(path.name for path in file.with_suffix("").iterdir()) == ["fitness.png", "genealogy.png"]
    best = max(json.loads(file.read_text())["individuals"], key=lambda one: one["fitness"])
    assert f"Best: {best['expression']}" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--initial", "WL9"], "did you mean 'WL"),
        (["--tasks", "digit"], "did you mean 'digits'"),
        (["--survivors", "20"], "impossible"),
        (["--population", "7", "--survivors", "3", "--keep", "0"], "impossible"),
        (["--seeds", "x"], "Cannot read --seeds"),
        (["--seeds", ""], "need a seed"),
        (["--mutation", "-1"], "is a probability"),
        (["--time-limit", "0"], "--time-limit"),
    ],
)
def test_evolve_refuses_bad_input_in_one_sentence(arguments, says, tmp_path, monkeypatch):
    """Exit status 2."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["evolve", *arguments])
    assert done.exit_code == 2
    assert says in done.output
    assert done.output.count("\n") == 1


def test_evolve_refuses_a_task_of_which_less_is_better(tmp_path, monkeypatch):
    """It would breed the worst functions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    done = CliRunner().invoke(cli.main, ["evolve", "--plugin", "wrong.py", "--tasks", "wrong_digits"])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "wrong_digits is scored by error, of which less is better" in done.output
