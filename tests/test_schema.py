"""Records of other schema versions: older ones are migrated by a pure function, newer and forgotten ones refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

from made import measured, record
from slimbench import schema, submission
from slimbench.core import UserError
from slimbench.identity import digest
from slimbench.merge import merge
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.reports.site import collection
from slimbench.store import Store

RECORD = record(DCSS(), 0.5)
DENSE = record(Dense())


def of_version_0(kind, body):
    """What a version 0 would have been: the reason is called why, and seconds are minutes."""
    old = copy.deepcopy(body)
    old["why"] = old.pop("reason")
    if kind == "records":
        old["minutes"] = old.pop("seconds") / 60
    return old


def from_version_0(kind, body):
    """The migration of it."""
    new = {**body, "reason": body["why"]}
    del new["why"]
    return (
        {**{k: v for k, v in new.items() if k != "minutes"}, "seconds": body["minutes"] * 60}
        if kind == "records"
        else new
    )


@pytest.fixture
def aged(tmp_path):
    """A store of version 0: a dense network, a smaller one, and its timing."""
    made = Store(tmp_path / "old")
    for one in (DENSE, replace(RECORD, reason="told", seconds=120.0), measured(RECORD)):
        made.put(one)
    for file in made.root.glob("*/*.json"):
        body = of_version_0(file.parent.name, json.loads(file.read_text())["body"])
        file.write_text(json.dumps({"schema": 0, "body": body, "checksum": digest(body)}))
    return made


@pytest.fixture
def migrated(monkeypatch):
    """Version 0 is known."""
    monkeypatch.setitem(schema.MIGRATIONS, 0, from_version_0)


@pytest.mark.usefixtures("migrated")
def test_an_older_version_is_read_as_the_current_one(aged):
    """One by one, all, and by way of the index; the files stay as they are."""
    before = {file: file.read_bytes() for file in aged.root.glob("*/*.json")}
    found = aged.record(RECORD.id)
    assert (found.reason, found.seconds) == ("told", 120.0)
    assert aged.records() == sorted([DENSE, found], key=lambda r: r.id)
    assert [m.reason for m in aged.measurements()] == [""]
    assert {r.id: r.seconds for r in aged.summaries()} == {DENSE.id: 0.0, RECORD.id: 120.0}
    assert len(aged.timings()) == 1
    assert aged.warnings == []
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.usefixtures("migrated")
def test_a_migration_leaves_the_body_that_it_is_given(aged):
    """It is a pure function of kind and body."""
    body = json.loads((aged.root / "records" / f"{RECORD.id}.json").read_text())["body"]
    kept = copy.deepcopy(body)
    assert schema.current("records", 0, body, "file") == schema.current("records", 0, body, "file")
    assert body == kept


@pytest.mark.usefixtures("migrated")
def test_merging_writes_the_current_version(aged, tmp_path):
    """What is taken is stored in today's form, and equal."""
    into = Store(tmp_path / "new")
    assert not any(finding.is_conflict for finding in merge([aged], into))
    assert into.records() == aged.records()
    assert {json.loads(file.read_text())["schema"] for file in into.root.glob("*/*.json")} == {schema.SCHEMA}


@pytest.mark.usefixtures("migrated")
def test_archives_of_older_records_are_read(aged, tmp_path):
    """The files travel as they are."""
    submission.pack(aged, file := tmp_path / "sent.zip")
    assert list(collection.gather([file]).records) == aged.records()


def test_several_steps_one_after_another(monkeypatch):
    """From version to version, each by its own function."""
    monkeypatch.setattr(schema, "SCHEMA", 3)
    for version in (0, 1, 2):
        monkeypatch.setitem(
            schema.MIGRATIONS, version, lambda kind, body, v=version: {"path": [*body["path"], (kind, v)]}
        )
    assert schema.current("records", 1, {"path": []}, "file") == {"path": [("records", 1), ("records", 2)]}
    assert schema.current("records", 3, {"path": []}, "file") == {"path": []}


def test_a_forgotten_version_is_refused_in_words(aged):
    """One sentence, and nothing is set aside."""
    with pytest.raises(
        UserError, match="has the form of schema 0, which this SlimBench no longer reads: open its store"
    ):
        aged.records()
    assert not list((aged.root / "aside").iterdir())


@pytest.mark.usefixtures("migrated")
def test_damage_is_found_before_a_migration(aged):
    """The checksum is of what was written."""
    file = aged.root / "records" / f"{RECORD.id}.json"
    file.write_text(file.read_text().replace('"told"', '"changed"'))
    assert aged.record(RECORD.id) is None
    assert "its checksum does not match" in aged.warnings[0]


@pytest.mark.parametrize("version", ["1", None, True, 1.0])
def test_what_is_no_version_is_corrupt(tmp_path, version):
    """A text, nothing, a truth value, a fraction."""
    made = Store(tmp_path / "store")
    made.put(RECORD)
    file = made.root / "records" / f"{RECORD.id}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": version}))
    assert made.records() == []
    assert "its schema is" in made.warnings[0]
