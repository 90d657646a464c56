"""A store in an object store: a folder of this machine's own, which takes over what others have and shows what is new.

    records/ID.json  measurements/ID.json  artifacts/ID/SHA256/...  logs/ID.log  leases/ID  runners/NAME

Workers know the folder only. A cell that has ended is published: its network under the checksum that its record names,
then its log, then the record, which makes the rest count. Work that is under way, checkpoints too, stays in the
folder, which later commands of this machine use again; a record that a killed runner could not publish, they do.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from slimbench import artifact
from slimbench.core import MeasurementRecord, Record, UserError
from slimbench.files import whole_folder, write_whole
from slimbench.leases import BEAT_S, PATIENCE_S, Leases
from slimbench.objects import Objects
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KINDS = ("records", "measurements")
_RECORD = re.compile(r"(records|measurements)/[0-9a-f]+\.json")


def open_store(place: str, *, create: bool = True, keeps_corrupt: bool = False) -> Store:
    """A store in a folder, or behind a URL, of which what is corrupt stays behind. Raises: UserError."""
    scheme, separator, rest = place.partition("://")
    if not separator or scheme == "file":
        return Store(rest if separator else place, create=create, keeps_corrupt=keeps_corrupt)
    return RemoteStore(place, create=create)


class RemoteStore(Store):
    """A folder that others do not see, and the objects that they do."""

    def __init__(self, url: str, *, create: bool = True, folder: Path | None = None) -> None:
        """Take over what is there; with ``create``, publish what an earlier runner of ``folder`` could not.

        Raises: UserError where it cannot be reached, has no exclusive writes, or (without ``create``) holds no records.
        """
        self.objects = Objects(url)
        if create:
            self.objects.check()
        self._folder_lock, folder = _locked(folder or _cache(self.objects.url))
        super().__init__(folder)
        self._others: dict[str, str] = {}  # digests of what ``latest`` has found, by name
        self._pull(create=create)

    @property
    def place(self) -> str:
        """The URL."""
        return self.objects.url

    def leases(self, what: str) -> Leases:
        """Those of a new runner, as objects."""
        return RemoteLeases(self.objects, self.root, what)

    def has_network(self, cell_id: str) -> bool:
        """Here, or published: a record is only where its network is."""
        return super().has_network(cell_id) or bool(self._networks.get(cell_id))

    def latest(self, name: str) -> Record | MeasurementRecord | None:
        """The record that any runner published, or the one that is here."""
        for kind in _KINDS:
            if text := self.objects.read(f"{kind}/{name}.json"):
                write_whole(self.root / kind / f"{name}.json", text.decode())
                self._others[name] = _sha256(text)
                break
        found = super().latest(name)
        self._note(found)
        return found

    def put(self, record: Record | MeasurementRecord) -> None:
        """Store a record here and there."""
        super().put(record)
        self.publish(record.id)

    def bring(self, *cell_ids: str) -> None:
        """Fetch the networks that are not here, or not the ones that their records name."""
        for cell_id in cell_ids:
            wanted, manifest = self._networks.get(cell_id), self.artifact(cell_id) / "manifest.json"
            if wanted and not (manifest.is_file() and _sha256(manifest.read_bytes()) == wanted):
                start = f"artifacts/{cell_id}/{wanted}/"
                found = self.objects.stamps(start.removesuffix("/"))
                names = self._ours(found, functools.partial(_stays_below, start))
                if not names:
                    raise UserError(
                        f"The network of {cell_id} is gone from {self.place}: remove records/{cell_id}.json there, and "
                        "it is made again."
                    )
                with whole_folder(self.artifact(cell_id)) as part:
                    files = {name: part / name.removeprefix(start) for name in names}
                    for file in files.values():
                        file.parent.mkdir(parents=True, exist_ok=True)
                    self.objects.fetch(files)

    def publish(self, name: str) -> None:
        """The record last: whoever sees it finds the rest."""
        for kind in _KINDS:
            file = self.root / kind / f"{name}.json"
            if not file.is_file() or _sha256(text := file.read_bytes()) == self._others.get(name):
                continue  # it came from there
            record = self.record(name)
            self._note(record)
            if record and record.artifact:
                if not super().has_network(name):
                    continue  # a record without its network would be taken for done
                self._publish_network(record)
            self._publish_log(name)
            self.objects.write(f"{kind}/{name}.json", text)
            self._others[name] = _sha256(text)

    def _publish_network(self, record: Record) -> None:
        for file in artifact.files(self.artifact(record.id)):
            self.objects.write(f"artifacts/{record.id}/{record.artifact}/{file.name}", file.read_bytes())

    def _publish_log(self, name: str) -> None:
        if self.log(name).is_file():
            self.objects.write(f"logs/{name}.log", self.log(name).read_bytes())

    def _note(self, record: Record | MeasurementRecord | None) -> None:
        if isinstance(record, Record):
            self._networks[record.id] = record.artifact

    def _pull(self, *, create: bool) -> None:
        """Make the records here those that are there, but publish what only this folder has."""
        # of each record two stamps, there and here, when both were the same; older versions kept one: all is taken anew
        known_file = self.root / "published.json"
        known = json.loads(known_file.read_text()) if known_file.is_file() else {}
        found = {name: stamp for kind in _KINDS for name, stamp in self.objects.stamps(kind).items()}
        there = {name: found[name] for name in self._ours(found, _RECORD.fullmatch)}
        if not (create or there):
            raise UserError(f"There is no store in {self.place}: run `bench run` first, or name it with --store.")
        here = self._stamps()
        taken = {name for name, stamp in there.items() if name not in here or known.get(name, [""])[0] != stamp}
        mine = {name for name in there.keys() - taken if known[name][1] != here[name]}  # made again here since
        self._take(taken)
        for name in here.keys() - there.keys():
            if name in known:  # somebody removed it there
                (self.root / name).unlink(missing_ok=True)
        self._networks = {name: standing.artifact for name, standing in self.standings().items()}
        for name in sorted(mine | (here.keys() - there.keys() - known.keys())) if create else ():
            self.publish(Path(name).stem)
        same = there.keys() - {name for name in mine if not self._is_shown(name)}
        here = self._stamps()
        stamps = {name: [there[name], here.get(name, "")] if name in same else known[name] for name in there}
        write_whole(known_file, json.dumps(stamps))

    def _ours(self, names: Iterable[str], is_ours: Callable[[str], object]) -> list[str]:
        """Those that a runner may have written: anybody may who can write there, and names become paths."""
        ours = [name for name in names if is_ours(name)]
        if odd := sorted({*names} - {*ours}):
            self.warnings.append(f"{self.place} has objects that are not of a store, such as {odd[0]!r}: left out.")
        return ours

    def _is_shown(self, name: str) -> bool:
        return self._others.get(Path(name).stem) == _sha256((self.root / name).read_bytes())

    def _stamps(self) -> dict[str, str]:
        """What changes with a record's file, by name."""
        files = [file for kind in _KINDS for file in (self.root / kind).glob("[!.]*.json")]
        return {f"{f.parent.name}/{f.name}": f"{(now := f.stat()).st_mtime_ns} {now.st_size}" for f in files}

    def _take(self, names: set[str]) -> None:
        with tempfile.TemporaryDirectory(dir=self.root / "aside") as folder:
            files = {name: Path(folder) / name.replace("/", "-") for name in names}
            self.objects.fetch(files)
            for name, file in files.items():
                file.replace(self.root / name)


