"""Runs from plan to store: every cell ends in a record, whatever its method does, and nothing done is done again."""

from __future__ import annotations

import faulthandler
import os
import pickle
import re
import shutil
import signal
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from conftest import fakes
from runs import SUITE, TASK, alive, go, hanging, more_fakes, of, suite_of, timeless
from slimbench import artifact, checking, identity, process, worker
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Cost, Published, Record, UserError
from slimbench.ending import EndedError, Ending
from slimbench.methods.dense import Dense
from slimbench.run import StoppedError
from slimbench.store import Store
from slimbench.tasks.mnist import MNIST


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store in which the suite has run, one cell at a time, and how that went."""
    store = Store(tmp_path_factory.mktemp("finished") / "store")
    return store, *go(SUITE, store)


@pytest.fixture
def copied(finished, tmp_path) -> Store:
    """A store of one's own that holds the finished one's records and networks."""
    shutil.copytree(finished[0].root, tmp_path / "copied")
    return Store(tmp_path / "copied")


# ------------------------------------------------------------------------------------------------------- all is well


def test_every_cell_ends_in_a_record_and_a_network(finished):
    """Dense and compressed, for both seeds: ok, scored, with a network that agrees with its checksum."""
    store, outcome, _ = finished
    records = store.records()
    assert sorted(record.id for record in records) == sorted(outcome.ids)
    assert [record.status for record in records] == ["ok"] * 4
    assert outcome.failed == 0
    for record in records:
        artifact.verify(store.artifact(record.id))
        assert record.quality["top1"].denominator == 50
        assert record.val_quality["top1"].denominator == 40


def test_the_first_seed_is_measured(finished):
    """Level quick: both networks of seed 0, against the dense one."""
    store, *_ = finished
    dense, fake = (r for r in sorted(store.records(), key=lambda r: r.reference) if r.cell["seed"] == 0)
    measured = {m.cell_id: m for m in store.measurements()}
    assert set(measured) == {dense.id, fake.id}
    assert measured[fake.id].reference_id == dense.id
    assert all(m.measurement.p50_ms > 0 and m.measurement.samples == 30 for m in measured.values())


def test_progress_is_told(finished):
    """Each cell starts, trains, is evaluated and is done."""
    _, _, view = finished
    compressed = view.labels("started")[:4]
    assert view.labels("done")[:4] == compressed
    assert {e.value.get("stage") or e.value["fit"] for e in view.events if e.kind == "progress"} == {
        "dense",
        "fine-tune",
        "evaluate",
        "store",
    }


def test_a_second_run_does_nothing(finished):
    """Nothing starts, and the records stay byte for byte."""
    store, *_ = finished
    before = {path: path.read_bytes() for path in store.root.glob("*/*.json")}
    _, view = go(SUITE, store)
    assert view.events == []
    assert view.said[0] == "quick: 4 cells, 4 done, 0 to do"
    assert {path: path.read_bytes() for path in store.root.glob("*/*.json")} == before


def test_two_at_once_equal_one_at_a_time(finished, store):
    """Same records (scores, costs, notes) and the same networks, bit for bit."""
    go(replace(SUITE, profiles=()), store, jobs=2)
    assert timeless(store) == timeless(finished[0])


def test_alone_equals_in_a_suite(finished, store):
    """A cell does not depend on what else is run, or was run before."""
    go(replace(SUITE, seeds=(1,), profiles=()), store)
    alone = timeless(store)
    assert len(alone) == 2
    assert alone == {i: record for i, record in timeless(finished[0]).items() if i in alone}


# ------------------------------------------------------------------------------------------------------- misbehaviour

CAUSES = {
    "raises": "ValueError: a planted error",
    "segfaults": "its process was killed by SIGSEGV",
    "is_killed": r"its process was killed by SIGKILL \(out of memory\?\)",
    "exits": "its process ended with exit code 7 and said nothing",
    "returns_nothing": "^compress returned None: return the network",
    "returns_two": "^compress returned a tuple: return the network",
    "puts_out_nan": "values that are not finite in 'linear.weight'",
    "changes_shape": r"puts out \(1, 3\), the dense one \(1, 4\)",
    "peeks": "the test split is sealed",
    "peeks_at_batches": "the test split is sealed",
    "overspends": "too long trains for more than the 0 epochs of its budget",
}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-11, "its process was killed by SIGSEGV"),
        (-35, "its process was killed by signal 35"),  # a real-time one, which has no name
        (7, "its process ended with exit code 7 and said nothing"),
    ],
)
def test_an_exit_code_is_told_in_words(code, says):
    """Any signal."""
    assert process.how_it_died(code) == says


MISBEHAVING = suite_of(*(fakes.Misbehaves(how) for how in CAUSES), fakes.Misbehaves("misses_the_budget"))


@pytest.fixture(scope="module")
def misbehaved(finished, tmp_path_factory):
    """A store in which every way of misbehaving was tried, after one that ends well and before one."""
    shutil.copytree(finished[0].root, root := tmp_path_factory.mktemp("misbehaved") / "store")
    store = Store(root)
    return store, *go(MISBEHAVING, store)


@pytest.mark.parametrize("how", CAUSES)
def test_a_failure_is_a_record_with_its_cause(misbehaved, how):
    """In words, with a log that exists, and without a network."""
    store, *_ = misbehaved
    record = of(store, identity.label(fakes.Misbehaves(how)))
    assert record.status == "failed"
    assert re.search(CAUSES[how], record.reason)
    assert f"(log: logs/{record.id}.log)" in record.reason
    assert store.log(record.id).is_file()
    assert not record.artifact
    assert not record.quality


def test_a_crash_leaves_its_trace_in_the_log(misbehaved):
    """Also one that Python knows nothing of."""
    store, *_ = misbehaved
    assert "a planted error" in store.log(of(store, "misbehaves").id).read_text()
    assert "Segmentation fault" in store.log(of(store, "misbehaves(how=segfaults)").id).read_text()


def test_the_other_cells_finish(misbehaved):
    """The one after all the failures is made, and the failures are counted."""
    store, outcome, view = misbehaved
    assert of(store, "misbehaves(how=misses_the_budget)").artifact
    assert outcome.failed == len(CAUSES) == len(view.labels("failed"))


def test_only_what_failed_is_tried_again(misbehaved):
    """The dense network and the one that missed its budget are done."""
    store, *_ = misbehaved
    outcome, view = go(MISBEHAVING, store, jobs=2)
    assert sorted(view.labels("started")) == sorted(
        of(store, identity.label(fakes.Misbehaves(h))).label for h in CAUSES
    )
    assert outcome.failed == len(CAUSES)


def test_missing_the_budget_is_said_with_the_share(misbehaved):
    """Not a failure: the network is there, and what it keeps."""
    store, *_ = misbehaved
    record = of(store, "misbehaves(how=misses_the_budget)")
    assert record.status == "off_budget"
    assert record.reason == "asked to keep 0.5 of macs, kept 1.0000 (tolerance 0.0050)"


def test_a_cell_that_hangs_is_stopped(copied):
    """Its time limit is the reason; its process is gone."""
    outcome, view = go(suite_of(fakes.Misbehaves("hangs")), copied, time_limit_s=1.0)
    assert outcome.failed == 1
    assert view.labels("failed") == [of(copied, "misbehaves(how=hangs)").label]
    assert of(copied, "misbehaves(how=hangs)").reason.startswith("stopped after its time limit of 1 s (log: ")


def test_the_time_limit_is_the_suites_unless_told_otherwise(copied):
    """A suite knows how long its cells may take."""
    go(replace(suite_of(fakes.Misbehaves("hangs")), time_limit_s=0.5), copied)
    assert "time limit of 0.5 s" in of(copied, "misbehaves(how=hangs)").reason


def test_a_cell_that_cannot_exist_is_unsupported(copied):
    """With the method's reason; it is final and not a failure."""
    suite = suite_of(fakes.Misbehaves("unsupported"))
    outcome, _ = go(suite, copied)
    record = of(copied, "misbehaves(how=unsupported)")
    assert (record.status, record.reason) == ("unsupported", "it is not to be had")
    assert outcome.failed == 0
    assert go(suite, copied)[1].events == []


