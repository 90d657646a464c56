"""An archive goes in; what does not hold in it comes out: schema, checksums, ids, arithmetic, counts of networks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from slimbench import submission
from slimbench.core import UserError, first_line
from slimbench.identity import digest
from slimbench.store import Store, shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from slimbench.core import Cost, Record
    from slimbench.reports.table import Table

_NO_SENSE = (LookupError, TypeError, AttributeError, ValueError)  # what records of somebody's own making end in


def verify(file: Path) -> tuple[str, list[str]]:
    """What was looked at, and every finding, in words. Raises: UserError where it cannot be read at all."""
    from slimbench.reports import across, audit, table

    with submission.unpacked(file) as folder:
        store = Store(folder, create=False)
        records, measurements = store.records(), store.measurements()
        findings = [warning.partition(": set aside")[0] for warning in store.warnings]  # schema and checksums
        tables: list[Table] = []
        try:
            findings += map(str, audit.records(records))
            timed = shared(measurements, {record.id: record for record in records})
            tables = [*table.tables(records, timed), *across.by_profile(records, timed)]
            findings += map(str, audit.tables(tables, records, timed))
        except (*_NO_SENSE, ArithmeticError, AssertionError) as error:
            findings.append(f"no tables can be made of its records ({type(error).__name__}: {error})")
        ids = {record.id for record in records}
        findings += [
            f"{m.id}: a measurement of the cell {m.cell_id}, which is not in it"
            for m in measurements
            if m.cell_id not in ids
        ]
        told, wrong = _ids(records)
        findings += [*wrong, *_dense_counts(records)]
        kept = [record for record in records if store.artifact(record.id).is_dir()]
        findings += [what for record in kept for what in _recounted(store, record)]
    looked = f"{len(records)} records, {len(measurements)} measurements, {len(tables)} tables, {len(kept)} networks"
    looked += f", {told}"
    return looked, list(dict.fromkeys(findings))


def _ids(records: Sequence[Record]) -> tuple[str, list[str]]:
    """How many ids were worked out again, in words with why others were not, and each that does not follow."""
    from slimbench import described

    try:
        checksums = described.data_of(records)
    except _NO_SENSE:
        checksums = {}
    wrong, unknown = [], Counter[str]()
    for record in records:
        try:
            right = described.cell_id(record, checksums)
        except UserError as why:
            unknown[str(why)] += 1
        except _NO_SENSE as error:
            wrong.append(f"{record.id}: its cell is no description ({type(error).__name__}: {error})")
        else:
            if right != record.id:
                wrong.append(f"{record.id}: its cell gives the id {right}")
    known = len(records) - sum(unknown.values())
    return "; ".join([f"{known} ids worked out again", *(f"{n} not: {why}" for why, n in unknown.items())]), wrong


def _dense_counts(records: Sequence[Record]) -> Iterator[str]:
    """What the dense network of each task counts, built anew, against what every record of the task says of it."""
    from slimbench import cost, described

    counted: dict[str, Cost | None] = {}
    for record in records:
        if not record.dense_cost:
            continue
        try:
            key = digest(record.cell["task"])
            if key not in counted:
                task = described.spec(record.cell["task"])
                counted[key] = cost.count(task.deploy(task.build()), task.example())
        except (UserError, cost.CannotCountError, ImportError, *_NO_SENSE):
            counted[key] = None
        if ours := counted[key]:
            for name in ("macs", "params", "activations", "bytes"):
                if (said := getattr(record.dense_cost, name)) != (right := getattr(ours, name)):
                    yield f"{record.id}: {said} {name} of the dense network in the record, {right} when it is built"


def _recounted(store: Store, record: Record) -> Iterator[str]:
    """What a stored network's own counts say against its record."""
    import torch

    from slimbench import artifact, cost

    folder = store.artifact(record.id)
    try:
        if artifact.sha256(folder / "manifest.json") != record.artifact:
            yield f"{record.id}: its network is not the one that the record names"
            return
        shape = artifact.verify(folder)["input"]
        network = artifact.load(folder).module(check_guards=False)
    except UserError as error:
        yield f"{record.id}: {error}"
        return
    except Exception as error:  # noqa: BLE001  it may hold anything
        yield f"{record.id}: its network cannot be loaded ({type(error).__name__}: {first_line(error)})"
        return
    if not record.cost:
        yield f"{record.id}: a network, and nothing was counted"
        return
    with torch.no_grad():
        macs = cost.macs_by_torch(network, torch.zeros(1, *shape))
    weights = list(network.parameters())
    held = sum(t.numel() * t.element_size() for t in (*weights, *network.buffers()))
    for name, ours in (("macs", macs), ("bytes", held)):
        if (said := getattr(record.cost, name)) != ours:
            yield f"{record.id}: {said} {name} in the record, {ours} in its network"
    # a stored network no longer tells which of its values were frozen, and so are no params
    most = {"params": sum(w.numel() for w in weights), "nonzero": sum(int(w.count_nonzero()) for w in weights)}
    for name, ours in most.items():
        if (said := getattr(record.cost, name)) > ours:
            yield f"{record.id}: {said} {name} in the record, only {ours} in its network"
