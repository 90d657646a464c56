"""A store goes in; one archive to send comes out, and an archive's store again, checked: what `bench verify` finds."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import lzma
import re
import tempfile
import zipfile
import zlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench import discover, schema
from slimbench.core import UserError
from slimbench.files import writable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.core import Record
    from slimbench.store import Store

VERSION = 1
MANIFEST = "submission.json"
_NAME = re.compile(r"(?:(?:records|measurements)/[0-9a-z]{1,64}\.json|artifacts/[0-9a-z]{1,64}/[a-z]+\.[a-z0-9]+)")
_DAMAGED = (  # what reading an archive raises where it is none, is damaged, encrypted, or packed in a way unknown here
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, KeyError, ValueError, TypeError,
    AttributeError, OSError,
)  # fmt: skip
_LARGEST = 2**32  # bytes of what one archive may unpack to
_STAMP = (1980, 1, 1, 0, 0, 0)  # the same records, the same bytes


def pack(store: Store, out: Path, *, with_networks: bool = False) -> dict[str, Any]:
    """Write ``out`` whole or not at all; its manifest.

    ``with_networks``: artifacts too, of tasks with embedded data and networks that were trained here: others' licences
    do not let them be passed on. Raises: UserError where there is nothing to send, or ``out`` cannot be written.
    """
    records, measurements = store.records(), store.measurements()
    if not records:
        raise UserError(f"There is nothing to submit in {store.root}: `bench run --all` makes records.")
    names = [
        f"{kind}/{one.id}.json"
        for kind, found in (("records", records), ("measurements", measurements))
        for one in found
    ]  # type: ignore[attr-defined]
    if with_networks:
        names += [name for record in records if may_be_passed_on(record) for name in _networks(store, record)]
    content = {name: (store.root / name).read_bytes() for name in names}
    manifest = {
        "submission": VERSION,
        "schema": schema.SCHEMA,
        "slimbench": metadata.version("slimbench"),
        "records": len(records),
        "measurements": len(measurements),
        "environments": _environments([*records, *measurements]),
        "sha256": {name: hashlib.sha256(body).hexdigest() for name, body in sorted(content.items())},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        for name, body in ((MANIFEST, text.encode()), *sorted(content.items())):
            archive.writestr(zipfile.ZipInfo(name, _STAMP), body, zipfile.ZIP_DEFLATED)
    _write(out, buffer.getvalue())
    return manifest


def may_be_passed_on(record: Record) -> bool:
    """Whether a network is ours to send: made of embedded data alone."""
    return bool(record.artifact) and not record.published and record.cell["task"]["is"] in embedded()


@functools.cache
def embedded() -> frozenset[str]:
    """Tasks whose data may be passed on, and so what is made of them: those of the embedded suite."""
    return frozenset(task.name for task in discover.suite("quick").tasks)


def _networks(store: Store, record: Record) -> list[str]:
    from slimbench import artifact

    return [f"artifacts/{record.id}/{file.name}" for file in artifact.files(store.artifact(record.id))]


def _environments(found: list[Any]) -> list[Any]:
    """Every environment once."""
    texts = {json.dumps(one.environment, sort_keys=True) for one in found}
    return [json.loads(text) for text in sorted(texts)]


def _write(out: Path, content: bytes) -> None:
    temporary = out.with_name(f".{out.name}.part")
    with writable(out, "--out"):
        try:
            temporary.write_bytes(content)
            temporary.replace(out)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """A folder with an archive's store, for as long as it is looked at.

    Raises: UserError where this is no such archive, or its files are not those that were packed.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                manifest = json.loads(archive.read(MANIFEST))
                _refuse_newer(manifest, file)
                (Path(folder) / "records").mkdir()
                _extract(archive, manifest["sha256"], Path(folder), file)
        except _DAMAGED as error:
            raise UserError(f"{file} is no archive that `bench submit` wrote, or it is damaged ({error}).") from error
        yield Path(folder)


def _refuse_newer(manifest: Any, file: Path) -> None:
    newer = schema.SCHEMA + 1 if manifest["submission"] > VERSION else manifest["schema"]
    schema.refuse_newer(newer, str(file), manifest["slimbench"])


def _extract(archive: zipfile.ZipFile, sums: dict[str, str], folder: Path, file: Path) -> None:
    """Every file that the manifest lists, and no other; names that lead elsewhere are refused."""
    found = {info.filename: info.file_size for info in archive.infolist()} | {MANIFEST: 0}
    if odd := sorted(found.keys() ^ {MANIFEST, *sums}):
        raise UserError(f"{file} is damaged: {odd[0]} is not both in it and in its list of checksums.")
    if sum(found.values()) > _LARGEST:
        raise UserError(f"{file} unpacks to more than {_LARGEST // 2**30} GiB: that is no set of records.")
    for name, expected in sorted(sums.items()):
        if not _NAME.fullmatch(name):
            raise UserError(f"{file} holds {name!r}, which is neither a record nor a network: it is refused.")
        body = archive.read(name)
        if hashlib.sha256(body).hexdigest() != expected:
            raise UserError(f"{file} is damaged: {name} does not match its checksum.")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