def test_what_starts_from_a_failure_fails_too(store):
    """And says so, with the first cause; nothing of it is run."""
    outcome, view = go(suite_of(fakes.Fake(), reference=fakes.Misbehaves("raises")), store)
    assert view.labels("started") == [of(store, "misbehaves").label]
    assert of(store, "fake").status == "failed"
    assert of(store, "fake").reason.startswith("what it starts from failed: ValueError: a planted error")
    assert outcome.failed == 2


def test_a_repeat_that_fails_leaves_the_result_of_before(store):
    """A cell whose network is gone is made again: it counts as failed, and so does its heir, but no record is lost."""
    suite = suite_of(fakes.Fake(), reference=fakes.Misbehaves("raises"))
    go(suite, store)
    before = [replace(record, status="ok", reason="") for record in store.records()]
    for record in before:
        store.put(record)
    outcome, view = go(suite, store)
    assert (outcome.failed, len(view.labels("failed"))) == (2, 2)
    assert store.records() == before


def test_a_process_that_will_not_end_does_not_hold_up_the_run(copied):
    """A method that leaves a thread behind has given its result."""
    outcome, _ = go(suite_of(more_fakes.Disturbs("lingers")), copied)
    assert outcome.failed == 0
    assert of(copied, "disturbs").status == "off_budget"


