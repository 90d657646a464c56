"""Stores and submitted archives go in; one collection of records comes out, each once, with where it is from."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from slimbench.store import Store

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
        clashes: ids of which a later source holds other contents: the first one's count.
        warnings: what the stores set aside.

    """

    records: tuple[Record, ...] = ()
    measurements: tuple[MeasurementRecord, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    clashes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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
            warnings += store.warnings
    return Collection(
        tuple(records[name] for name in sorted(records)),
        tuple(measurements[name] for name in sorted(measurements)),
        owner,
        logs,
        tuple(sorted(set(clashes))),
        sources,
        tuple(warnings),
    )


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
