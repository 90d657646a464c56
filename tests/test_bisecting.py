"""`bench bisect`: which commit made a proxy worse, or slower, and what is no commit's fault."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

import nights
from commands import BENCH
from conftest import HERE
from slimbench import baseline, bisecting
from slimbench.artifact import sha256
from slimbench.core import UserError
from slimbench.environment import HELD, HELD_TO, environment, machine
from slimbench.identity import digest
from slimbench.store import Store


def put(name: str, records) -> str:
    for record in records:
        Store(name).put(replace(record, artifact=""))
    return name


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Eight commits whose file holds their number; the commits, first to last."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    where = tmp_path / "repository"
    where.mkdir()

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *who, *words], cwd=where, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    commits = []
    for number in range(8):
        (where / "number").write_text(str(number))
        git("add", ".")
        git("commit", "-qm", str(number))
        commits.append(git("rev-parse", "HEAD").strip())
    return where, commits


def exits(expression: str) -> list[str]:
    return [sys.executable, "-c", f"n = int(open('number').read()); raise SystemExit({expression})"]


def test_the_first_bad_commit_is_found(repository):
    """In a worktree that is gone afterwards; the caller's own files are not touched."""
    where, commits = repository
    commit, _ = bisecting.first_bad(where, commits[0], commits[-1], exits("n >= 5"))
    assert commit == commits[5]
    assert (where / "number").read_text() == "7"
    listed = subprocess.run(["git", "worktree", "list"], cwd=where, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_commits_that_cannot_be_tested_are_skipped(repository):
    """One in the middle is no hindrance; where they hide the answer, a sentence says so."""
    where, commits = repository
    assert bisecting.first_bad(where, commits[0], commits[-1], exits("125 if n == 3 else n >= 5"))[0] == commits[5]
    for good in (commits[0], f"HEAD~{len(commits) - 1}"):
        assert bisecting.first_bad(where, good, "HEAD", exits("n >= 5"))[0] == commits[5], "HEAD moves in the worktree"
    with pytest.raises(UserError, match="found no answer"):
        bisecting.first_bad(where, commits[0], commits[-1], exits("125 if 3 <= n <= 5 else n >= 5"))
    with pytest.raises(UserError, match="found no answer"):
        bisecting.first_bad(where, "no-such-commit", commits[-1], exits("1"))


def test_where_the_good_one_is_bad_too_nobody_is_blamed(repository):
    """Other packages, or another machine, made it worse: git would blame the first commit after it."""
    where, commits = repository
    for otherwise, words in (
        ("1", "does not give the baseline's results here"),
        ("125 if n == 0 else 1", "cannot be judged"),
    ):
        with pytest.raises(UserError, match=f"{commits[0]} {words}"):
            bisecting.first_bad(where, commits[0], commits[-1], exits(otherwise))


def test_a_git_hook_changes_nothing(repository, tmp_path, monkeypatch):
    """Git tells a hook's commands where they are, whatever folder they are in: the caller's checkout is not touched."""
    where, commits = repository
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(where), str(other)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert bisecting.root(where) == where.resolve()
    assert bisecting.first_bad(where, commits[0], commits[-1], exits("n >= 5"))[0] == commits[5]
    assert (other / "number").read_text() == "7"
    assert not (other / ".git/BISECT_LOG").exists()


SLEEPS = """
import os, time
from pathlib import Path
Path(os.environ["BENCH_MARKS"]).write_text(str(os.getpid()))
time.sleep(600)
"""


def test_what_is_terminated_leaves_nothing(repository, tmp_path):
    """Neither git, nor a step and its training, nor the worktree."""
    where, commits = repository
    (where / "src/slimbench").mkdir(parents=True)
    (where / "src/slimbench/__init__.py").write_text(SLEEPS)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("add", "."), ("commit", "-qm", "sleeps")):
        subprocess.run(["git", *who, *words], cwd=where, check=True)
    baseline.of(nights.night(), "a test").write(tmp_path / "base.json")
    marks = tmp_path / "pid"
    words = ("bisect", nights.PROXY, "--baseline", str(tmp_path / "base.json"), "--good", commits[0])
    env = os.environ | {"BENCH_MARKS": str(marks)}
    with subprocess.Popen([BENCH, *words], cwd=where, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert becomes(lambda: marks.exists() and marks.read_text())
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert becomes(lambda: not psutil.pid_exists(int(marks.read_text())))
    listed = subprocess.run(["git", "worktree", "list"], cwd=where, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def becomes(is_so) -> bool:
    """Whether it does within two minutes."""
    ends = time.monotonic() + 120
    while not is_so() and time.monotonic() < ends:
        time.sleep(0.1)
    return bool(is_so())


@pytest.mark.parametrize(("status", "words"), [(0, "not worse than the baseline"), (125, "cannot be judged")])
def test_what_is_not_bad_is_not_looked_for(repository, status, words):
    """Git would believe it, and blame the last commit."""
    where, commits = repository
    with pytest.raises(UserError, match=words):
        bisecting.first_bad(where, commits[0], commits[-1], exits(f"{status}"))


def test_a_step_that_breaks_blames_nobody(repository, tmp_path):
    """Python's own exit status would be git's for a bad commit; the sentence is the step's."""
    where, commits = repository
    step = bisecting.Step(str(tmp_path / "no-such.json"), nights.PROXY, "nightly", str(where))
    with pytest.raises(UserError, match=r"cannot be judged: There is no baseline .*no-such.json"):
        bisecting.first_bad(where, commits[0], commits[-1], bisecting.command(step))


BUSY = replace(nights.record(0), status="failed", reason="stopped after its time limit of 9 s", cost=None, quality={})


def test_a_steps_judgement(tmp_path):
    """Good, bad, cannot be tested; any change is enough where that is asked, but for what a busy machine did."""
    baseline.of(nights.night(), "a test").write(tmp_path / "base.json")
    step = bisecting.Step(str(tmp_path / "base.json"), nights.PROXY, "nightly", "")
    worse, same, part, other, busy, none = (
        Store(put(str(tmp_path / name), records))
        for name, records in {
            "worse": nights.night(macs=900),
            "same": nights.night(),
            "part": nights.night()[1:],
            "other": nights.night(noise=1),
            "busy": [*nights.night()[1:], BUSY],
            "none": [],
        }.items()
    )
    assert [bisecting.judged(step, s) for s in (worse, same, part, other, none)] == [1, 0, 125, 0, 125]
    any_change = [bisecting.judged(replace(step, any_change=True), s) for s in (same, part, other, busy)]
    assert any_change == [0, 125, 1, 125]


def test_other_instructions_blame_nobody(tmp_path):
    """Any bit may differ then; cells of each commit are made under those that the baseline was."""
    held = environment() | {"instructions": HELD_TO}
    baseline.of(nights.night(environment=held), "a test").write(tmp_path / "base.json")
    step = bisecting.Step(str(tmp_path / "base.json"), nights.PROXY, "nightly", "", any_change=True)
    plain = Store(put(str(tmp_path / "plain"), nights.night(noise=1, environment=held | {"instructions": "AVX512"})))
    assert bisecting.judged(step, plain) == 125
    alike = Store(put(str(tmp_path / "alike"), nights.night(noise=1, environment=held)))
    assert bisecting.judged(step, alike) == 1


def test_cells_of_a_commit_are_held_as_the_baseline_was(tmp_path, monkeypatch):
    """By the two variables, and by nothing where it was not held."""
    seen = []
    monkeypatch.setattr(
        bisecting.subprocess, "run", lambda *_, env, **__: seen.append(env) or SimpleNamespace(returncode=0)
    )
    for name in HELD:
        monkeypatch.delenv(name, raising=False)
    for said in (HELD_TO, "AVX512"):
        made = baseline.of(nights.night(environment=environment() | {"instructions": said}), "a test")
        made.write(tmp_path / "base.json")
        step = bisecting.Step(str(tmp_path / "base.json"), nights.PROXY, "nightly", "")
        assert bisecting._made(step, tmp_path, tmp_path / "store")
    held, plain = seen
    assert HELD.items() <= held.items()
    assert not HELD.keys() & plain.keys()


STEP = """
import pickle, shutil, sys, tempfile
from pathlib import Path
from slimbench import bisecting, discover
from slimbench.store import Store

step, record, network, clock = pickle.loads(Path(sys.argv[1]).read_bytes())
discover.load_plugin(clock)
with tempfile.TemporaryDirectory() as folder:
    store = Store(folder)
    store.put(record)
    shutil.copytree(network, store.artifact(record.id))
    slow = int(Path("number").read_text()) >= 5
    (store.artifact(record.id) / "ms").write_text("10.8" if slow else "10.0")
    status = bisecting.judged(step, store)
sys.exit(status)
"""


def test_the_commit_that_made_it_slower_is_found(repository, stored, tmp_path):
    """Each commit's network takes turns with the baseline's, by a clock of random numbers; counts are not judged."""
    where, commits = repository
    store, file = Store(tmp_path / "store"), tmp_path / "base.json"
    dense, compressed = (sha256(stored[kind] / "manifest.json") for kind in ("dense", "compressed"))
    record = nights.record(0, artifact=dense)
    shutil.copytree(stored["dense"], store.artifact(record.id))
    (store.artifact(record.id) / "ms").write_text("10.0")
    apart = {"clockwork": baseline.Apart(digest(machine()), (0.01, -0.01) * 10)}
    made = replace(baseline.of([record], "a test"), apart=apart)
    made.write(file)
    baseline.keep_networks(made.cells, store, file)
    step = bisecting.Step(str(file), nights.PROXY, "nightly", str(where), profile="clockwork")
    given = tmp_path / "given"
    other = replace(record, artifact=compressed, cost=replace(record.cost, macs=1))
    given.write_bytes(pickle.dumps((step, other, stored["compressed"], str(HERE / "nights.py"))))
    commit, told = bisecting.first_bad(where, commits[0], commits[-1], [sys.executable, "-c", STEP, str(given)])
    assert commit == commits[5], told
