"""The store: what goes in comes out, a corrupt file is named and set aside, and a full disk loses nothing."""

from __future__ import annotations

import errno
import functools
import json
import operator
import os
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from slimbench import cli, schema
from slimbench.core import Cost, Measurement, MeasurementRecord, Record, Scores, Spent, UserError, pack
from slimbench.files import StoreFullError, size_bytes, whole_folder, write_whole
from slimbench.identity import digest
from slimbench.store import Store

COST = Cost(1000, 100, 90, 80, 50, 400, (("add", 0.25), ("relu", 0.125)))
RECORD = Record(
    id="00ff00ff00ff00ff",
    label="stripes/resnet8 fake 0.5 macs seed 1",
    cell={"task": {"is": "stripes", "recipe": {"epochs": 2.0, "clip_norm": None}}, "seed": 1, "reference": False},
    status="off_budget",
    reason="kept 0.6 — not 0.5",
    quality={"top1": Scores(50.0, 1.0, 2.0, pack([1.0, 0.0])), "a_second": Scores(1 / 3, 1.0, 3.0)},
    val_quality={"top1": Scores(75.0, 3.0, 4.0)},
    cost=COST,
    dense_cost=replace(COST, macs=2000, uncounted=()),
    spent=Spent(None, 1.5, 8.0, 768, 48, 0.1, 2**40, "an evolution"),
    notes={"widths": [[1, 2], [3]], "gate": {"conv1": 0.1}, "said": "inf", "nothing": None, "yes": True},
    artifact="ab" * 32,
    reference="1111111111111111",
    published={"name": "theirs", "claimed": 91.73},
    environment={"cpu": "one", "cores": 2, "versions": {"torch": "2"}},
    seconds=12.345,
    finished="2026-01-01T00:00:00+00:00",
)
MEASUREMENT = Measurement(
    1.0, 1.1, 1.2, 0.1, 1.5, 1.5, 1.4, 1.6, 0.02, "quick", "a busy machine", 32, 1, 30, None, 2**30, 0.5, (0.25, 0.5),
    (None, 2400.0), (32, 1, 8, 8),
)  # fmt: skip
MEASURED = MeasurementRecord(
    "2222222222222222", RECORD.id, RECORD.reference, {"is": "cpu", "label": "cpu"}, "ok", "", MEASUREMENT,
    {"cpu": "one"}, "2026-01-01T00:00:00+00:00",
)  # fmt: skip


def file_of(store: Store, record: Record | MeasurementRecord) -> Path:
    kind = "records" if isinstance(record, Record) else "measurements"
    return store.root / kind / f"{record.id}.json"


def parts(folder: Path) -> list[Path]:
    """What a write that was cut short would leave."""
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


# ------------------------------------------------------------------------------------------------------ round trip


def test_a_record_comes_back_equal(store):
    """Every nested type too: scores, costs with their tuples, what was spent."""
    store.put(RECORD)
    assert store.record(RECORD.id) == RECORD
    assert store.records() == [RECORD]
    assert store.statuses() == {RECORD.id: "off_budget"}
    assert not store.warnings


def test_an_empty_record_comes_back_equal(store):
    """A failed cell has no scores, costs or network."""
    failed = Record(id="33", label="it", cell={}, status="failed", reason="it broke")
    store.put(failed)
    assert store.record("33") == failed


def test_a_measurement_comes_back_equal(store):
    """Tuples stay tuples, and None stays None."""
    refused = replace(MEASURED, id="44", status="failed", reason="refused", measurement=None)
    store.put(MEASURED)
    store.put(refused)
    assert store.measurement(MEASURED.id) == MEASURED
    assert store.measurements() == [MEASURED, refused]


def test_the_first_metric_stays_the_first(store):
    """Order is kept, because the first metric is the headline."""
    store.put(RECORD)
    assert list(store.record(RECORD.id).quality) == ["top1", "a_second"]


def test_a_record_replaces_one_of_the_same_id(store):
    """A cell that failed and then went well has one record."""
    store.put(replace(RECORD, status="failed"))
    store.put(RECORD)
    assert store.records() == [RECORD]


def test_absent_records_are_none(store):
    """And nothing to warn of."""
    assert store.record("55") is None
    assert store.measurement("55") is None
    assert not store.warnings


def test_values_that_json_cannot_hold_are_refused(store):
    """A nan would make a file that other readers reject; nothing is written."""
    with pytest.raises(ValueError, match="JSON compliant"):
        store.put(replace(RECORD, notes={"loss": float("nan")}))
    assert not list((store.root / "records").iterdir())


# --------------------------------------------------------------------------------------------------------- corrupt


def altered(text: str) -> str:
    document = json.loads(text)
    document["body"]["status"] = "ok"
    document["body"]["finished"] = "2026-01-02"
    return json.dumps(document)


