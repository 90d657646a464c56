"""A folder of record files goes in; what runs and reports need of each comes out, without reading every file anew.

The index is one SQLite file in the store. It holds no result of its own: a file that is new or has changed (by time,
size and inode) is read and checked again, and an index that is deleted, damaged or cannot be written is made anew, in
memory where need be. Notes and samples' scores stay in the files. What many records share (all seeds of a
method at an operating point on one machine) is kept and loaded once.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from slimbench.identity import digest
from slimbench.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_PATIENCE_S = 2.0  # with another run that writes it
_AT_ONCE = 1000  # bodies
_VERSION = 1000 * SCHEMA + 4  # of what is kept; another one's index is made anew
_SHARED = ("environment", "profile", "splits", "published", "dense_cost", "unpruned_cost")
_TABLES = f"""
    BEGIN EXCLUSIVE;
    DROP TABLE IF EXISTS files;
    DROP TABLE IF EXISTS bodies;
    DROP TABLE IF EXISTS parts;
    CREATE TABLE files (kind TEXT, name TEXT, stamp TEXT, status TEXT, reference TEXT, artifact TEXT, started_from TEXT,
        inner INTEGER, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE bodies (kind TEXT, name TEXT, part TEXT, body TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE parts (key TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
    PRAGMA user_version = {_VERSION};
    COMMIT;
"""


class Standing(NamedTuple):
    """How a cell ended, and which networks it made and started from (sha256 of their manifests)."""

    status: str
    reference: str
    artifact: str
    reference_artifact: str
    inner: bool


class Index:
    """Of one store. ``read`` gives the checked body of a record file, or None where it is corrupt or gone."""

    def __init__(self, root: Path, read: Callable[[str, Path], dict[str, Any] | None]) -> None:
        self._root, self._read = root, read
        self._lines = _opened(root / "index.sqlite")

    def standings(self) -> dict[str, Standing]:
        """Of every readable record, by id."""
        asked = "SELECT name, status, reference, artifact, started_from, inner FROM files WHERE kind = ?"
        (found,) = self._asked("records", asked)
        return {name: Standing(s, ref, made, began, bool(inner)) for name, s, ref, made, began, inner in found}

    def bodies(self, kind: str) -> Iterator[dict[str, Any]]:
        """Of every readable file of a kind, those that share a part together; without what stays there; read only."""
        texts, shared = self._asked(
            kind,
            "SELECT part, body FROM bodies WHERE kind = ? ORDER BY name DESC",
            "SELECT key, body FROM parts WHERE key IN (SELECT part FROM bodies WHERE kind = ?)",
        )
        parts = {key: json.loads(text) for key, text in shared}
        texts.sort(key=_part_of)  # who shares a part lies together in memory then, which is faster for whoever reads
        while texts:
            some = texts[: -_AT_ONCE - 1 : -1]
            del texts[-_AT_ONCE:]
            every = json.loads(f"[{','.join([text for _, text in some])}]")  # the names of fields are made once
            for (key, _), own in zip(some, every, strict=True):
                part = parts[key]
                yield {**part, **own, "cell": {**part["cell"], **own["cell"]}} if "cell" in part else {**part, **own}

    def _asked(self, kind: str, *questions: str) -> list[list[tuple[Any, ...]]]:
        """The answers for a kind, up to date; from memory where the file fails: read-only, full, damaged, or held."""
        for _ in range(2):
            try:
                self._refresh(kind)
                return [self._lines.execute(question, (kind,)).fetchall() for question in questions]
            except sqlite3.Error:
                self._lines = _opened(None)
        raise AssertionError("an index in memory failed")

    def _refresh(self, kind: str) -> None:
        """Read what is new, forget what is gone."""
        known = dict(self._lines.execute("SELECT name, stamp FROM files WHERE kind = ?", (kind,)))
        there = _stamps(self._root / kind)
        if known == there:
            return
        changed = {name: there[name] for name in sorted(there) if known.get(name) != there[name]}
        self._write(kind, known.keys() - there.keys(), changed)

    def _write(self, kind: str, gone: Iterable[str], changed: dict[str, str]) -> None:
        with self._lines as lines:
            for name in (*gone, *changed):
                for table in ("files", "bodies"):
                    lines.execute(f"DELETE FROM {table} WHERE kind = ? AND name = ?", (kind, name))  # noqa: S608  no input
            for name, stamp in changed.items():
                body = self._read(kind, self._root / kind / f"{name}.json")
                if body is not None:
                    shared, own = _split(body)
                    key = digest(shared)
                    lines.execute("INSERT OR IGNORE INTO parts VALUES (?, ?)", (key, json.dumps(shared)))
                    lines.execute("INSERT INTO bodies VALUES (?, ?, ?, ?)", (kind, name, key, _compact(own)))
                    lines.execute(
                        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (kind, name, stamp, *_standing(body))
                    )


def _opened(file: Path | None) -> sqlite3.Connection:
    """The index in a file, empty where it is new or of no use; None: in memory."""
    if file is not None:
        for _ in range(2):
            try:
                return _with_tables(sqlite3.connect(file, timeout=_PATIENCE_S))
            except sqlite3.OperationalError:
                break  # it cannot be written
            except sqlite3.DatabaseError:
                with contextlib.suppress(OSError):
                    file.unlink()
    return _with_tables(sqlite3.connect(":memory:"))


def _with_tables(lines: sqlite3.Connection) -> sqlite3.Connection:
    (version,) = lines.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        with lines:
            lines.executescript(_TABLES)
    return lines


def _stamps(folder: Path) -> dict[str, str]:
    """What changes with a file's content, by record id."""
    if not folder.is_dir():
        return {}
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                try:
                    s = entry.stat()
                except FileNotFoundError:
                    continue  # it has just been set aside
                found[entry.name.removesuffix(".json")] = f"{s.st_mtime_ns} {s.st_size} {s.st_ino}"
    return found


def _split(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is kept of a body: what it may share with others, and its own."""
    shared = {name: body[name] for name in _SHARED if name in body}
    own = {name: value for name, value in body.items() if name not in shared}
    if "cell" in own:
        shared["cell"] = {name: value for name, value in own["cell"].items() if name != "seed"}
        own["cell"] = {"seed": own["cell"]["seed"]} if "seed" in own["cell"] else {}
    if "notes" in own:
        own["notes"] = {}
    for split in own.keys() & {"quality", "val_quality"}:
        own[split] = {name: scores | {"per_sample": ""} for name, scores in own[split].items()}
    return shared, own


def _standing(body: dict[str, Any]) -> tuple[str, str, str, str, bool]:
    texts = (body.get(name, "") for name in ("status", "reference", "artifact", "reference_artifact"))
    return (*texts, bool(body.get("cell", {}).get("inner")))  # type: ignore[return-value]


_part_of = operator.itemgetter(0)
_compact = json.JSONEncoder(separators=(",", ":")).encode
