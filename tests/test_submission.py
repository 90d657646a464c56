"""Archives: what is in them, what is refused, and what `bench verify` finds: a planted fault each."""

from __future__ import annotations

import functools
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from made import measured, record
from slimbench import artifact, cost, described, discover, submission, verifying
from slimbench.cli import main
from slimbench.core import Scores, UserError, pack
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.reports.site import collection
from slimbench.store import Store
from slimbench.tasks.digits import Digits


@functools.cache
def counted():
    """What the dense network of digits counts."""
    task = Digits()
    return cost.count(task.deploy(task.build()), task.example())


@pytest.fixture
def store(tmp_path):
    """A dense network and a smaller one that was timed."""
    made = Store(tmp_path / "store")
    dense = counted()
    made.put(record(Dense(), top1=92.0, cost=dense, dense_cost=dense))
    half = replace(dense, macs=dense.macs // 2)
    made.put(small := record(DCSS(), 0.5, top1=91.0, cost=half, dense_cost=dense))
    made.put(measured(small))
    return made


def packed(store, tmp_path, **more):
    submission.pack(store, file := tmp_path / "sent.zip", **more)
    return file


def rewritten(file, change):
    """The archive with its files changed: ``change`` takes and returns names with bytes."""
    with zipfile.ZipFile(file) as old:
        content = change({name: old.read(name) for name in old.namelist()})
    with zipfile.ZipFile(file, "w") as new:
        for name, body in content.items():
            new.writestr(name, body)
    return file


def resealed(content, **changes):
    """Files with a manifest whose checksums fit them: what somebody who cheats would send."""
    import hashlib

    manifest = json.loads(content.pop(submission.MANIFEST)) | changes
    manifest["sha256"] = {name: hashlib.sha256(body).hexdigest() for name, body in content.items()}
    return {submission.MANIFEST: json.dumps(manifest).encode(), **content}


def test_there_and_back(store, tmp_path):
    """The records come back equal, the environment is named, the same store gives the same bytes."""
    file = packed(store, tmp_path)
    found = collection.gather([file])
    assert list(found.records) == store.records()
    assert list(found.measurements) == store.measurements()
    with zipfile.ZipFile(file) as archive:
        manifest = json.loads(archive.read(submission.MANIFEST))
        assert not any(name.startswith("artifacts") for name in archive.namelist())
    assert manifest["environments"] == [store.records()[0].environment]
    first = file.read_bytes()
    assert packed(store, tmp_path).read_bytes() == first
    assert verifying.verify(file) == ("2 records, 1 measurements, 3 tables, 0 networks, 2 ids worked out again", [])


def test_a_changed_file_is_refused(store, tmp_path):
    """One byte of a record: its checksum in the list no longer fits."""

    def change(content):
        name = next(name for name in content if name.startswith("records/"))
        return content | {name: content[name].replace(b"ok", b"OK", 1)}

    with pytest.raises(UserError, match="does not match its checksum"):
        verifying.verify(rewritten(packed(store, tmp_path), change))


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "records/../../evil.json", "run.py"])
def test_names_that_lead_elsewhere_are_refused(store, tmp_path, name):
    """Also where the list of checksums has them."""
    file = rewritten(packed(store, tmp_path), lambda content: resealed(content | {name: b"{}"}))
    with pytest.raises(UserError, match="it is refused"):
        verifying.verify(file)
    assert not (tmp_path / "evil.json").exists()


