"""Leases: one runner a job, the dead one's are taken over, and no clock decides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from slimbench import leases as leasing
from slimbench.leases import Claims, Leases

HOLDS = """
import sys
from pathlib import Path
from slimbench.leases import Leases
with Leases(Path(sys.argv[1]), "it") as leases:
    print(leases.take("job"), flush=True)
    input()
"""


@pytest.fixture
def clock(monkeypatch):
    """This process's steady clock, by hand, in seconds."""
    hands = [1000.0]
    monkeypatch.setattr(leasing.time, "monotonic", lambda: hands[0])
    return hands


@pytest.fixture
def killed(store) -> str:
    """The name of a runner that was killed with a lease on "job"."""
    command = [sys.executable, "-c", HOLDS, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"True\n"
        process.send_signal(signal.SIGKILL)
    (name,) = (path.name for path in (store.root / "runners").iterdir())
    return name


class Elsewhere(Leases):
    """A runner of another machine: its lock says nothing here."""

    def __init__(self, root):
        super().__init__(root)
        self.facts["boot"] = "another machine"


def left(store) -> list[str]:
    return sorted(path.name for folder in ("leases", "runners") for path in (store.root / folder).iterdir())


def test_a_job_is_one_runners(store):
    """The second is refused, and gets it when the first has given it back; nothing is left at the end."""
    with Leases(store.root) as one, Leases(store.root) as two:
        assert one.take("job")
        assert not two.take("job")
        assert not one.take("job")
        assert two.holder("job") == one.name
        one.drop("job")
        assert two.take("job")
        assert two.take("another")
    assert left(store) == []


def test_a_runner_that_was_killed_here_is_dead_at_once(store, killed):
    """The system let go of its lock; its lease is taken over and the whole of it removed at last."""
    with Leases(store.root) as leases:
        assert leases.holder("job") is None
        assert leases.take("job")
        assert leases.others() == []
    assert left(store) == []


def test_a_runner_that_stands_still_here_is_alive_for_as_long_as_its_patience(store, clock):
    """Its lock is held, so only its silence can tell."""
    with Leases(store.root, beat_s=1e6) as still, Leases(store.root, beat_s=1e6) as other:
        assert still.take("job")
        assert not other.take("job")
        clock[0] += leasing.PATIENCE_S - 1
        assert not other.take("job")
        clock[0] += 2
        assert other.take("job")
        assert still.lost() == {"job"}
        still.drop("job")
        assert other.holder("job") == other.name
        assert other.lost() == set()


@pytest.mark.parametrize("step_s", [7.0, -3600.0, 1e8], ids=["on", "back", "far ahead"])
def test_every_touch_is_a_sign_of_life_whatever_its_clock_says(store, clock, step_s):
    """Clocks differ and go backwards: what counts is that the file changes, by the observer's steady clock."""
    with Elsewhere(store.root) as there, Leases(store.root) as here:
        assert there.take("job")
        file = store.root / "runners" / there.name
        for beat in range(4):
            assert not here.take("job")
            clock[0] += leasing.PATIENCE_S - 1
            os.utime(file, (1e9 + beat * step_s, 1e9 + beat * step_s))
        assert not here.take("job")
        clock[0] += leasing.PATIENCE_S + 1
        assert here.take("job")


def test_a_runner_that_was_never_seen_is_watched_first(store, clock):
    """Its file may be old by this machine's clock, and the runner well."""
    with Elsewhere(store.root) as there, Leases(store.root) as here:
        there.take("job")
        os.utime(store.root / "runners" / there.name, (0, 0))
        assert not here.take("job")
        assert here.others() == [there.name]


def test_the_beat_touches_the_file(store):
    """A thread of its own does it."""
    with Leases(store.root, beat_s=0.01) as leases:
        file = store.root / "runners" / leases.name
        os.utime(file, (0, 0))
        while file.stat().st_mtime == 0:
            pass  # the test's own time limit ends it


def test_a_runner_that_was_taken_for_dead_lives_again(store, clock):
    """Its file was removed meanwhile: its next beat brings it back, locked, and nobody does its new jobs too."""
    with Leases(store.root, beat_s=1e6) as woken, Leases(store.root, beat_s=1e6) as other:
        assert other.others() == [woken.name]
        clock[0] += leasing.PATIENCE_S + 1
        assert other.others() == []
        woken._touch()
        assert woken.take("new")
        assert not other.take("new")
        assert other.others() == [woken.name]
    assert left(store) == []


def test_the_last_beat_is_over_before_a_runner_leaves(store):
    """It would bring the file back for good."""
    begun = threading.Event()

    class Slow(Leases):
        def _touch(self):
            begun.set()
            self._over.wait()
            time.sleep(0.1)
            super()._touch()

    with Slow(store.root, beat_s=0.01) as leases:
        begun.wait()
    leases._heart.join()
    assert left(store) == []


def test_of_many_that_want_a_dead_ones_job_one_gets_it(store, killed):
    """However they come: also in the place of one that died in the dead one's place."""
    runners = [Leases(store.root).__enter__() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            got = list(pool.map(lambda one: one.take("job"), runners))
            assert sum(got) == 1
            winner = runners[got.index(True)]
            assert {one.holder("job") for one in runners} == {winner.name}
            winner.drop("job")
    for one in runners:
        one.__exit__()
    assert [name for name in left(store) if name != killed] == []


def test_a_chain_of_dead_runners_is_followed_to_its_end(store, killed):
    """The successor's name stands behind the dead one's."""
    with Leases(store.root) as leases:
        leases.take("job")
        assert left(store)[:2] == ["job", f"job.{killed}"]
        with Leases(store.root) as late:
            assert not late.take("job")
            leases.drop("job")
            assert late.take("job")


def test_a_claim_finds_what_another_has_made_meanwhile(store):
    """A record that was not there when the run was planned; an old failure is none."""
    records = {"new": "a result", "failed": "an old failure"}
    with Leases(store.root) as leases, Leases(store.root) as other:
        claims = Claims(leases, records.get, {"failed": "an old failure"})
        other.take("theirs")
        assert claims.ask("theirs") == ("theirs", None)
        assert claims.ask("new") == ("made", "a result")
        assert claims.ask("failed") == ("mine", None)
        assert claims.ask("fresh") == ("mine", None)
        assert leases.held == {"failed", "fresh"}


def test_sweeping_leaves_what_a_living_runner_writes(store, killed):
    """What a dead one left goes; what is young stays, even where nobody seems to live: one may only be still."""

    def parts():
        return sorted(path.name for path in store.root.glob("*/.*.part"))

    with Leases(store.root) as living, Leases(store.root) as sweeper:
        living.take("busy")
        for name in (".busy.json.1.part", ".job.json.1.part", ".young.json.1.part"):
            (store.root / "records" / name).touch()
        (store.root / "artifacts" / ".job.abc.part").mkdir()
        for old in store.root.glob("*/.*.part"):
            if "young" not in old.name:
                os.utime(old, (0, 0))
        store.sweep(sweeper)
        assert parts() == [".busy.json.1.part", ".young.json.1.part"]
    with Leases(store.root) as sweeper:
        store.sweep(sweeper)
        assert parts() == [".young.json.1.part"]