def test_a_full_disk_stops_the_run(copied):
    """Every other cell would meet it too: it is no failure of the method, and nothing is recorded."""
    before = copied.statuses()
    with pytest.raises(StoppedError, match="free some space"):
        go(suite_of(more_fakes.Disturbs("fills_the_disk"), fakes.Misbehaves()), copied)
    assert copied.statuses() == before


@pytest.mark.parametrize(
    ("task", "words"),
    [(MNIST(), "data of mnist are missing"), (replace(TASK, network="resnet9"), "6n . 2 layers")],
    ids=["data", "network"],
)
def test_what_every_cell_would_miss_stops_the_run_before_it_begins(store, tmp_path, monkeypatch, task, words):
    """Data and networks are looked at first: nothing is trained, nothing is recorded."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(StoppedError, match=words):
        go(suite_of(fakes.Fake(), task=task), store)
    assert store.records() == []


class Selects(fakes.Fake):
    """A method that chooses on the validation split."""

    card = replace(fakes.CARD, selects_on_val=True)


class Known(fakes.Stripes):
    """A task with published weights."""

    def published(self):
        return Published("theirs", "0" * 64, 90.0, "somewhere")


def test_choosing_on_val_and_published_weights_do_not_go_together(store):
    """Those weights have seen val; a method that does not choose on it may start from them."""
    dense = Cell(Known(), Dense(), Budget(1.0), 0)
    cost = Cost(1, 1, 1, 1, 1, 1)
    store.put(Record(identity.cell_id(dense), "dense", {}, "ok", cost=cost, dense_cost=cost))
    record = compress(Cell(Known(), Selects(), Budget(0.5), 0, reference=dense), store)
    assert record.status == "unsupported"
    assert "chooses on the validation split, which these published weights have seen" in record.reason
    assert store.record(record.id) == record


# ------------------------------------------------------------------------------------------------------------- options


def test_fail_fast_stops_at_the_first_failure(copied):
    """It is recorded; what comes after it is left for the next run."""
    outcome, view = go(suite_of(fakes.Misbehaves("raises"), fakes.Misbehaves("unsupported")), copied, fail_fast=True)
    assert outcome.failed == 1
    assert any("stopped at the first failure: stripes" in text for text in view.said)
    assert sorted(set(copied.statuses().values())) == ["failed", "ok"]


def test_fail_fast_makes_nothing_again(copied):
    """Not what started from a dense network that came out otherwise meanwhile, either."""
    dense = next(record for record in copied.records() if not record.reference and record.cell["seed"] == 0)
    heir = next(record for record in copied.records() if record.reference == dense.id)
    copied.put(replace(dense, artifact="0" * 64))
    copied.put(replace(heir, reference_artifact="0" * 64))
    shutil.rmtree(copied.artifact(dense.id))
    suite = suite_of(fakes.Misbehaves("raises"))
    _, view = go(replace(suite, arms=(*suite.arms, *SUITE.arms)), copied, fail_fast=True)
    assert copied.record(dense.id).artifact == dense.artifact
    assert not any("made again" in text for text in view.said)


def test_stopping_ends_what_runs_beside(copied):
    """No process is left of the cell that was under way."""
    before = set(psutil.Process().children(recursive=True))
    outcome, _ = go(suite_of(fakes.Misbehaves("hangs"), fakes.Misbehaves("raises")), copied, fail_fast=True, jobs=2)
    assert outcome.failed == 1
    assert alive([p for p in psutil.Process().children(recursive=True) if p not in before]) == []


def test_limit_runs_so_many_cells(copied):
    """The next run goes on with the others."""
    suite = suite_of(fakes.Misbehaves("unsupported"), fakes.Misbehaves("raises"))
    _, first = go(suite, copied, limit=1)
    _, second = go(suite, copied, limit=1)
    assert [first.labels("started"), second.labels("started")] == [
        [of(copied, "misbehaves(how=unsupported)").label],
        [of(copied, "misbehaves").label],
    ]


def test_the_time_that_is_expected_is_that_of_the_cells_that_are_run(copied):
    """Of one of four."""
    longest_s = max(record.seconds for record in copied.records())
    _, view = go(replace(SUITE, seeds=(2, 3), profiles=()), copied, limit=1)
    assert 0 < view.expected_s["compress"] <= longest_s


# -------------------------------------------------------------------------------------------- what lies in the store


def test_a_truncated_record_is_made_again(finished, copied):
    """It alone, and the reader is told why."""
    victim = next(record for record in copied.records() if record.reference)
    file = copied.root / "records" / f"{victim.id}.json"
    file.write_text(file.read_text()[:100])
    _, view = go(SUITE, copied)
    assert "set aside" in view.said[0]
    assert file.name in view.said[0]
    assert view.labels("started") == [victim.label]
    assert timeless(copied) == timeless(finished[0])


def test_a_deleted_network_is_made_again(finished, copied):
    """It alone; it is the same again, so its measurement still counts."""
    victim = next(record for record in copied.records() if not record.reference)
    shutil.rmtree(copied.artifact(victim.id))
    _, view = go(SUITE, copied)
    assert view.labels("started") == [victim.label]
    assert timeless(copied) == timeless(finished[0])
    artifact.verify(copied.artifact(victim.id))


def test_what_started_from_another_dense_network_is_made_again(copied):
    """Its difference to dense would be paired with a network that it never saw."""
    dense = next(record for record in copied.records() if not record.reference)
    copied.put(replace(dense, artifact="0" * 64))
    _, view = go(SUITE, copied)
    heirs = [record.label for record in copied.records() if record.reference == dense.id]
    assert [label for label in view.labels("started") if " on " not in label] == heirs


def test_a_cell_that_dies_between_network_and_record_is_made_again(finished, copied, monkeypatch):
    """A new network beside the old record would be taken for the one that it names."""
    from slimbench import compress as compressing

    dense = next(record for record in copied.records() if not record.reference and record.cell["seed"] == 0)
    shutil.rmtree(copied.artifact(dense.id))

    def dies(*known):
        raise SystemExit("killed")

    monkeypatch.setattr(compressing, "judge", dies)
    with pytest.raises(SystemExit):
        compress(Cell(TASK, Dense(), Budget(1.0), 0), copied)
    assert copied.record(dense.id) is None
    go(SUITE, copied)
    assert timeless(copied) == timeless(finished[0])


def test_a_dense_network_that_is_not_its_records_is_not_started_from(copied):
    """Nor called sound by `bench check`."""
    one, other = (record for record in copied.records() if not record.reference)
    shutil.rmtree(copied.artifact(one.id))
    shutil.copytree(copied.artifact(other.id), copied.artifact(one.id))
    reference = Cell(TASK, Dense(), Budget(1.0), one.cell["seed"])
    with pytest.raises(UserError, match="is not the network that its record names"):
        compress(Cell(TASK, fakes.Fake(), Budget(0.5), one.cell["seed"], reference=reference), copied)
    found = [one for one in checking.check((), str(copied.root)) if one.what.startswith("network")]
    assert [("record names" in finding.text, finding.is_good) for finding in found] == [(True, False)]


def test_what_was_trained_from_another_dense_network_is_not_gone_on_with(copied, tmp_path, monkeypatch):
    """A checkpoint is of the network that its cell began from."""
    dense = next(record for record in copied.records() if not record.reference and record.cell["seed"] == 0)
    cell = Cell(TASK, more_fakes.Disturbs("trains_slowly"), Budget(0.5, epochs=1.0), 0)
    cell = replace(cell, reference=Cell(TASK, Dense(), Budget(1.0), 0))
    monkeypatch.setenv("BENCH_MARKS", str(tmp_path))
    asked = Ending()
    asked.asked = True
    with pytest.raises(EndedError):
        compress(cell, copied, ending=asked)
    work = copied.work(identity.cell_id(cell))
    assert [path.name for path in work.iterdir()] == [dense.artifact[:16]]
    (work / dense.artifact[:16]).rename(work / ("0" * 16))
    compress(cell, copied)
    assert (tmp_path / "steps").read_text().split().count("0") == 2, "it began anew"
    assert not work.exists()


def test_a_measurement_that_crashes_leaves_a_record(copied, monkeypatch):
    """With its cause; the next run tries it again."""
    import slimbench.run as runner

    victim = copied.measurements()[0]
    (copied.root / "measurements" / f"{victim.id}.json").unlink()
    monkeypatch.setattr(runner, "MEASURE_LIMIT_S", 1e-6)
    outcome, _ = go(SUITE, copied)
    assert outcome.failed == 1
    assert "time limit" in copied.measurement(victim.id).reason


def test_networks_of_another_machine_are_measured(copied):
    """What is not done stays so, and what is done is measured."""
    for path in copied.root.glob("measurements/*"):
        path.unlink()
    more = replace(SUITE, seeds=(0, 1, 2))
    outcome, view = go(more, copied, measure_only=True)
    assert outcome.failed == 0
    assert len(copied.timings()) > 0
    assert len(copied.records()) == len(outcome.ids) - 2
    assert all(" on " in label for label in view.labels("done"))


def test_a_damaged_measurement_is_taken_again(copied):
    """The reader is told, and no cell is touched."""
    victim = copied.measurements()[0]
    file = copied.root / "measurements" / f"{victim.id}.json"
    file.write_text("")
    _, view = go(SUITE, copied)
    assert any("set aside" in text for text in view.said)
    assert view.labels("started") == [f"{copied.record(victim.cell_id).label} on {victim.profile['label']}"]
    assert copied.measurement(victim.id).measurement is not None


def test_a_refused_measurement_is_taken_again(copied):
    """The machine may be quieter today."""
    victim = copied.measurements()[0]
    copied.put(replace(victim, status="failed", measurement=None, reason="refused"))
    _, view = go(SUITE, copied)
    assert len(view.labels("started")) == 1
    assert copied.measurement(victim.id).status == "ok"


# ------------------------------------------------------------------------------------------------- runners that are cut


def test_a_killed_runner_leaves_no_process_and_loses_nothing(copied):
    """What it had finished is there, and the next run does none of it again."""
    made = next(r for r in copied.records() if r.reference and r.cell["seed"] == 0)
    (copied.root / "records" / f"{made.id}.json").unlink()
    with hanging(copied) as (runner, below):
        assert below
        runner.kill()
    assert alive(below) == []
    assert copied.record(made.id).status == "ok"
    assert go(SUITE, copied)[1].events == []


def test_an_interrupted_runner_says_one_sentence(copied):
    """Ctrl-C reaches every process of the terminal: exit status 130, none left, and the next run goes on."""
    with hanging(copied) as (runner, below):
        os.killpg(runner.pid, signal.SIGINT)
        _, said = runner.communicate()
    assert runner.returncode == 130
    assert said == "bench: interrupted; what is stored is kept, and the same command goes on from there.\n"
    assert alive(below) == []
    assert go(SUITE, copied)[1].events == []


def test_a_terminated_runner_ends_in_order(copied):
    """What a cluster sends before it kills: exit status 143, no process left, no lease, and the next run goes on."""
    with hanging(copied) as (runner, below):
        runner.send_signal(signal.SIGTERM)
        _, said = runner.communicate()
    assert runner.returncode == 143
    assert said == "bench: interrupted; what is stored is kept, and the same command goes on from there.\n"
    assert alive(below) == []
    assert not list((copied.root / "leases").iterdir())
    assert not list((copied.root / "runners").iterdir())
    assert go(SUITE, copied)[1].events == []


def test_a_worker_mends_its_thread_pool_before_anything_runs_beside_it(tmp_path, monkeypatch):
    """Two threads that use torch first after a fork race for its pool, and one finds none."""
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", lambda n: seen.append("pool"))
    monkeypatch.setattr(threading.Thread, "start", lambda thread: seen.append("thread"))
    monkeypatch.setattr(os, "dup2", lambda *a: None)
    monkeypatch.setattr(os, "setpgid", lambda *a: None)
    monkeypatch.setattr(signal, "signal", lambda *a: None)
    monkeypatch.setattr(faulthandler, "enable", lambda *a: None)
    monkeypatch.setattr(worker, "run", lambda *a: seen.append("job"))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with (tmp_path / "log").open("w") as output:
        worker.main(SimpleNamespace(send=lambda message: None), pickle.dumps({}), (), output, {})
    assert seen == ["pool", "thread", "job"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_a_worker_has_started(number):
    """It is not lost, and comes to whom it would have come."""
    seen = []
    before = signal.signal(number, lambda *received: seen.append("handled"))
    try:
        with process.undisturbed():
            signal.raise_signal(number)
            seen.append("started")
        assert seen == ["started", "handled"]
    finally:
        signal.signal(number, before)