CORRUPT = {
    "truncated": lambda text: text[: len(text) // 2],
    "altered": altered,
    "empty": lambda text: "",
    "no_json": lambda text: "\x00\x01 not JSON",
    "another_json": lambda text: "[1, 2]",
    "deep_json": lambda text: "[" * 100_000,
    "without_a_body": lambda text: '{"schema": 1}',
}


@pytest.mark.parametrize("how", CORRUPT)
@pytest.mark.parametrize("record", [RECORD, MEASURED], ids=["record", "measurement"])
def test_a_corrupt_file_is_set_aside_and_named(store, record, how):
    """It is not fatal, the others are read, and the file is kept for whoever wants to look."""
    other = replace(record, id="66")
    store.put(record)
    store.put(other)
    file = file_of(store, record)
    file.write_text(CORRUPT[how](file.read_text()))
    assert (store.records() if isinstance(record, Record) else store.measurements()) == [other]
    (warning,) = store.warnings
    assert warning.startswith(f"The record {file.name} is corrupt (")
    assert (store.root / "aside" / file.name).is_file()
    assert not file.exists()


def test_bytes_that_are_no_text_are_set_aside(store):
    """A file of another kind under a record's name."""
    file = file_of(store, RECORD)
    file.write_bytes(b"\xff\xfe\x80")
    assert store.record(RECORD.id) is None
    assert "is corrupt" in store.warnings[0]


def test_a_renamed_file_is_set_aside(store):
    """A record under another cell's id would be taken for that cell."""
    store.put(RECORD)
    file_of(store, RECORD).rename(store.root / "records" / "77.json")
    assert store.record("77") is None
    assert "77.json is corrupt" in store.warnings[0]


def test_a_corrupt_file_is_named_once(store):
    """It has been moved, so the next look finds nothing wrong."""
    file_of(store, RECORD).write_text("")
    for _ in range(2):
        assert store.records() == []
    assert len(store.warnings) == 1


def test_a_newer_schema_is_refused_in_words(store):
    """It is not set aside: a newer SlimBench can read it."""
    store.put(RECORD)
    file = file_of(store, RECORD)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": schema.SCHEMA + 1}))
    with pytest.raises(UserError, match=r"written by a newer SlimBench \(schema \d+\): update first"):
        store.records()
    assert file.exists()


@pytest.mark.parametrize(
    ("record", "where"),
    [(RECORD, ()), (RECORD, ("spent",)), (RECORD, ("quality", "top1")), (MEASURED, ()), (MEASURED, ("measurement",))],
)
def test_a_field_of_a_newer_version_is_refused_in_words(store, record, where):
    """Its checksum says that the file is whole: it stays where it is."""
    store.put(record)
    file = file_of(store, record)
    document = json.loads(file.read_text())
    functools.reduce(operator.getitem, where, document["body"])["novelty"] = 1
    file.write_text(json.dumps(document | {"checksum": digest(document["body"])}))
    with pytest.raises(UserError, match=r"written by a newer SlimBench \(\w+ has no field 'novelty' here\): update"):
        store.latest(record.id)
    assert file.exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_read_is_not_called_corrupt(store, monkeypatch, number):
    """It may be sound: it stays where it is, and what hinders is said."""

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    store.put(RECORD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        for look in (store.records, store.standings):
            with pytest.raises(UserError, match=rf"cannot be read \({os.strerror(number)}\): mend that"):
                look()
    assert store.records() == [RECORD]
    assert list(store.standings()) == [RECORD.id]


# ----------------------------------------------------------------------------------------------------- whole writes


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch, where):
    """And no part of the new."""
    file = tmp_path / "a.json"
    write_whole(file, "old")
    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), no_space)
    with pytest.raises(StoreFullError, match="is full: free some space and run the same command again"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert not parts(tmp_path)


def test_two_that_write_one_file_do_not_meet(store, monkeypatch):
    """In two containers both may be process 1; a part's name begins with its record's, by which it is swept."""
    file, fsync, seen = file_of(store, RECORD), os.fsync, []

    def another_writes_too(number):
        seen.extend(part.name.split(".")[1] for part in parts(store.root))
        monkeypatch.setattr(os, "fsync", fsync)
        write_whole(file, "theirs")
        fsync(number)

    monkeypatch.setattr(os, "fsync", another_writes_too)
    write_whole(file, "ours")
    assert (file.read_text(), seen, parts(store.root)) == ("ours", [RECORD.id], [])


def test_another_error_of_the_disk_stays_itself(tmp_path):
    """Only a full disk is called full."""
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "a.json", "new")


def test_a_full_disk_keeps_the_older_record(store, monkeypatch):
    """Storing is all or nothing."""
    store.put(RECORD)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreFullError):
        store.put(replace(RECORD, status="ok", reason=""))
    assert store.records() == [RECORD]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_disk_that_really_is_full(store, monkeypatch):
    """The system's own ENOSPC, from a part file and from inside a folder, is told apart and cleaned up after."""
    store.put(RECORD)
    monkeypatch.setattr(secrets, "token_hex", lambda count: "any")
    part = store.root / "records" / f".{RECORD.id}.json.any.part"
    part.symlink_to("/dev/full")
    with pytest.raises(StoreFullError):
        store.put(replace(RECORD, status="ok", reason=""))
    with pytest.raises(StoreFullError), whole_folder(store.artifact("88")) as folder:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(bytes(10))
    assert store.records() == [RECORD]
    assert not parts(store.root)
    assert not store.artifact("88").exists()


