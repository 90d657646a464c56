"""What is typed after a command arrives where it is meant to: options that nothing else would miss."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from conftest import FAKES
from slimbench import baseline as baselines
from slimbench import bisecting, cli, cli_run, discover, executors, identity, locking, submission
from slimbench.core import Settings
from slimbench.hardware_profiles.cpu import CPU
from slimbench.local import Local
from slimbench.methods.etpf import course
from slimbench.plan import plan
from slimbench.run import Options

FAKE = ("--plugin", str(FAKES), "--task", "stripes", "--method", "l1_channels", "--keep", "0.5")


@pytest.fixture
def typed(inside):
    """The command in this process, in an empty folder, that must end well."""

    def ends(*words: str) -> None:
        result = inside(*words)
        assert result.exit_code == 0, result.output

    return ends


@pytest.fixture
def started(monkeypatch):
    """What would be run: suite, settings, options, store."""
    seen: list = []
    monkeypatch.setattr(cli_run, "_run", lambda *given, as_json: seen.extend([*given, as_json]) or 0)
    return seen


def test_how_to_run_arrives_whole(typed, started, monkeypatch):
    """Each option by its name, and what an executor is made of."""
    asked = {}
    monkeypatch.setattr(executors, "executor", lambda name, *_, **more: asked.update(more, name=name) or Local(3))
    more = ("--limit", "4", "--fail-fast", "--measure-only", "--level", "full", "--time-limit", "7", "--memory", "2.5")
    cluster = ("--executor", "slurm", "--slurm", "minutes=9", "--slurm", "partition=x", "--jobs", "5", "--address", "a")
    typed("run", *FAKE, *more, *cluster, "--seeds", "1,3", "--store", "s", "--json")
    suite, settings, options, store, as_json = started
    assert options == Options(1, "full", 4, True, 7.0, (str(FAKES),), Local(3), True)
    assert (asked["name"], asked["slurm"], asked["jobs"]) == ("slurm", ("minutes=9", "partition=x"), 5)
    assert (asked["memory_gb"], asked["address"]) == (2.5, "a")
    assert (suite.seeds, store, as_json) == ((1, 3), "s", True)
    assert isinstance(settings, Settings)


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_cluster_has_what_this_machine_lacks(typed, started, monkeypatch, name):
    """A GPU, and more cores; a plan needs neither."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    typed("run", *FAKE, "--executor", name, "--device", "cuda", "--threads", "10000")
    assert (started[1].device, started[2].executor.gpus, started[2].executor.cpus) == ("cuda", 1, 10000)
    typed("plan", *FAKE, "--device", "cuda", "--threads", "10000")


def test_memory_here_is_the_limit_of_a_process(typed, started):
    """In GiB."""
    typed("run", *FAKE, "--memory", "1.5")
    assert started[2].executor.memory_limit_bytes == 1.5 * 1024**3


def test_what_to_compress_to_arrives(typed, started):
    """The resource, the training, the seed."""
    profiles = ("--profile", "cpu", "--profile", "cpu(batch=1)")
    typed("compress", *FAKE, "--resource", "params", "--epochs", "0.5", "--seed", "6", *profiles)
    suite = started[0]
    ((budget,),) = (arm.budgets for arm in suite.arms)
    assert (budget.resource, budget.keep, budget.epochs) == ("params", 0.5, 0.5)
    assert (suite.seeds, [task.name for task in suite.tasks]) == ((6,), ["stripes"])
    assert suite.profiles == (CPU(), CPU(batch=1))


@pytest.mark.parametrize(("more", "epochs"), [((), 8), (("--epochs", "0.5"), 0.5)])
def test_the_epochs_of_a_run_are_the_suites_or_those_that_were_said(typed, started, more, epochs):
    """Whatever the schedule of the task is; a plan has the same cells."""
    typed("run", *FAKE, *more)
    suite, settings, *_ = started
    assert [budget.epochs for arm in suite.arms for budget in arm.budgets] == [epochs]
    planned = CliRunner().invoke(cli.main, ["plan", *FAKE, *more, "--json"]).stdout
    assert [cell["id"] for cell in json.loads(planned)["cells"]] == [*identity.by_id(plan(suite, settings))]


def test_all_profiles_measure_where_none_is_named(typed, started):
    """Those of the quick suite."""
    typed("compress", *FAKE)
    assert started[0].profiles == discover.suite("quick").profiles


