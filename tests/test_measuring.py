"""Measuring: quiet or refused, alone on its device, and in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from slimbench import devices, measure, worker
from slimbench.core import Measurement, MeasurementRecord, Record, UserError
from slimbench.ending import Ending
from slimbench.fresh import apart
from slimbench.hardware_profiles.cpu import CPU

# ---------------------------------------------------------------------------------------------------------- the record


@dataclass(frozen=True)
class Fake:
    """Is disturbed as often as it is told to be."""

    disturbed: int = 0
    threads: int = 1

    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 7
    device: ClassVar[str] = "fake"
    calls: ClassVar[list[tuple[str, str]]] = []

    def unavailable(self) -> str | None:
        return None

    def measure(self, compressed, reference, level) -> Measurement:
        self.calls.append((compressed.name, reference.name))
        fields = {field.name: 1.0 for field in dataclasses.fields(Measurement)}
        pairs = {"load_average": (0.0, 0.0), "clock_mhz": (None, None), "input_shape": (1, 2), "device": {}}
        why = "a planted load" if len(self.calls) <= self.disturbed else None
        return Measurement(**fields | pairs | {"level": level, "disturbed": why, "p50_ms": float(len(self.calls))})


@pytest.fixture
def slept(monkeypatch, tmp_path) -> list[float]:
    """How long measuring rested; locks lie in a folder of the test's own."""
    naps: list[float] = []
    Fake.calls.clear()
    monkeypatch.setenv("BENCH_LOCKS", str(tmp_path))
    monkeypatch.setattr(measure, "time", SimpleNamespace(sleep=naps.append))
    return naps


def record(cell_id: str) -> Record:
    return Record(cell_id, cell_id, {}, "ok", artifact=f"hash of {cell_id}")


def measured(store, profile: Fake, level: str) -> MeasurementRecord:
    """What ``measure`` returns, which must be what it stored."""
    done = measure.measure(record("small"), record("dense"), profile, level, store)
    assert store.measurement(done.id) == done
    assert (done.cell_id, done.reference_id) == ("small", "dense")
    assert set(Fake.calls) == {("small", "dense")}
    return done


def test_a_quiet_measurement_is_stored(store, slept):
    """At once, with the profile's fields and version, under the id that was announced."""
    done = measured(store, Fake(), "full")
    assert (done.status, done.reason, len(Fake.calls), slept) == ("ok", "", 1, [])
    assert done.measurement.disturbed is None
    assert (done.profile["version"], done.profile["threads"]) == (7, 1)
    assert done.id == measure.measurement_id(record("small"), record("dense"), Fake(), "full")
    assert done.finished
    assert done.environment["cpu"]


def test_a_disturbed_quick_measurement_is_kept_and_flagged(store, slept):
    """Indicative is indicative: no second try."""
    done = measured(store, Fake(9), "quick")
    assert (done.status, len(Fake.calls), slept) == ("ok", 1, [])
    assert done.measurement.disturbed == "a planted load"


def test_a_disturbed_full_measurement_is_refused(store, slept):
    """After three tries with rests between them, in words and without a number."""
    done = measured(store, Fake(9), "full")
    assert (done.status, done.reason, done.measurement) == ("failed", "refused: a planted load", None)
    assert (len(Fake.calls), slept) == (3, [20.0, 20.0])


def test_a_full_measurement_may_come_right(store, slept):
    """The quiet try is the one that is kept."""
    done = measured(store, Fake(2), "full")
    assert (done.status, done.reason, len(slept)) == ("ok", "", 2)
    assert (done.measurement.p50_ms, done.measurement.disturbed) == (3.0, None)


def test_ids_tell_measurements_apart():
    """By network, reference, profile and level."""
    small, dense = record("small"), record("dense")
    given = [(small, dense, Fake(), "quick"), (small, dense, Fake(), "full"), (small, dense, Fake(threads=2), "quick")]
    given += [(dense, dense, Fake(), "quick"), (small, small, Fake(), "quick")]
    assert len({measure.measurement_id(*each) for each in given}) == 5


def free(folder: Path, device: str, mode: int = fcntl.LOCK_SH) -> bool:
    """Whether another process could train (or measure: LOCK_EX) on ``device`` now."""
    for part in ("gate", "use"):
        (path,) = folder.glob(f"slimbench-*-{device}.{part}.lock")
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def test_one_measurement_at_a_time_on_a_device(slept, tmp_path):
    """A second holder waits, on the same device only; the lock goes with the block, also after an error."""
    with devices.alone("gpu"):
        pass
    with devices.alone("cpu"):
        assert not free(tmp_path, "cpu")
        assert free(tmp_path, "gpu")
    assert free(tmp_path, "cpu")
    with pytest.raises(ZeroDivisionError), devices.alone("cpu"):
        raise ZeroDivisionError
    assert free(tmp_path, "cpu")


