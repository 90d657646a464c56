"""The index of a store says what the files say, whatever happened to either."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

import nights
from slimbench import discover, identity
from slimbench.core import MeasurementRecord, Settings
from slimbench.identity import digest, remembered
from slimbench.index import Standing
from slimbench.plan import plan
from slimbench.reports import render, table
from slimbench.store import Store

RECORD = nights.record(0, reference="dense", reference_artifact="theirs", notes={"widths": [1, 2]})


def slim(record):
    """Without notes and samples."""
    quality, val_quality = (
        {name: replace(scores, per_sample="") for name, scores in split.items()}
        for split in (record.quality, record.val_quality)
    )
    return replace(record, notes={}, quality=quality, val_quality=val_quality)


def test_a_summary_is_the_record_without_notes_and_samples(store):
    """Also when it comes from the index that another process left."""
    store.put(RECORD)
    assert store.summaries() == [slim(RECORD)]
    assert Store(store.root).summaries() == [slim(RECORD)]
    assert store.standings() == {RECORD.id: Standing("ok", "dense", RECORD.artifact, "theirs", False)}


def test_what_is_shared_is_shared_by_those_that_have_it(store):
    """Seeds of one cell have one part, and a record that differs in any of it has its own."""
    settings = {"settings": {"precision": "fp32"}, "inner": False}
    base = replace(RECORD, dense_cost=RECORD.cost, splits={"test": 200}, environment={"cpu": "x"})
    cells = [base.cell | settings | {"seed": seed} for seed in range(4)]
    changes = [{}, {}, {"environment": {"cpu": "y"}}, {"dense_cost": None, "published": {"claimed": 90.0}}]
    records = [
        replace(base, id=f"{n}", cell=cell, **change)
        for n, (cell, change) in enumerate(zip(cells, changes, strict=True))
    ]
    for record in records:
        store.put(record)
    found = sorted(store.summaries(), key=lambda record: record.id)
    assert found == [slim(record) for record in records]
    assert found[0].cell["settings"] is found[1].cell["settings"]
    assert found[0].dense_cost is found[1].dense_cost


def test_files_are_read_once(store, monkeypatch):
    """Then the index answers."""
    store.put(RECORD)
    store.summaries()
    monkeypatch.setattr(Store, "_read", lambda *args: pytest.fail("a file was read"))
    assert Store(store.root).summaries() == [slim(RECORD)]


def test_what_changes_is_seen(store):
    """A record that is replaced, added or gone."""
    store.put(RECORD)
    assert store.statuses() == {RECORD.id: "ok"}
    store.put(replace(RECORD, status="failed", reason="of course"))
    store.put(nights.record(1))
    assert store.statuses() == {RECORD.id: "failed", nights.record(1).id: "ok"}
    (store.root / "records" / f"{RECORD.id}.json").unlink()
    assert store.statuses() == {nights.record(1).id: "ok"}
    assert [record.id for record in store.summaries()] == [nights.record(1).id]


def test_a_corrupt_file_is_named_and_gone(store):
    """As by ``records``, though the index knew it."""
    store.put(RECORD)
    store.summaries()
    file = store.root / "records" / f"{RECORD.id}.json"
    file.write_text(file.read_text()[:-20])
    assert store.summaries() == []
    assert len(store.warnings) == 1
    assert store.standings() == {}
    assert len(store.warnings) == 1


@pytest.mark.parametrize("how", ["no database", "another version", "a folder", "held by another"])
def test_an_index_of_no_use_is_no_hindrance(store, how):
    """It is made anew, in memory where it must."""
    store.put(RECORD)
    file = store.root / "index.sqlite"
    if how == "no database":
        file.write_text("no database, but long enough to be taken for the head of one" * 10)
    elif how == "another version":
        with sqlite3.connect(file) as lines:
            lines.executescript("CREATE TABLE files (name TEXT); PRAGMA user_version = 99")
    elif how == "a folder":
        file.mkdir()
    else:
        store.summaries()
        store.put(nights.record(1))
        holder = sqlite3.connect(file, timeout=0)
        holder.execute("BEGIN EXCLUSIVE")
    opened = Store(store.root)
    assert len(opened.summaries()) == (2 if how == "held by another" else 1)
    assert opened.standings()[RECORD.id].status == "ok"


def test_measurements_too(store):
    """With their profile and environment."""
    taken = MeasurementRecord(
        "m", RECORD.id, "dense", {"is": "cpu", "label": "cpu"}, "failed", "a load", None, {"cpu": "x"}
    )
    store.put(taken)
    assert store.timings() == [taken] == store.measurements()


def test_a_report_of_summaries_is_the_report_of_records(store):
    """Byte for byte."""
    for record in nights.night(proxies=2):
        store.put(full(record))
    fast = table.tables(store.summaries(), store.timings())
    whole = table.tables(store.records(), store.measurements())
    assert render.markdown(fast) == render.markdown(whole)
    assert render.csv(fast) == render.csv(whole)


BUDGET = {"keep": 0.5, "resource": "macs", "params_keep": None, "epochs": 3.0, "tolerance": 0.01}


def full(record):
    """With all that a table asks of a cell."""
    task = {
        "is": "digits",
        "family": "classification",
        "label": "digits/resnet14",
        "network": "resnet14",
        "version": 1,
        "recipe": {"epochs": 6.0},
    }
    method = {"is": "l1_channels", "label": record.label.rpartition(" seed")[0], "version": 1, "fidelity": {}}
    cell = {"task": task, "method": method, "budget": BUDGET, "data": "digits", "engine": 1}
    settings = {"precision": "fp32", "device": "cpu", "threads": 1}
    return replace(record, cell=cell | {"settings": settings, "seed": record.cell["seed"], "reference": False})


def test_what_is_remembered_is_the_object_not_its_value():
    """1 and True are equal, and JSON tells them apart."""
    told = remembered(digest)
    assert told([1]) != told([True])
    assert told([1]) == digest([1])
    values = [[n] for n in range(5000)]  # more than are remembered
    assert [told(value) for value in values] == [digest(value) for value in values]


def test_ids_of_many_cells_are_those_of_each():
    """Dense references and what starts from them, searches' evaluations too."""
    cells = plan(discover.suite("quick"), Settings())
    cells += [replace(cell, inner=True) for cell in cells[:3]]
    assert list(identity.by_id(cells)) == [identity.cell_id(cell) for cell in cells]
