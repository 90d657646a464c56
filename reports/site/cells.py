"""A record and its collection go in; what the page of its cell shows comes out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError
from slimbench.reports import notes, samples
from slimbench.reports.formulas import mathml
from slimbench.reports.site import widths, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from slimbench.core import Record
    from slimbench.reports.site.collection import Collection

_DRAWN = {"widths", "function in LaTeX"}  # notes that the page shows otherwise


@dataclass(frozen=True)
class Samples:
    """A picture, or why there is none."""

    picture: str = ""
    why: str = ""


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a record: pictures of its notes by what they show, and samples where its task has such."""

    pictures: Mapping[str, str] = field(default_factory=dict)
    samples: Samples | None = None

    @property
    def is_any(self) -> bool:
        """Whether there is a picture."""
        return bool(self.pictures or (self.samples and self.samples.picture))


def drawn(record: Record, collection: Collection, folder: Path) -> Drawn:
    """Draw into ``folder``/pictures."""
    files = notes.draw(record, folder / "pictures") if record.notes else []
    pictures = {words.said_by(file.stem, record.id): f"pictures/{file.name}" for file in files}
    return Drawn(pictures, _samples(record, collection, folder) if samples.can_show(record) else None)


def values(record: Record, collection: Collection, shown: Drawn) -> dict[str, Any]:
    """Everything on the page."""
    return {
        "record": record,
        "costs": _costs(record),
        "bars": widths.bars(record),
        "drawn": shown,
        "formula": mathml(str(record.notes.get("function in LaTeX", ""))),
        "measurements": [asdict(m) for m in collection.timings.get(record.id, ())],
        "log": words.tail(collection.logs.get(record.id, "")),
        "spent": asdict(record.spent),
        "notes": {name: note for name, note in record.notes.items() if name not in _DRAWN},
        "artifact": _artifact(collection.networks.get(record.id)),
    }


def _samples(record: Record, collection: Collection, folder: Path) -> Samples:
    name = f"pictures/{record.id}-samples.png"
    try:
        samples.draw(record, collection.networks, folder / name)
    except UserError as why:
        return Samples(why=str(why))
    return Samples(name)


def _artifact(folder: Path | None) -> Mapping[str, Any] | None:
    """Files of a stored network with their bytes, and its input; None where it is not at hand."""
    if folder is None:
        return None
    try:
        shape = json.loads((folder / "manifest.json").read_text())["input"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    files = {file.name: f"{file.stat().st_size:,} bytes" for file in sorted(folder.iterdir())}
    return {"input": "1 x " + " x ".join(map(str, shape)), **files}


def _costs(record: Record) -> Iterable[tuple[str, int, int | None]]:
    """Counted figures: of this network, and of the dense one."""
    if not record.cost:
        return []
    dense = asdict(record.dense_cost) if record.dense_cost else {}
    return [(name, value, dense.get(name)) for name, value in asdict(record.cost).items() if name != "uncounted"]