def test_a_whole_folder_appears_when_it_is_complete(tmp_path):
    """Nobody sees it half filled, and it replaces an older one."""
    final = tmp_path / "artifacts" / "a"
    for text in ("old", "new"):
        with whole_folder(final) as part:
            (part / "text").write_text(text)
            assert not final.exists() or (final / "text").read_text() == "old"
        assert (final / "text").read_text() == text
    assert not parts(tmp_path)


def test_a_whole_folder_is_as_open_as_other_folders(tmp_path):
    """Others share the store: what ``tempfile`` makes is its owner's alone."""
    (tmp_path / "plain").mkdir()
    with whole_folder(tmp_path / "whole"):
        pass
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_an_error_inside_keeps_the_older_folder(tmp_path, error):
    """Whatever goes wrong while it is filled, nothing half-written is left."""
    final = tmp_path / "a"
    with whole_folder(final) as part:
        (part / "text").write_text("old")
    expected = StoreFullError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), whole_folder(final) as part:
        (part / "text").write_text("new")
        raise error
    assert (final / "text").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# ----------------------------------------------------------------------------------------------- opening and finding


def test_a_store_that_cannot_be_written_is_bad_input(tmp_path):
    """A file where the folder should be stands for every reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(.*\): name another with --store"):
        Store(tmp_path / "file")


def test_a_store_that_does_not_exist_is_not_made_for_reading(tmp_path):
    """Reading commands create nothing."""
    with pytest.raises(UserError, match="There is no store in"):
        Store(tmp_path / "absent", create=False)
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_read_is_not_called_empty(store, monkeypatch):
    """Who may not look inside is told so, by every command."""
    scan = os.scandir

    def refuses(folder):
        if str(folder).endswith("records"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        Store(store.root, create=False)
    result = CliRunner().invoke(cli.main, ["plan", "smoke", "--store", str(store.root)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_find_takes_the_start_of_an_id(store):
    """None and several are said so."""
    other = replace(RECORD, id="00aa")
    store.put(RECORD)
    store.put(other)
    assert store.find("00f") == RECORD
    assert store.find(other.id) == other
    with pytest.raises(UserError, match="No record has an id that starts with 'zz'"):
        store.find("zz")
    some = rf"2 records have ids that start with '00': 00aa \({re.escape(RECORD.label)}\), 00f.*; give more of it"
    with pytest.raises(UserError, match=some):
        store.find("00")


def test_find_names_a_corrupt_record(store):
    """The one that was asked for cannot be shown: why is said."""
    file_of(store, RECORD).write_text("")
    with pytest.raises(UserError, match="is corrupt"):
        store.find(RECORD.id)


def test_one_runner_at_a_time(store):
    """The second is told so, and the store is free afterwards, also after an error."""
    with store.one_runner(), pytest.raises(UserError, match="Another `bench` is running"), store.one_runner():
        pass
    with pytest.raises(ZeroDivisionError), store.one_runner():
        raise ZeroDivisionError
    with store.one_runner():
        pass


HOLDS = """
import sys
from slimbench.store import Store
with Store(sys.argv[1]).one_runner():
    print(1, flush=True)
    input()
"""


def test_a_dead_runner_holds_nothing(store):
    """The system lets go of the store when a runner is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(UserError, match="Another `bench` is running"), store.one_runner():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with store.one_runner():
        pass


def test_size_counts_what_lies_below(tmp_path):
    """Bytes of files at any depth."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(bytes(3))
    (tmp_path / "two").write_bytes(bytes(4))
    assert size_bytes(tmp_path) == 7


def test_equal_networks_share_their_timings(tmp_path):
    """Of equal dense ones; the measurement stays one, and a third cell, of another network, has none."""
    from made import measured, record
    from slimbench.methods.dense import Dense
    from slimbench.methods.uniform_width import UniformWidth

    store = Store(tmp_path)
    dense = record(Dense(), artifact="d")
    made = [
        replace(record(UniformWidth(), keep), artifact=network, reference_artifact=start)
        for keep, network, start in ((0.5, "n", "d"), (0.4, "n", "d"), (0.3, "m", "d"), (0.2, "n", "e"))
    ]
    for one in (dense, *made, measured(made[0])):
        store.put(one)
    shared = store.shared_timings()
    assert {m.cell_id for m in shared} == {made[0].id, made[1].id}
    assert len({m.id for m in shared}) == 1
    assert all(m.reference_id == dense.id for m in shared)
    assert [m.cell_id for m in store.timings()] == [made[0].id]
