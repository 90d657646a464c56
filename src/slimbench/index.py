"""A folder of record files goes in; what runs and reports need of each comes out, without reading every file anew.

The index is one SQLite file in the store. It holds no result of its own: a file that is new or has changed (by time,
size and inode) is read and checked again, and an index that is deleted, damaged or cannot be written is made anew, in
memory where need be. Notes and samples' scores stay in the files. Parts that many records share are loaded once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from slimbench.identity import digest
from slimbench.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PATIENCE_S = 2.0  # with another run that writes it
_VERSION = 1000 * SCHEMA + 1  # of what is kept; another one's index is made anew
_SHARED = ("environment", "profile", "splits", "published")
_SHARED_OF_CELL = ("task", "method", "budget", "settings", "data")
_TABLES = f"""
    BEGIN EXCLUSIVE;
    DROP TABLE IF EXISTS files;
    DROP TABLE IF EXISTS parts;
    CREATE TABLE files (kind TEXT, name TEXT, stamp TEXT, status TEXT, reference TEXT, artifact TEXT, started_from TEXT,
        inner INTEGER, body TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
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
        found = self._asked("records", asked)
        return {name: Standing(s, ref, made, began, bool(inner)) for name, s, ref, made, began, inner in found}

    def bodies(self, kind: str) -> Iterator[dict[str, Any]]:
        """Of every readable file of a kind, by name, without notes and samples; parts that are shared: read only."""
        texts = self._asked(kind, "SELECT body FROM files WHERE kind = ? ORDER BY name DESC")
        parts = {key: json.loads(body) for key, body in self._asked(kind, "SELECT key, body FROM parts WHERE ? != ''")}
        while texts:
            body = json.loads(texts.pop()[0])
            of_body, of_cell = body.pop("shared")
            body |= {name: parts[key] for name, key in of_body.items()}
            if "cell" in body:
                body["cell"] |= {name: parts[key] for name, key in of_cell.items()}
            yield body

    def _asked(self, kind: str, question: str) -> list[tuple[Any, ...]]:
        """The answer for a kind, up to date; from memory where the file fails: read-only, full, damaged, or held."""
        for _ in range(2):
            try:
                self._refresh(kind)
                return self._lines.execute(question, (kind,)).fetchall()
            except sqlite3.Error:
                self._lines = _opened(None)
        raise AssertionError("an index in memory failed")

    def _refresh(self, kind: str) -> None:
        """Read what is new, forget what is gone."""
        known = dict(self._lines.execute("SELECT name, stamp FROM files WHERE kind = ?", (kind,)))
        there = _stamps(self._root / kind)
        gone = [(kind, name) for name in known.keys() - there.keys()]
        changed = {name: there[name] for name in sorted(there) if known.get(name) != there[name]}
        if gone or changed:
            self._write(kind, gone, changed)

    def _write(self, kind: str, gone: list[tuple[str, str]], changed: dict[str, str]) -> None:
        with self._lines as lines:
            lines.executemany("DELETE FROM files WHERE kind = ? AND name = ?", gone)
            for name, stamp in changed.items():
                body = self._read(kind, self._root / kind / f"{name}.json")
                if body is None:
                    lines.execute("DELETE FROM files WHERE kind = ? AND name = ?", (kind, name))
                    continue
                row, parts = _row(body)
                lines.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?)", parts.items())
                lines.execute("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (kind, name, stamp, *row))


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
                with contextlib.suppress(FileNotFoundError):  # it has just been set aside
                    s = entry.stat()
                    found[entry.name.removesuffix(".json")] = f"{s.st_mtime_ns} {s.st_size} {s.st_ino}"
    return found


def _row(body: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, str]]:
    """What is kept of a body, and its shared parts by key."""
    parts: dict[str, str] = {}

    def keep(value: Any) -> str:
        key = digest(value)
        parts[key] = json.dumps(value)
        return key

    own = dict(body)
    cell = dict(own.get("cell", {}))
    shared = (
        {name: keep(own.pop(name)) for name in _SHARED if name in own},
        {name: keep(cell.pop(name)) for name in _SHARED_OF_CELL if name in cell},
    )
    if "notes" in own:
        own |= {"cell": cell, "notes": {}}
        for split in ("quality", "val_quality"):
            own[split] = {name: scores | {"per_sample": ""} for name, scores in own[split].items()}
    standing = (own["status"], own.get("reference", ""), own.get("artifact", ""), own.get("reference_artifact", ""))
    inner = bool(cell.get("inner"))
    return (*standing, inner, json.dumps(own | {"shared": shared}, separators=(",", ":"))), parts
