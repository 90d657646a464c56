"""An archive goes in; what does not hold in it comes out: schema, checksums, arithmetic, counts of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimbench import submission
from slimbench.core import UserError
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from slimbench.core import Record
    from slimbench.reports.table import Table


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
            tables = [*table.tables(records, measurements), *across.by_profile(records, measurements)]
            findings += map(str, audit.tables(tables, records, measurements))
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError) as error:
            findings.append(f"no tables can be made of its records ({type(error).__name__}: {error})")
        ids = {record.id for record in records}
        findings += [
            f"{m.id}: a measurement of the cell {m.cell_id}, which is not in it"
            for m in measurements
            if m.cell_id not in ids
        ]
        kept = [record for record in records if store.artifact(record.id).is_dir()]
        findings += [what for record in kept for what in _recounted(store, record)]
    looked = f"{len(records)} records, {len(measurements)} measurements, {len(tables)} tables, {len(kept)} networks"
    return looked, list(dict.fromkeys(findings))


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
