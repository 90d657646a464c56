"""Stores and submitted archives go in; one collection of records comes out, each once, with where it is from."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from slimbench.store import Store, shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from slimbench.core import MeasurementRecord, Record


@dataclass(frozen=True)
class Collection:
    """What a site is made of.

    Attributes:
        origins: by id of a record or measurement: the name of the first source that had it.
        logs: by id of a record, where its source kept one.
        networks: by id of a record, the folder of its artifact; those of archives are not kept.
        evolutions: courses by name.
        clashes: ids of which a later source holds other contents: the first one's count.
        warnings: what the stores set aside.

    """

    records: tuple[Record, ...] = ()
    measurements: tuple[MeasurementRecord, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, Path] = field(default_factory=dict)
    evolutions: Mapping[str, Any] = field(default_factory=dict)
    clashes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @functools.cached_property
    def timings(self) -> Mapping[str, Sequence[MeasurementRecord]]:
        """Measurements by the id of their cell."""
        found: dict[str, list[MeasurementRecord]] = defaultdict(list)
        for m in self.measurements:
            found[m.cell_id].append(m)
        return found

    @property
    def names(self) -> str:
        """The sources in words."""
        return ", ".join(self.sources)


def gather(paths: Sequence[Path]) -> Collection:
    """Merge stores (folders) and archives that ``bench submit`` wrote, in order. Raises: UserError."""
    records: dict[str, Any] = {}
    measurements: dict[str, Any] = {}
    owner: dict[str, str] = {}
    logs: dict[str, str] = {}
    networks: dict[str, Path] = {}
    evolutions: dict[str, Any] = {}
    clashes: list[str] = []
    warnings: list[str] = []
    for source, path in zip(sources := _names(paths), paths, strict=True):
        with opened(path) as store:
            for into, found in _both(store, records, measurements):
                for one in found:
                    if into.setdefault(one.id, one) is one:
                        owner[one.id] = source
                    elif asdict(into[one.id]) != asdict(one):
                        clashes.append(one.id)
            for name in records:
                if owner[name] == source and store.log(name).is_file():
                    logs[name] = store.log(name).read_text(errors="replace")
                if owner[name] == source and not path.is_file() and store.artifact(name).is_dir():
                    networks[name] = store.artifact(name)
            warnings += [*store.warnings, *_evolutions(store, evolutions)]
    return Collection(
        tuple(records[name] for name in sorted(records)),
        tuple(shared([measurements[name] for name in sorted(measurements)], records)),
        owner,
        logs,
        networks,
        dict(sorted(evolutions.items())),
        tuple(sorted(set(clashes))),
        sources,
        tuple(warnings),
    )


def _evolutions(store: Store, into: dict[str, Any]) -> Iterator[str]:
    """Take a store's courses; what is no course is left out, in words."""
    for file in sorted(store.root.glob("evolutions/*.json")):
        try:
            course = json.loads(file.read_text())
            if not (course["individuals"] and course["generations"] and course["trials"] and course["settings"]):
                raise ValueError("it is empty")
        except (OSError, ValueError, LookupError, TypeError) as error:
            yield f"The evolution {file.name} cannot be read ({error}): left out."
        else:
            into.setdefault(file.stem, course)


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """What sources are called: by their last part, and numbered where that is not enough."""
    names = [path.expanduser().absolute().name for path in paths]
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1))


def _both(
    store: Store, records: dict[str, Any], measurements: dict[str, Any]
) -> Sequence[tuple[dict[str, Any], Sequence[Any]]]:
    return (records, store.records()), (measurements, store.measurements())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    """A store, or what an archive holds as one. Raises: UserError."""
    from slimbench import submission

    path = path.expanduser().absolute()
    if not path.is_file():
        yield Store(path, create=False)
        return
    with submission.unpacked(path) as folder:
        yield Store(folder, create=False)