def test_what_is_no_archive(store, tmp_path):
    """Text, another zip, a newer schema, a file that is not listed: one sentence each."""
    text, other = tmp_path / "text.zip", tmp_path / "other.zip"
    text.write_text("no")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a", "b")
    for file in (text, other):
        with pytest.raises(UserError, match="no archive"):
            verifying.verify(file)
    encrypted = bytearray(packed(store, tmp_path).read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both of a file's heads
        start = -1
        while (start := encrypted.find(mark, start + 1)) >= 0:
            encrypted[start + place] |= 1
    (tmp_path / "encrypted.zip").write_bytes(encrypted)
    with pytest.raises(UserError, match="no archive"):
        verifying.verify(tmp_path / "encrypted.zip")
    with pytest.raises(UserError, match="update first"):
        verifying.verify(rewritten(packed(store, tmp_path), lambda content: resealed(content, schema=99)))
    with pytest.raises(UserError, match="not both"):
        verifying.verify(rewritten(packed(store, tmp_path), lambda content: content | {"records/ff.json": b"{}"}))


def test_wrong_checksums_inside_a_record_are_found(store, tmp_path):
    """The list fits the file, and the file's own checksum does not fit its body."""

    def change(content):
        name = next(name for name in content if name.startswith("records/"))
        return resealed(content | {name: content[name].replace(b'"status": "ok"', b'"status": "failed"', 1)})

    _, findings = verifying.verify(rewritten(packed(store, tmp_path), change))
    assert any("checksum does not match" in finding for finding in findings)


def test_wrong_arithmetic_is_found(store, tmp_path):
    """A score that is not what was divided."""
    scores = Scores(99.0, 3.0, 4.0, pack([1.0, 1.0, 1.0, 0.0]))
    store.put(replace(record(DCSS(), 0.25, macs=250), quality={"top1": scores}))
    _, findings = verifying.verify(packed(store, tmp_path))
    assert any("top1" in finding for finding in findings)


def test_records_without_sense_are_found(store, tmp_path):
    """Well-formed, with right checksums, and a cell of which no table can be made: a finding, no traceback."""
    store.put(replace(record(DCSS(), 0.25, macs=250), cell={"seed": 0}))
    _, findings = verifying.verify(packed(store, tmp_path))
    assert any("no tables can be made" in finding for finding in findings)


def test_a_measurement_without_its_cell_is_found(store, tmp_path):
    """Somebody's timing of nothing."""
    store.put(measured(record(DCSS(), 0.25, macs=250)))
    _, findings = verifying.verify(packed(store, tmp_path))
    assert ["not in it" in finding for finding in findings] == [True]


@pytest.fixture
def network(store):
    """A network in the store whose record counts it rightly."""
    model, example = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()).eval(), torch.zeros(1, 1, 8, 8)
    made = record(DCSS(), 0.3, cost=cost.count(model, example), dense_cost=counted())
    store.put(made := replace(made, artifact=artifact.save(model, example, store.artifact(made.id))))
    return made


def test_networks_are_counted_again(store, network, tmp_path):
    """What the record says agrees with its network; one parameter more or another network is found."""
    looked, findings = verifying.verify(packed(store, tmp_path, with_networks=True))
    assert "1 networks" in looked
    assert findings == []
    store.put(replace(network, cost=replace(network.cost, macs=network.cost.macs - 1)))
    _, findings = verifying.verify(packed(store, tmp_path, with_networks=True))
    assert [f"{network.cost.macs} in its network" in finding for finding in findings] == [True]
    for name in ("params", "nonzero", "bytes"):
        more = replace(network.cost, **{name: getattr(network.cost, name) + 1})
        if name == "nonzero":
            more = replace(more, params=more.params + 1)
        store.put(replace(network, cost=more))
        _, findings = verifying.verify(packed(store, tmp_path, with_networks=True))
        assert any(f"{name} in the record" in finding for finding in findings), name
    store.put(replace(network, artifact="0" * 64))
    _, findings = verifying.verify(packed(store, tmp_path, with_networks=True))
    assert ["not the one that the record names" in finding for finding in findings] == [True]


def test_a_network_that_is_no_program_is_found(store, network, tmp_path):
    """Its checksums agree: whoever made it made them too."""
    folder = store.artifact(network.id)
    (folder / "program.pt2").write_bytes(b"no program")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["program.pt2"] = artifact.sha256(folder / "program.pt2")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store.put(replace(network, artifact=artifact.sha256(folder / "manifest.json")))
    _, findings = verifying.verify(packed(store, tmp_path, with_networks=True))
    assert ["its network cannot be loaded" in finding for finding in findings] == [True]


def test_what_lies_beside_a_network_is_not_sent(store, network, tmp_path):
    """It has no checksum."""
    (store.artifact(network.id) / "measured.onnx").write_text("an earlier version's")
    with zipfile.ZipFile(packed(store, tmp_path, with_networks=True)) as archive:
        sent = [name.rpartition("/")[2] for name in archive.namelist() if name.startswith("artifacts")]
    assert sent == ["manifest.json", "program.pt2", "weights.safetensors"]


def test_what_is_not_ours_stays_here(store, network, tmp_path):
    """Networks that started from published weights, or of other data, are not packed."""
    assert submission.may_be_passed_on(network)
    assert not submission.may_be_passed_on(replace(network, published={"claimed": 92.0}))
    task = network.cell["task"] | {"is": "camvid"}
    assert not submission.may_be_passed_on(replace(network, cell={**network.cell, "task": task}))
    store.put(replace(network, published={"claimed": 92.0, "source": "s", "note": "n"}))
    assert verifying.verify(packed(store, tmp_path, with_networks=True))[0].count(", 0 networks") == 1


