"""Records go in; a baseline, small enough to be committed, comes out: what later records are compared with.

A file holds counts, scores and hashes of every cell, the machine, and how far timings of equal networks were apart
there. Beside it, in FILE's name with ``.networks``, lie the first seed's networks, which latencies are compared with.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from slimbench import environment
from slimbench.core import UserError
from slimbench.files import whole_folder, write_whole
from slimbench.identity import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from slimbench.core import Record
    from slimbench.store import Store

SCHEMA = 1
WORTH = 0.03  # a smaller loss of speed is none that anybody would see


@dataclass(frozen=True)
class Kept:
    """What a baseline keeps of a record.

    Attributes:
        outputs: digest of every sample's score on val and test, by every metric.
        metric, value: the headline's, on test; "" and 0 where the cell has none.
        made_at: commit of the record.
        reason: why it failed, or nothing.

    """

    id: str
    label: str
    seed: int
    status: str
    macs: int = 0
    params: int = 0
    outputs: str = ""
    metric: str = ""
    value: float = 0.0
    higher_is_better: bool = True
    artifact: str = ""
    made_at: str = ""
    reason: str = ""

    @property
    def proxy(self) -> str:
        """The label without the seed: what all seeds together are a sample of."""
        return self.label.removesuffix(f" seed {self.seed}")

    @property
    def is_done(self) -> bool:
        """Whether there is a network that was scored."""
        return bool(self.metric)


def kept(record: Record) -> Kept:
    """What is compared of a record."""
    described = Kept(
        record.id,
        record.label,
        record.cell["seed"],
        record.status,
        made_at=record.environment.get("commit", ""),
        artifact=record.artifact,
        reason=record.reason if record.status == "failed" else "",
    )
    if not record.cost or not record.quality:
        return described
    scores = [{name: asdict(s) for name, s in split.items()} for split in (record.val_quality, record.quality)]
    metric, headline = next(iter(record.quality.items()))
    return replace(
        described,
        macs=record.cost.macs,
        params=record.cost.params,
        outputs=digest(scores),
        metric=metric,
        value=headline.value,
        higher_is_better=metric not in record.cell["task"].get("lower_is_better", ()),
    )


def newest(records: Iterable[Record]) -> list[Kept]:
    """The newest record of each label, in the order of labels; a search's own evaluations are left out."""
    by_label = {r.label: r for r in sorted(records, key=lambda r: (r.finished, r.id)) if not r.cell.get("inner")}
    return [kept(record) for _, record in sorted(by_label.items())]


def behind(cells: Iterable[Kept], records: Iterable[Record]) -> list[Record]:
    """The records that cells were kept of."""
    ids = {cell.id for cell in cells}
    return [record for record in records if record.id in ids]