class RemoteLeases(Leases):
    """Leases whose links and runners are objects; whoever is silent for too long is dead, wherever it ran."""

    def __init__(
        self, objects: Objects, root: Path, what: str = "", *, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(root, what, beat_s=beat_s, patience_s=patience_s)
        self._objects, self._beats = objects, 0

    def _write(self) -> None:
        self._touch()

    def _leave(self) -> None:
        self._forget(self.name)

    def _touch(self) -> None:
        self._beats += 1
        self._objects.write(f"runners/{self.name}", json.dumps(self.facts | {"beats": self._beats}).encode())

    def _names(self) -> list[str]:
        return [name.removeprefix("runners/") for name in self._objects.stamps("runners")]

    def _forget(self, name: str) -> None:
        self._objects.remove(f"runners/{name}")

    def is_dead(self, name: str) -> bool:
        """Whether a runner's object is gone, or has not changed for as long as this one has watched."""
        text = self._objects.read(f"runners/{name}")
        return text is None or self._is_still(name, text, json.loads(text))

    def _make(self, link: str) -> bool:
        made = self._objects.create(f"leases/{link}", self.name.encode())
        return made or self._target(link) == self.name  # an answer that got lost on its way was asked for again

    def _target(self, link: str) -> str | None:
        text = self._objects.read(f"leases/{link}")
        return None if text is None else text.decode()

    def _remove(self, link: str) -> None:
        self._objects.remove(f"leases/{link}")


def _stays_below(start: str, name: str) -> bool:
    path = PurePosixPath(name.removeprefix(start))
    return not path.is_absolute() and ".." not in path.parts


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cache(url: str) -> Path:
    """Where this machine keeps what it knows of a URL; BENCH_CACHE names another place."""
    root = os.environ.get("BENCH_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "slimbench" / _sha256(url.encode())[:16]


def _locked(folder: Path) -> tuple[int, Path]:
    """The first part of ``folder`` that no other store uses, and the open file whose lock says so."""
    number = 0
    while True:
        part = folder / str(number)
        part.mkdir(parents=True, exist_ok=True)
        lock = os.open(part / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            number += 1
        else:
            return lock, part