def test_the_commands(store, tmp_path):
    """Status 0 where nothing is wrong, 1 for a finding, 2 for what cannot be read or written."""
    file, run = tmp_path / "sent.zip", CliRunner().invoke
    done = run(main, ["submit", "--store", str(store.root), "--out", str(file)])
    assert (done.exit_code, "2 records, 1 measurements, 0 networks" in done.output) == (0, True)
    done = run(main, ["verify", str(file)])
    assert (done.exit_code, "nothing wrong" in done.output) == (0, True)
    store.put(measured(record(DCSS(), 0.25, macs=250)))
    run(main, ["submit", "--store", str(store.root), "--out", str(file)])
    assert run(main, ["verify", str(file)]).exit_code == 1
    file.write_text("no")
    assert run(main, ["verify", str(file)]).exit_code == 2
    done = run(main, ["submit", "--store", str(store.root), "--out", str(tmp_path / "none" / "sent.zip")])
    assert (done.exit_code, "cannot be written" in done.output) == (2, True)
    done = run(main, ["submit", "--store", str(Store(tmp_path / "empty").root), "--out", str(file)])
    assert (done.exit_code, "nothing to submit" in done.output) == (2, True)


def test_ids_are_worked_out_again(store, tmp_path):
    """A cell that is another than its id says is found: its seed, its budget, a hyper-parameter, its dense network."""
    assert verifying.verify(packed(store, tmp_path))[0].endswith("2 ids worked out again")
    (small,) = (found for found in store.records() if found.reference)
    budget = small.cell["budget"]
    changes = (
        {"cell": {**small.cell, "seed": 7}},
        {"cell": {**small.cell, "budget": {**budget, "keep": 0.75}}},
        {"cell": {**small.cell, "method": {**small.cell["method"], "search_lr": 9.0}}},
        {"cell": {**small.cell, "data": "0" * 64}},
        {"reference": "0" * 16},
    )
    for change in changes:
        store.put(replace(small, **change))
        _, findings = verifying.verify(packed(store, tmp_path))
        assert any(f"{small.id}: its cell gives the id" in finding for finding in findings), change


def test_ids_that_cannot_be_known_here_are_told(store, tmp_path):
    """Another version and a plug-in that is not installed are no faults; a cell without sense is one."""
    (small,) = (found for found in store.records() if found.reference)
    for change, why in (
        ({"method": {**small.cell["method"], "version": 99}}, "version 99 of its method"),
        ({"method": {**small.cell["method"], "is": "elsewhere"}}, "'elsewhere' is not installed here"),
    ):
        store.put(replace(small, cell={**small.cell, **change}))
        looked, findings = verifying.verify(packed(store, tmp_path))
        assert "1 ids worked out again; 1 not: " in looked
        assert why in looked
        assert not any("gives the id" in finding for finding in findings)
    store.put(replace(small, cell={**small.cell, "settings": []}))
    assert any("no description" in finding for finding in verifying.verify(packed(store, tmp_path))[1])


def test_the_dense_network_is_counted_again(store, tmp_path):
    """Built anew from the record's task; one parameter more is found, in whatever record says so."""
    dense, params = next(found for found in store.records() if not found.reference), counted().params
    store.put(replace(dense, dense_cost=replace(counted(), params=params + 1)))
    (finding,) = verifying.verify(packed(store, tmp_path))[1]
    assert finding.endswith(f"{params + 1} params of the dense network in the record, {params} when it is built")


def test_every_committed_record_has_the_id_that_follows_from_its_cell():
    """The project's own store; what an earlier version of a method made cannot be described here any more."""
    found = Store(Path(__file__).parents[1] / "reports", create=False, keeps_corrupt=True).records()
    checksums = described.data_of(found)
    methods = discover.found("methods")
    earlier = [r for r in found if r.cell["method"]["version"] < methods[r.cell["method"]["is"]].card.version]
    assert len(earlier) < len(found) / 2
    assert [r.id for r in found if r not in earlier and described.cell_id(r, checksums) != r.id] == []
    for old in earlier:
        with pytest.raises(UserError, match=r"made by version \d+ of its method"):
            described.cell_id(old, checksums)
