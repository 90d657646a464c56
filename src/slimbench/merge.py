"""Stores of several machines go in; one store that holds all their records and networks comes out.

What is there stays. A failed record gives way to one that is not. Two results of one cell are told apart by their
networks and scores; where they differ, that is said, and nothing that belongs to the other network is taken.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slimbench import artifact
from slimbench.core import UserError
from slimbench.files import StoreFullError, whole_file, whole_folder
from slimbench.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from slimbench.core import MeasurementRecord, Record
    from slimbench.store import Store


@dataclass(frozen=True)
class Finding:
    """What came of a record, or of a store, in words."""

    id: str
    text: str
    is_conflict: bool = False


class _ConflictError(Exception):
    """Why a record is not taken."""


def merge(sources: Sequence[Store], into: Store, *, records_only: bool = False) -> list[Finding]:
    """Take every source's records in, and say what conflicts.

    ``records_only``: no networks, logs or evolutions, as in a store that is published; records still say which network
    they are of. Raises: UserError where a source is the target.
    """
    for source in sources:
        if source.root.resolve() == into.root.resolve():
            raise UserError(f"{source.root} cannot be merged into itself: name another store with --into.")
    with Leases(into.root, "a merge") as leases:
        return [finding for source in sources for finding in _Merge(source, into, leases, records_only).run()]


@dataclass
class _Merge:
    source: Store
    into: Store
    leases: Leases
    records_only: bool

    def run(self) -> list[Finding]:
        """Dense networks first: what started from them asks for them."""
        found: list[Finding] = []
        taken = {"records": 0, "measurements": 0}
        there = 0
        cells = sorted(self.source.records(), key=lambda record: (bool(record.reference), record.id))
        everything: list[Record | MeasurementRecord] = [*cells, *self.source.measurements()]
        for record in everything:
            kind = "measurements" if hasattr(record, "cell_id") else "records"
            try:
                is_new = self._take(record)
            except StoreFullError:
                raise
            except (_ConflictError, UserError) as why:
                found.append(Finding(record.id, f"{_name(record)}: {why}", is_conflict=True))
            else:
                taken[kind] += is_new
                there += not is_new
        carried = 0 if self.records_only else self._carry_files("evolutions")
        text = ", ".join(f"{count} {kind}" for kind, count in taken.items()) + f" taken, {there} already there"
        conflicts = f", {len(found)} in conflict" if found else ""
        files = f", {carried} files of evolutions" if carried else ""
        return [*found, Finding("", f"{self.source.root}: {text}{conflicts}{files}")]

    def _take(self, record: Record | MeasurementRecord) -> bool:
        """Whether a record was taken; False where the target has its like. Raises: _ConflictError, UserError."""
        if not self.leases.take(record.id):
            raise _ConflictError("a runner has it now: merge again when that has ended")
        try:
            return self._measurement(record) if hasattr(record, "cell_id") else self._record(record)  # type: ignore[arg-type]
        finally:
            self.leases.drop(record.id)

    def _record(self, record: Record) -> bool:
        there = self.into.record(record.id)
        if there and there.status != "failed":
            if record.status != "failed" and not _agree(there, record):
                raise _ConflictError(
                    f"{self.into.root} has {_words(there)}, {self.source.root} {_words(record)}: the first stays"
                )
            if (
                self.records_only
                or not record.artifact
                or self.into.artifact(record.id).is_dir()
                or record.artifact != there.artifact
            ):
                return False
            self._network(record)  # the target has lost it
            return True
        if there and record.status == "failed":
            return False
        dense = self.into.record(record.reference) if record.reference else None
        if dense and dense.artifact and record.reference_artifact not in {"", dense.artifact}:
            raise _ConflictError(f"it started from another dense network than the one in {self.into.root}: not taken")
        if not self.records_only:
            self._files(record)
        self.into.put(record)
        return True

    def _files(self, record: Record) -> None:
        if record.artifact:
            self._network(record)
        log = self.source.log(record.id)
        if log.is_file() and not self.into.log(record.id).exists():
            _copy(log, self.into.log(record.id))

    def _network(self, record: Record) -> None:
        """Copy a network, whole or not at all, once its files agree with their checksums and with the record."""
        self.source.bring(record.id)
        folder = self.source.artifact(record.id)
        if not folder.is_dir():
            raise _ConflictError(
                f"its network is missing in {self.source.root}: not taken (records alone: --records-only)"
            )
        with whole_folder(self.into.artifact(record.id)) as part:
            for file in artifact.files(folder):
                shutil.copyfile(file, part / file.name)
            artifact.verify(part)
            if artifact.sha256(part / "manifest.json") != record.artifact:
                raise _ConflictError(
                    f"its network in {self.source.root} is not the one that its record names: not taken"
                )

    def _measurement(self, taken: MeasurementRecord) -> bool:
        there = self.into.measurement(taken.id)
        if there and (there.status != "failed" or taken.status == "failed"):
            return False  # two timings of one network on one machine are never equal: the first stays
        for cell in (taken.cell_id, taken.reference_id):
            ours, theirs = self.into.record(cell), self.source.record(cell)
            if not ours or not theirs or ours.artifact != theirs.artifact:
                raise _ConflictError(f"it timed a network of {cell} that {self.into.root} does not have: not taken")
        self.into.put(taken)
        return True

    def _carry_files(self, folder: Literal["evolutions"]) -> int:
        """Copy what the target lacks."""
        new = [
            path for path in self.source.root.glob(f"{folder}/*") if not (self.into.root / folder / path.name).exists()
        ]
        for path in new:
            _copy(path, self.into.root / folder / path.name)
        return len(new)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        with whole_folder(target) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
    else:
        with whole_file(target) as part:
            shutil.copyfile(source, part)


def _agree(one: Record, other: Record) -> bool:
    """Whether two results are the same; another processor may round the score of one network otherwise."""
    scores = [{**{f"val {k}": v for k, v in r.val_quality.items()}, **r.quality} for r in (one, other)]
    return (
        (one.status, one.artifact, one.cost) == (other.status, other.artifact, other.cost)
        and scores[0].keys() == scores[1].keys()
        and all(math.isclose(scores[0][name].value, scores[1][name].value, rel_tol=1e-9) for name in scores[0])
    )


def _words(record: Record) -> str:
    """A result in a few words."""
    scores = [f"{name} {score.value:.4f}" for name, score in (record.quality or record.val_quality).items()]
    network = [f"network {record.artifact[:8]}"] if record.artifact else []
    return ", ".join([record.status, *scores[:1], *network])


def _name(record: Record | MeasurementRecord) -> str:
    return f"{getattr(record, 'label', '') or record.profile['label']} ({record.id})"  # type: ignore[union-attr]
