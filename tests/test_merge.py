"""`bench merge`: stores of several machines become one; what conflicts is said, what is damaged is left out."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slimbench import artifact
from slimbench.cli import main
from slimbench.leases import Leases
from slimbench.store import Store
from test_store import MEASURED, RECORD


@pytest.fixture
def made(stored, tmp_path):
    """A store with a dense record, one that started from it, their networks, a log, and a measurement."""

    def make(name: str) -> Store:
        store = Store(tmp_path / name)
        sums = {}
        for cell, network in (("dd", "dense"), ("cc", "compressed")):
            shutil.copytree(stored[network], store.artifact(cell))
            sums[cell] = artifact.sha256(store.artifact(cell) / "manifest.json")
        store.put(replace(RECORD, id="dd", status="ok", artifact=sums["dd"], reference=""))
        cell = replace(RECORD, id="cc", reference="dd", artifact=sums["cc"], reference_artifact=sums["dd"])
        store.put(cell)
        store.put(replace(MEASURED, id="mm", cell_id="cc", reference_id="dd"))
        store.log("cc").write_text("a line\n")
        (store.root / "evolutions").mkdir()
        (store.root / "evolutions" / "e.json").write_text("{}")
        return store

    return make


@pytest.fixture
def one(made):
    return made("one")


def merge(*stores: Store, into, status: int = 0, more: tuple[str, ...] = ()) -> Result:
    result = CliRunner().invoke(main, ["merge", *(str(s.root) for s in stores), "--into", str(into), *more])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_everything_is_carried_into_an_empty_store(one, tmp_path):
    """Records equal, networks whole, logs and evolutions too; a second time, all is there."""
    target = tmp_path / "all"
    assert (
        merge(one, into=target).stdout
        == f"{one.root}: 2 records, 1 measurements taken, 0 already there, 1 files of evolutions\n"
    )
    into = Store(target)
    assert into.records() == one.records()
    assert into.measurements() == one.measurements()
    for cell in ("cc", "dd"):
        artifact.verify(into.artifact(cell))
    assert into.log("cc").read_text() == "a line\n"
    assert (target / "evolutions" / "e.json").read_text() == "{}"
    assert merge(one, into=target).stdout == f"{one.root}: 0 records, 0 measurements taken, 3 already there\n"
    assert not [*(target / "leases").iterdir(), *(target / "runners").iterdir()]


def test_what_lies_beside_a_network_stays_behind(one, tmp_path):
    """It has no checksum."""
    (one.artifact("dd") / "measured.onnx").write_text("an earlier version's")
    merge(one, into=tmp_path / "all")
    network = Store(tmp_path / "all").artifact("dd")
    assert sorted(file.name for file in network.iterdir()) == ["manifest.json", "program.pt2", "weights.safetensors"]


def test_stores_of_two_machines_are_joined(made, tmp_path):
    """Each has cells that the other lacks; what both have is no conflict, whatever time it took there."""
    one, two = made("one"), made("two")
    two.put(replace(two.record("dd"), seconds=99.0, environment={"cpu": "another"}))
    two.put(replace(RECORD, id="ee", artifact="", reference="", status="unsupported"))
    (one.root / "measurements" / "mm.json").unlink()
    merge(one, two, into=tmp_path / "all")
    into = Store(tmp_path / "all")
    assert sorted(record.id for record in into.records()) == ["cc", "dd", "ee"]
    assert into.record("dd") == one.record("dd")
    assert into.measurement("mm") == two.measurement("mm")


def test_a_failure_gives_way_to_a_result(made, tmp_path):
    """And never the other way."""
    one, two = made("one"), made("two")
    failed = replace(one.record("cc"), status="failed", artifact="", quality={}, reason="it broke")
    one.put(failed)
    shutil.rmtree(one.artifact("cc"))
    (one.root / "measurements" / "mm.json").unlink()
    merge(one, two, one, into=tmp_path / "all")
    into = Store(tmp_path / "all")
    assert into.record("cc") == two.record("cc")
    artifact.verify(into.artifact("cc"))


def test_a_dense_network_that_failed_there_contradicts_nothing(one, tmp_path):
    """It is no other network: what started from ours is taken."""
    into = Store(tmp_path / "all")
    into.put(replace(one.record("dd"), status="failed", artifact="", quality={}))
    for file in ("records/dd.json", "measurements/mm.json"):
        (one.root / file).unlink()
    merge(one, into=into.root)
    assert into.record("cc") == one.record("cc")


def test_two_results_of_one_cell_are_a_conflict_in_words(made, tmp_path):
    """The one that is there stays, with what belongs to it; exit status 1."""
    one, two = made("one"), made("two")
    other = replace(two.record("dd"), quality={"top1": replace(RECORD.quality["top1"], value=51.0)}, artifact="ff" * 32)
    two.put(other)
    two.put(replace(two.record("cc"), id="c2", reference_artifact="ff" * 32))
    result = merge(one, two, into=tmp_path / "all", status=1)
    ours = one.record("dd").artifact[:8]
    assert (
        f"has ok, top1 50.0000, network {ours}, {two.root} ok, top1 51.0000, network ffffffff: the first stays"
        in result.stdout
    )
    assert "(c2): it started from another dense network than the one in" in result.stdout
    assert f"{two.root}: 0 records, 0 measurements taken, 2 already there, 2 in conflict\n" in result.stdout
    into = Store(tmp_path / "all")
    assert into.record("dd") == one.record("dd")
    assert into.record("c2") is None
    found = [json.loads(line) for line in merge_json(two, tmp_path / "all")]
    assert [finding["is_conflict"] for finding in found] == [True, True, False]


def test_a_score_in_its_last_digit_is_no_conflict(made, tmp_path):
    """Of one network: another processor rounds it otherwise. Another metric, or more of a difference, is one."""
    one, two = made("one"), made("two")
    dense = two.record("dd")
    for value, status in ((50.0 * (1 + 1e-14), 0), (50.001, 1)):
        two.put(replace(dense, quality=dense.quality | {"top1": replace(dense.quality["top1"], value=value)}))
        merge(one, two, into=tmp_path / f"all {status}", status=status)
    two.put(replace(dense, quality={"other": dense.quality["top1"]}))
    merge(one, two, into=tmp_path / "all", status=1)


def merge_json(store: Store, into) -> list[str]:
    result = CliRunner().invoke(main, ["merge", str(store.root), "--into", str(into), "--json"])
    return result.stdout.splitlines()


@pytest.mark.parametrize("how", ["altered", "another", "missing"])
def test_a_network_that_is_not_the_records_is_left_out(one, tmp_path, how):
    """With its record and what was timed of it; the rest is taken."""
    folder = one.artifact("cc")
    if how == "altered":
        (folder / "weights.safetensors").write_bytes(b"something else")
    else:
        shutil.rmtree(folder)
    if how == "another":
        shutil.copytree(one.artifact("dd"), folder)
    words = {
        "altered": "does not match its checksum",
        "another": "not the one that its record names",
        "missing": "is missing in",
    }
    result = merge(one, into=tmp_path / "all", status=1)
    assert words[how] in result.stdout
    assert "it timed a network of cc that" in result.stdout
    into = Store(tmp_path / "all")
    assert [record.id for record in into.records()] == ["dd"]
    assert [path.name for path in (into.root / "artifacts").iterdir()] == ["dd"]


def test_a_network_that_the_target_lost_comes_back(one, tmp_path):
    """Its record was there all the time."""
    merge(one, into=tmp_path / "all")
    into = Store(tmp_path / "all")
    shutil.rmtree(into.artifact("cc"))
    assert "1 records, 0 measurements taken, 2 already there" in merge(one, into=into.root).stdout
    artifact.verify(into.artifact("cc"))


def test_records_alone_make_a_store_to_publish(one, made, tmp_path):
    """Also of a store that has no networks itself; what conflicts is found all the same, and no file is copied."""
    shutil.rmtree(one.artifact("cc"))
    into = Store(tmp_path / "all")
    only = ("--records-only",)
    told = f"{one.root}: 2 records, 1 measurements taken, 0 already there\n"
    assert merge(one, into=into.root, more=only).stdout == told
    assert into.records() == one.records()
    assert into.measurements() == one.measurements()
    assert not into.artifact("dd").exists()
    assert not into.log("cc").exists()
    assert not (into.root / "evolutions").exists()
    two = made("two")
    two.put(replace(two.record("dd"), artifact="ff" * 32))
    assert "the first stays" in merge(two, into=into.root, more=only, status=1).stdout
    merge(made("three"), into=into.root)
    artifact.verify(into.artifact("dd"))  # it comes with a merge of everything


def test_a_corrupt_record_is_named_and_stays_where_it_is(one, tmp_path):
    """Somebody else's store is not changed."""
    file = one.root / "records" / "cc.json"
    file.write_text("{")
    result = merge(one, into=tmp_path / "all", status=1)
    assert "The record cc.json is corrupt" in result.stderr
    assert file.read_text() == "{"
    assert [record.id for record in Store(tmp_path / "all").records()] == ["dd"]