def test_training_shares_the_device_and_measuring_does_not(slept, tmp_path):
    """Cells train beside each other; none beside a measurement."""
    with devices.shared("cpu"), devices.shared("cpu"):
        assert free(tmp_path, "cpu")
        assert not free(tmp_path, "cpu", fcntl.LOCK_EX)
    assert free(tmp_path, "cpu", fcntl.LOCK_EX)


def test_waiting_is_said_and_ends(slept, tmp_path, monkeypatch):
    """A cell waits for the measurement that waits for a cell: the gate is shut until both are done."""
    said, steps = [], iter(["still", "ends"])
    with contextlib.ExitStack() as cell, monkeypatch.context() as patch:
        cell.enter_context(devices.shared("cpu"))

        def sleep(seconds):
            said.append(next(steps))
            assert not free(tmp_path, "cpu"), "later cells wait"
            if said[-1] == "ends":
                cell.close()

        patch.setattr(devices, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
        with devices.alone("cpu", say=said.append) as is_alone:
            assert is_alone
    assert said == ["waits", "still", "ends", "begins"]


def test_a_quick_measurement_waits_with_patience(slept, store, tmp_path, monkeypatch):
    """After half a minute it measures beside the other run's training, and says so; a full one would wait on."""
    now = iter(range(0, 1000, 20))
    naps = []
    monkeypatch.setattr(devices, "time", SimpleNamespace(sleep=naps.append, monotonic=lambda: next(now)))
    with devices.shared("fake"):
        naps.clear()
        assert measured(store, Fake(), "quick").measurement.disturbed == "another run trained on the device"
        assert len(naps) == 1
    assert measure._PATIENCE_S["full"] == float("inf")


def test_measuring_holds_the_device(store, slept, tmp_path, monkeypatch):
    """While the profile runs, and while it rests between tries."""
    seen = []
    monkeypatch.setattr(measure, "time", SimpleNamespace(sleep=lambda seconds: seen.append(free(tmp_path, "fake"))))
    measured(store, Fake(1), "full")
    assert seen == [False]


@pytest.mark.parametrize(("do", "holds"), [("compress", True), ("measure", False)])
def test_a_cell_holds_its_device_while_it_trains(store, slept, tmp_path, monkeypatch, do, holds):
    """So that another run's measurement waits; the runner learns when the time limit begins to count."""
    seen, sent = [], []
    for name in ("compress", "measure"):
        monkeypatch.setattr(worker, name, lambda *a, **k: seen.append(free(tmp_path, "cpu", fcntl.LOCK_EX)))
    with devices.alone("cpu"):
        pass
    cell = SimpleNamespace(settings=SimpleNamespace(device="cpu"))
    job = {"do": do, "store": store.root, "cell": cell, "record": None, "reference": None, "profile": None, "level": ""}
    worker.run(job, SimpleNamespace(send=sent.append), Ending())
    assert seen == [not holds]
    assert sent == ([("begins", None)] if holds else [])


def test_profiles_of_one_processor_share_its_lock():
    """Two runtimes on the same cores would disturb each other; a user's profile that does not say is by itself."""
    assert measure.device_of(CPU()) == "cpu"
    assert measure.device_of(SimpleNamespace(name="board")) == "board"


# ----------------------------------------------------------------------------------------------------- processes apart


def answers(value):
    return value, os.getpid()


def raises(kind):
    raise kind("in words")


def dies():
    os._exit(3)


@pytest.mark.parametrize("anew", [True, False])
def test_an_answer_from_another_process(anew):
    """Its value, and not from here."""
    value, pid = apart(answers, 7, anew=anew)
    assert (value, pid != os.getpid()) == (7, True)


def test_what_goes_wrong_apart_is_told_here():
    """Bad input stays bad input; anything else is an error in words."""
    with pytest.raises(UserError, match=r"^in words$"):
        apart(raises, UserError, anew=False)
    with pytest.raises(RuntimeError, match=r"^ValueError: in words$"):
        apart(raises, ValueError, anew=False)
    with pytest.raises(RuntimeError, match="while it measured, its process ended with exit code 3"):
        apart(dies, anew=False)


def waits(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.parametrize("anew", [True, False])
def test_a_process_apart_ends_with_the_one_that_asked(tmp_path, anew):
    """Nothing goes on measuring for nobody."""
    file = tmp_path / "pid"
    asker = multiprocessing.get_context("fork").Process(target=apart, args=(waits, file), kwargs={"anew": anew})
    asker.start()
    while not (file.exists() and (pid := file.read_text())):
        time.sleep(0.05)
    asker.kill()
    asker.join()
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.05)