def test_how_to_evolve_arrives(typed, monkeypatch):
    """All that a course is drawn by."""
    seen = []

    def begun(first, cells, how, options, *_):
        seen.extend([first, cells, how, options])
        return SimpleNamespace(run=lambda: "WL1", file="f")

    monkeypatch.setattr(course, "Course", begun)
    drawn = ("--selection", "tournament", "--crossover", "0.1", "--mutation", "0.2", "--deepest", "3", "--seed", "9")
    size = ("--population", "4", "--generations", "2", "--survivors", "2", "--initial", "WL1", "--images", "64")
    trial = ("--keep", "0.4", "--epochs", "0.25", "--seeds", "n=2", "--time-limit", "30", "--task", "stripes")
    typed("evolve", "--plugin", str(FAKES), *drawn, *size, *trial)
    first, cells, how, options = seen
    assert (how.selection, how.crossover, how.mutation, how.deepest, how.seed) == ("tournament", 0.1, 0.2, 3, 9)
    assert (how.population, how.generations, how.survivors, len(first)) == (4, 2, 2, 1)
    assert [(cell.seed, cell.budget.keep, cell.budget.epochs) for cell in cells] == [(0, 0.4, 0.25), (1, 0.4, 0.25)]
    assert options.time_limit_s == 30


@pytest.fixture
def base(monkeypatch):
    """A baseline of two proxies, one of them timed by the CPU profile, made at a commit."""
    proxies = [SimpleNamespace(proxy=f"digits/resnet14 {name} 0.5 macs") for name in ("dcss", "etpf")]
    made = SimpleNamespace(cells=proxies, apart={"cpu": None}, commit="abc")
    monkeypatch.setattr(baselines, "read", lambda file: made)
    return made


def test_what_to_bisect_arrives(typed, base, monkeypatch, tmp_path):
    """Between the commits that were named, by the baseline and the suite that were."""
    seen = []
    monkeypatch.setattr(bisecting, "root", lambda start: tmp_path)
    monkeypatch.setattr(bisecting, "first_bad", lambda *given: seen.append(given) or ("c", "told"))
    more = ("--suite", "mine", "--baseline", "b.json", "--task", "t", "--method", "m", "--bad", "worse")
    typed("bisect", "dcss", "--any-change", "--good", "better", *more)
    typed("bisect", "etpf 0.5 macs by cpu")
    (root, good, bad, command), (_, start, end, timed) = seen
    assert (root, good, bad, start, end) == (tmp_path, "better", "worse", "abc", "HEAD")
    step, other = (bisecting.Step(**json.loads(words[-1])) for words in (command, timed))
    assert (step.proxy, step.suite, step.any_change, step.profile) == (base.cells[0].proxy, "mine", True, "")
    assert (step.file, step.tasks, step.methods) == (str(tmp_path / "b.json"), ["t"], ["m"])
    assert (other.proxy, other.suite, other.any_change, other.profile) == (base.cells[1].proxy, "nightly", False, "cpu")


@pytest.mark.parametrize(
    ("words", "commit", "why"),
    [
        (("dcss 0.5 macs by cpu", "--any-change"), "abc", "--any-change is of scores: say it without ' by cpu'"),
        (("dcss",), "", "made at no commit: name a good one with --good"),
        (("dcss",), "abc-dirty", "made at abc-dirty: name a good one with --good"),
        (
            ("digits",),
            "abc",
            "PROXY must match one of baselines/nightly.json, and 'digits' matches 2; digits/resnet14 dcss 0.5 macs",
        ),
        (("gpp",), "abc", "PROXY must match one of baselines/nightly.json, and 'gpp' matches none."),
    ],
)
def test_what_cannot_be_bisected_is_refused(base, words, commit, why):
    """In one sentence."""
    base.commit = commit
    result = CliRunner().invoke(cli.main, ["bisect", *words], catch_exceptions=False)
    assert result.exit_code == 2
    assert why in result.output
    assert result.output.count("\n") == 1


def test_networks_are_sent_only_where_asked(typed, store, monkeypatch, tmp_path):
    """Never by default."""
    seen = []

    def packed(_, out, *, with_networks):
        seen.append((out, with_networks))
        return {"sha256": [], "records": 0, "measurements": 0}

    monkeypatch.setattr(submission, "pack", packed)
    typed("submit", "--store", str(store.root), "--out", "a.zip")
    typed("submit", "--store", str(store.root), "--out", "b.zip", "--networks")
    assert seen == [(tmp_path / "a.zip", False), (tmp_path / "b.zip", True)]


def test_why_results_did_not_change_is_kept(typed, monkeypatch):
    """With every source that it is said of."""
    seen = []
    monkeypatch.setattr(locking, "write", lambda *given: seen.append(given) or [])
    typed("lock", "--unchanged", "a.py", "--unchanged", "b.py", "--because", "a comment")
    assert seen == [(("a.py", "b.py"), "a comment")]