def test_what_a_runner_has_is_left_to_it(one, tmp_path):
    """The target may be at work."""
    into = Store(tmp_path / "all")
    with Leases(into.root) as runner:
        runner.take("dd")
        result = merge(one, into=into.root, status=1)
    assert "a runner has it now: merge again when that has ended" in result.stdout
    assert into.record("dd") is None


@pytest.mark.parametrize("part", ["logs", "artifacts", "evolutions"])
def test_a_full_disk_stops_a_merge_and_leaves_nothing_half_copied(one, tmp_path, monkeypatch, part):
    """With room, the same command takes the rest."""
    copyfile = shutil.copyfile

    def fills(source, target):
        if f"/{part}/" not in str(target):
            return copyfile(source, target)
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "all"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fills)
        assert "free some space" in merge(one, into=target, status=2).stderr
    assert not [path for path in target.rglob("*") if path.is_file() and path.read_bytes() == b"half"]
    merge(one, into=target)
    assert (target / "logs/cc.log").read_text() == "a line\n"
    assert len(Store(target).records()) == 2


def test_a_corrupt_record_of_the_target_is_named_too(one, made, tmp_path):
    """It is set aside, and the source's taken."""
    into = made("two")
    (into.root / "records/cc.json").write_text("{")
    assert "two: The record cc.json is corrupt" in merge(one, into=into.root, status=1).stderr
    assert len(Store(into.root).records()) == 2


def test_a_store_is_not_merged_into_itself(one):
    """By whatever name."""
    result = merge(one, into=one.root / ".." / "one", status=2)
    assert "cannot be merged into itself" in result.stderr