@dataclass(frozen=True)
class Apart:
    """How much slower (0.01: by 1 %) one of two equal networks was in each A/A look; the machine as a digest."""

    machine: str
    looks: tuple[float, ...]

    @property
    def threshold(self) -> float:
        """The loss above which a look is suspicious."""
        return max(WORTH, *(abs(slower) for slower in self.looks))

    @property
    def detectable(self) -> float:
        """The loss that two looks find with 80 % power: nine looks in ten at such a network exceed the threshold."""
        low = sorted(self.looks)[max(0, len(self.looks) // 10 - 1)]
        return (1 + self.threshold) / (1 + low) - 1


@dataclass(frozen=True)
class Baseline:
    """What a night is compared with.

    Attributes:
        because: why it was rolled.
        machine: what ``environment.machine`` said where the records were made.
        apart: by profile, how far timings of equal networks were apart.
        settings: device, precision and threads of every cell; an older file does not say.

    """

    cells: tuple[Kept, ...]
    commit: str
    because: str
    machine: Mapping[str, Any]
    apart: Mapping[str, Apart]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Whole or not at all; one line a cell, so that a diff shows what rolled."""
        body = asdict(self)
        cells = ",\n".join(json.dumps(cell) for cell in body.pop("cells"))
        head = json.dumps({"schema": SCHEMA, **body}, indent=1).removesuffix("\n}")
        write_whole(file, f'{head},\n "cells": [\n{cells}\n]}}\n')


def read(file: Path) -> Baseline:
    """Raises: UserError."""
    try:
        body = json.loads(file.read_text())
        if body.pop("schema") > SCHEMA:
            raise UserError(f"{file} was written by a newer SlimBench: update first.")
        cells = tuple(Kept(**cell) for cell in body.pop("cells"))
        apart = {profile: Apart(a["machine"], tuple(a["looks"])) for profile, a in body.pop("apart").items()}
        if settings := body.get("settings"):
            environment.resolve(**settings, elsewhere=True)  # refuses what there is not
        return Baseline(cells, apart=apart, **body)
    except FileNotFoundError as error:
        raise UserError(f"There is no baseline {file}: `bench baseline` makes one.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file} is no baseline ({type(error).__name__}: {error}): `bench baseline` makes one."
        ) from error


def of(records: Sequence[Record], because: str) -> Baseline:
    """A baseline, without latencies, of records of one commit, machine and way of training. Raises: UserError else."""
    cells = newest(records)
    if not cells:
        raise UserError("The store has no records: run a suite first.")
    if failed := [cell.label for cell in cells if cell.status == "failed"]:
        raise UserError(f"{len(failed)} cells failed, {failed[0]!r} first: a baseline is made of whole runs.")
    chosen = behind(cells, records)
    commits = sorted({cell.made_at for cell in cells})
    machines = {digest(machine): machine for machine in (machine_of(record) for record in chosen)}
    if len(commits) > 1 or len(machines) > 1:
        raise UserError(
            f"The records come from {len(commits)} commits and {len(machines)} machines: "
            "run the suite in an empty store."
        )
    settings = {digest(found): found for found in map(settings_of, chosen)}
    if len(settings) > 1:
        said = " and ".join(sorted(map(in_words, settings.values())))
        raise UserError(f"The records were trained in {said}: run the suite once, in an empty store.")
    machine, trained = (next(iter(found.values())) for found in (machines, settings))
    return Baseline(tuple(cells), commits[0], because, machine, {}, trained)


def machine_of(record: Record) -> Mapping[str, Any]:
    """Where a record was made, without which SlimBench made it: ``environment.machine`` said it."""
    return environment.machine_in(record.environment)


def settings_of(record: Record) -> Mapping[str, Any]:
    """How it was trained: ``environment.resolve`` takes it. Raises: UserError where the record does not say."""
    if not (settings := record.cell.get("settings")):
        raise UserError(f"The record {record.id} does not say how it was trained: run the suite in an empty store.")
    return {name: value for name, value in settings.items() if name != "is"}


def in_words(settings: Mapping[str, Any]) -> str:
    """Precision, device and threads."""
    return "{precision} on {device} with {threads} thread(s)".format(**settings)


# ------------------------------------------------------------------------------------- networks to be timed against


def timed_cells(cells: Iterable[Kept]) -> list[Kept]:
    """The first seed's of each proxy, where they have a network."""
    first: dict[str, Kept] = {}
    for cell in sorted(cells, key=lambda cell: cell.seed):
        if cell.artifact and cell.is_done:
            first.setdefault(cell.proxy, cell)
    return list(first.values())


def networks(file: Path) -> Path:
    """The folder of a baseline's networks."""
    return file.with_suffix(".networks")


def timed_networks(cells: Iterable[Kept], store: Store) -> list[Path]:
    """The folders of ``timed_cells``' networks. Raises: UserError where one is not there."""
    timed = timed_cells(cells)
    if missing := [cell for cell in timed if not store.has_network(cell.id)]:
        raise UserError(
            f"The network of {missing[0].label} ({missing[0].id}) is not in {store.root}: take the store that it was "
            "made in, or say --looks 0 for a baseline without latencies."
        )
    return [store.artifact(cell.id) for cell in timed]


def keep_networks(cells: Iterable[Kept], store: Store, file: Path) -> None:
    """Copy the networks that will be timed against; those of an older baseline go. Raises: UserError."""
    found = timed_networks(cells, store)
    with whole_folder(networks(file)) as folder:
        for network in found:
            shutil.copytree(network, folder / network.name)
