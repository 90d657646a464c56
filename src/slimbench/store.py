"""Records on disk: one JSON file a piece of work, written whole or not at all; what is corrupt is set aside by name.

records/ID.json  measurements/ID.json  artifacts/ID/  work/ID/ (under way)  logs/ID.log  aside/ (corrupt)
leases/ID and runners/NAME (who does what now: see ``leases.py``)
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import gc
import json
import os
import shutil
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from slimbench import schema
from slimbench.core import Cost, Measurement, MeasurementRecord, Record, Scores, Spent, UserError
from slimbench.files import file_system_s, modified_s, write_whole
from slimbench.identity import digest, remembered
from slimbench.index import Index
from slimbench.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from slimbench.index import Standing

T = TypeVar("T")
_FRESH_S = 600.0  # a part that is younger may be another runner's
_FOLDERS = ("records", "measurements", "artifacts", "work", "logs", "aside", "leases", "runners")


def some(ids: Sequence[str], label: Callable[[str], str], shown: int = 5) -> str:
    """The first of several ids in words, each with its label, and how many more there are."""
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(f"{name} ({label(name)})" for name in ids[:shown]) + more


def shared(measurements: Sequence[MeasurementRecord], made: Mapping[str, Standing | Record]) -> list[MeasurementRecord]:
    """Each measurement, also as one of every other cell that made the very same network from the same dense one.

    Such networks are measured once, for one of the cells. ``made``: by the cell's id.
    """
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, one in made.items():
        if one.artifact:
            alike[one.artifact, one.reference_artifact].append(name)
    found, own = list(measurements), {(m.id, m.cell_id) for m in measurements}
    for m in measurements:
        if of_it := made.get(m.cell_id):
            others = (name for name in alike[of_it.artifact, of_it.reference_artifact] if (m.id, name) not in own)
            found += [replace(m, cell_id=name, reference_id=made[name].reference) for name in others]
    return found


def holds_records(root: Path) -> bool:
    """Whether there is a store in a folder. Raises: UserError where that cannot be seen."""
    try:
        with os.scandir(root / "records"):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(
            f"The store folder {root} cannot be read ({error.strerror}): mend that, or name another with --store."
        ) from error


class UnknownFieldError(TypeError):
    """A record has a field that this version does not know."""


class Store:
    """A folder of records. ``warnings`` names every corrupt file that was set aside."""

    def __init__(self, root: Path | str, *, create: bool = True, keeps_corrupt: bool = False) -> None:
        """Open the store in ``root``, setting aside what is corrupt unless it ``keeps_corrupt`` where it is.

        Raises: UserError where it cannot be written, or does not exist.
        """
        if "://" in str(root):
            raise UserError(
                f"{root} is no folder, which this command needs: `bench merge {root} --into FOLDER` makes one."
            )
        self.keeps_corrupt = keeps_corrupt
        self.root = Path(root).expanduser().absolute()
        self.warnings: list[str] = []
        if not create:
            if not holds_records(self.root):
                raise UserError(f"There is no store in {self.root}: run `bench run` first, or name it with --store.")
            return
        try:
            for folder in _FOLDERS:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / "records"):
                pass
        except OSError as error:
            raise UserError(
                f"The store folder {self.root} cannot be written ({error.strerror}): name another with --store."
            ) from error

    # ------------------------------------------------------------------------------------------ where things lie

    def artifact(self, cell_id: str) -> Path:
        """The folder of a compressed network."""
        return self.root / "artifacts" / cell_id

    def work(self, cell_id: str) -> Path:
        """The folder of a cell that is under way."""
        return self.root / "work" / cell_id

    def log(self, cell_id: str) -> Path:
        """What a job did, said and printed, one JSON object a line."""
        return self.root / "logs" / f"{cell_id}.log"

    # ---------------------------------------------------------------- what an object store has to do (``remote.py``)

    @property
    def place(self) -> str:
        """Where the records are, for people."""
        return str(self.root)

    def leases(self, what: str) -> Leases:
        """Those of a new runner."""
        return Leases(self.root, what)

    def has_network(self, cell_id: str) -> bool:
        """Whether a cell's network is there, whole."""
        return os.path.isfile(f"{self.root}/artifacts/{cell_id}/manifest.json")  # noqa: PTH113  a Path takes ten times as long

    def latest(self, name: str) -> Record | MeasurementRecord | None:
        """A cell's record, or a measurement, as any runner left it."""
        return self.record(name) or self.measurement(name)

    def bring(self, *cell_ids: str) -> None:
        """Have these cells' networks in the folder, for a worker that starts from them."""

    def publish(self, name: str) -> None:
        """Show others what a worker has put here: a cell with its network and log, or a measurement."""

    # -------------------------------------------------------------------------------------------------- records

    def put(self, record: Record | MeasurementRecord) -> None:
        """Store a record, replacing one of the same id. Raises: StoreFullError."""
        body = json.loads(json.dumps(dataclasses.asdict(record), allow_nan=False))
        document = {"schema": schema.SCHEMA, "body": body, "checksum": digest(body)}
        write_whole(self._file(_kind(record), record.id), json.dumps(document, indent=1) + "\n")

    def forget(self, cell_id: str) -> None:
        """Drop a cell's record: what replaces its network may be killed before it has another."""
        self._file("records", cell_id).unlink(missing_ok=True)

    def record(self, cell_id: str) -> Record | None:
        """The record of a cell, or None where there is none that can be read."""
        return self._read(self._file("records", cell_id), record_from)

    def measurement(self, measurement_id: str) -> MeasurementRecord | None:
        """A measurement, or None."""
        return self._read(self._file("measurements", measurement_id), measurement_from)

    def records(self) -> list[Record]:
        """Every readable record, by id."""
        return list(self.each_record())

    def each_record(self) -> Iterator[Record]:
        """What ``records`` gives, one after another: a hundred thousand of them are gigabytes."""
        return self._all("records", record_from)

    def measurements(self) -> list[MeasurementRecord]:
        """Every readable measurement, by id."""
        return list(self._all("measurements", measurement_from))

    def summaries(self) -> list[Record]:
        """What ``records`` gives, fast, in any order, without notes and scores of samples and on val; read only."""
        with uncollected():
            return [record_from(body) for body in self._index.bodies("records")]

    def timings(self) -> list[MeasurementRecord]:
        """What ``measurements`` gives, fast: in any order; shared parts are read only."""
        with uncollected():
            return [measurement_from(body) for body in self._index.bodies("measurements")]

    def shared_timings(self) -> list[MeasurementRecord]:
        """``timings``, and those of equal networks under each one's id: see ``shared``."""
        return shared(self.timings(), self.standings())

    def standings(self) -> dict[str, Standing]:
        """How every readable record ended, by id, without loading any."""
        return self._index.standings()

    def statuses(self) -> dict[str, str]:
        """Status of every readable record, by id."""
        return {name: standing.status for name, standing in self.standings().items()}

    def sweep(self, leases: Leases) -> None:
        """Remove what killed processes left half-written, but nothing that a living runner may be writing."""
        leases.others()  # the dead ones' files go too; who was only still for long comes back, and is heard of later
        now_s = file_system_s(self.root)
        for part in self.root.glob("*/.*.part"):
            if leases.holder(part.name.split(".")[1]) or now_s - modified_s(part) < _FRESH_S:
                continue
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)

    def find(self, prefix: str) -> Record:
        """The one record whose id starts with ``prefix``. Raises: UserError where there is none, or several."""
        ids = sorted(path.stem for path in (self.root / "records").glob("*.json") if path.stem.startswith(prefix))
        if not ids:
            raise UserError(
                f"No record has an id that starts with {prefix!r}: `bench plan SUITE` lists a suite's ids, and "
                "`bench report --format csv` those of all that was run."
            )
        if len(ids) > 1:
            labels = some(ids, lambda name: found.label if (found := self.record(name)) else "corrupt")
            raise UserError(f"{len(ids)} records have ids that start with {prefix!r}: {labels}; give more of it.")
        record = self.record(ids[0])
        if record is None:
            raise UserError(self.warnings[-1])
        return record

    @contextlib.contextmanager
    def one_runner(self) -> Iterator[None]:
        """Hold the store for one search; the system lets go of it when the process dies. Raises: UserError."""
        with (self.root / "runner.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"Another `bench` is running on the store {self.root}: wait for it, or name another with --store."
                ) from error
            yield

    # -------------------------------------------------------------------------------------------------- inside

    @functools.cached_property
    def _index(self) -> Index:
        return Index(self.root, self._body)

    def _body(self, kind: str, path: Path) -> dict[str, Any] | None:
        """The body of a record file that can be read as a record."""
        parse = record_from if kind == "records" else measurement_from

        def checked(body: dict[str, Any]) -> dict[str, Any]:
            parse(body)
            return body

        return self._read(path, checked)

    def _file(self, kind: str, name: str) -> Path:
        return self.root / kind / f"{name}.json"

    def _all(self, kind: str, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
        found = (self._read(path, parse) for path in sorted((self.root / kind).glob("*.json")))
        return (record for record in found if record is not None)

    def _read(self, path: Path, parse: Callable[[dict[str, Any]], T]) -> T | None:
        """What a record file holds; a corrupt one is moved to ``aside/`` and named in ``warnings``.

        Raises: UserError for one that cannot be read, which may be sound, and for one of a newer SlimBench.
        """
        try:
            document = json.loads(path.read_text())
            body: dict[str, Any] = document["body"]
            schema.refuse_newer(document["schema"], str(path))
            if digest(body) != document["checksum"] or body["id"] != path.stem:
                raise ValueError("its checksum does not match")
            return parse(schema.current(_of_folder(path), document["schema"], body, str(path)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"The record {path} cannot be read ({error.strerror}): mend that, and run the same command again."
            ) from error
        except UnknownFieldError as error:
            raise UserError(f"{path} was written by a newer SlimBench ({error}): update first.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._set_aside(path, str(error))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        if self.keeps_corrupt:
            self.warnings.append(f"The record {path.name} is corrupt ({why}): left out.")
            return
        aside = self.root / "aside" / path.name
        try:
            aside.parent.mkdir(exist_ok=True)
            path.replace(aside)
        except OSError as error:  # a read-only store still reports the rest
            done = f"left out, and it cannot be set aside ({error.strerror})"
        else:
            done = f"set aside in {aside}, to be made again"
        if (text := f"The record {path.name} is corrupt ({why}): {done}.") not in self.warnings:
            self.warnings.append(text)


def _of_folder(path: Path) -> schema.Kind:
    return "records" if path.parent.name == "records" else "measurements"


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would go again and again through all that is loaded: it has no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _kind(record: Record | MeasurementRecord) -> str:
    return "records" if isinstance(record, Record) else "measurements"


# ----------------------------------------------------------------------------------------- JSON -> dataclasses


def record_from(body: dict[str, Any]) -> Record:
    """A record from its JSON body."""
    return _made(
        Record,
        {
            **body,
            "quality": {name: _made(Scores, scores) for name, scores in body["quality"].items()},
            "val_quality": {name: _made(Scores, scores) for name, scores in body["val_quality"].items()},
            "cost": cost_from(body["cost"]),
            "dense_cost": _shared_cost_from(body["dense_cost"]),
            "unpruned_cost": _shared_cost_from(body.get("unpruned_cost")),
            "spent": _made(Spent, body["spent"]),
        },
    )


def cost_from(body: dict[str, Any] | None) -> Cost | None:
    """A cost, or None."""
    if body is None:
        return None
    return _made(Cost, body | {"uncounted": tuple((str(n), float(s)) for n, s in body["uncounted"])})


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """A frozen dataclass of all its fields at once: its own constructor sets them one by one, which takes long."""
    known: dict[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    if values.keys() != known.keys():
        if unknown := sorted(values.keys() - known.keys()):
            raise UnknownFieldError(f"{kind.__name__} has no field {unknown[0]!r} here")
        return kind(**values)  # a field was added since: its default
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


_shared_cost_from = remembered(cost_from)


def measurement_from(body: dict[str, Any]) -> MeasurementRecord:
    """A measurement record from its JSON body."""
    m = body["measurement"]
    tuples = ("load_average", "clock_mhz", "input_shape")
    taken = m and _made(Measurement, m | {name: tuple(m[name]) for name in tuples})
    return _made(MeasurementRecord, body | {"measurement": taken})
