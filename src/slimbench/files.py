"""Files and folders that are written whole or not at all, and clocks that only their file system tells."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from typing import TYPE_CHECKING

from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StoreFullError(UserError):
    """The disk is full: nothing that was stored is lost, and nothing half-written is left."""


def part_of(path: Path) -> Path:
    """A name beside a file's or a folder's own, to fill first: two containers have the same process ids."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


@contextlib.contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """A file to fill that takes its final name only when it is complete. Raises: StoreFullError."""
    part = part_of(final)
    try:
        yield part
        part.replace(final)
    except OSError as error:
        raise full(error, final) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part. Raises: StoreFullError."""
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def writable(path: Path | str, option: str) -> Iterator[None]:
    """What writes to a place that an option names. Raises: UserError, with both, where it cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another with {option}.") from error


def full(error: OSError, path: Path) -> OSError | StoreFullError:
    """``StoreFullError`` for a full disk or quota, otherwise the error itself."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFullError(
            f"The disk that holds {path.parent} is full: free some space and run the same command again."
        )
    return error


@contextlib.contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to fill that takes its final name only when it is complete; an older one is replaced."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(final)
    try:
        part.mkdir()  # as open to others as files are; what ``tempfile`` makes is not
        yield part
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except OSError as error:
        raise full(error, final) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def file_system_s(folder: Path) -> float:
    """What time it is for the file system that holds ``folder``, in seconds: this machine's clock may differ."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def modified_s(path: Path) -> float:
    """When a file was changed last, by its file system's clock; long ago for one that is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def size_bytes(folder: Path) -> int:
    """Bytes on disk below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
