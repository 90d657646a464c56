"""Names and bytes go in, an object store below one URL keeps them: any that fsspec knows and that can refuse.

An object is written whole or not at all. What runners need besides is a write that fails where there is an object
already (S3: ``If-None-Match: *``), decided by the store in one step: stores without it are refused.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_EXCLUSIVE = ("memory", "s3", "s3a")  # whose ``pipe_file(mode="create")`` is one step of the store; others look first
_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict"}


class Objects:
    """Objects by name, below a URL. Every method raises UserError where the store cannot be reached."""

    def __init__(self, url: str) -> None:
        """Raises: UserError where nothing reads such a URL."""
        import fsspec

        self.url = url.rstrip("/")
        self.protocol = url.partition("://")[0]
        try:
            # answers of a minute ago are of no use among runners
            self._files, self._root = fsspec.core.url_to_fs(
                self.url, use_listings_cache=False, skip_instance_cache=True
            )
        except ImportError as error:
            extra = "pip install 'slimbench[s3]'" if self.protocol.startswith("s3") else str(error)
            raise UserError(f"A package is missing for {self.url}: {extra}.") from error
        except ValueError as error:
            raise UserError(
                f"The store {self.url} cannot be opened ({error}): name a folder, or s3://bucket/prefix."
            ) from error

    def check(self) -> None:
        """Whether many runners may share it: it can be written, and refuses to create what is there."""
        name = f"probe-{secrets.token_hex(8)}"
        if self.protocol not in _EXCLUSIVE or not self.create(name, b"1"):
            raise UserError(self._unfit())
        again = self.create(name, b"2")
        self.remove(name)
        if again:
            raise UserError(self._unfit())

    def _unfit(self) -> str:
        return (
            f"{self.url} cannot create an object only where there is none, so that runners would do each other's "
            "cells again: use S3, or a folder that all runners see."
        )

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless there is one of that name; whether it was written."""
        try:
            with self._reached():
                self._files.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write an object, replacing what is there."""
        with self._reached():
            self._files.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes | None:
        """An object, or None where there is none."""
        with self._reached():
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Remove an object, if there is one."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def stamps(self, folder: str) -> dict[str, str]:
        """What changes with an object, by name, for all below ``folder``."""
        with self._reached():
            try:
                found = self._files.find(self._path(folder), detail=True)
            except FileNotFoundError:
                found = {}
        start = len(self._files._strip_protocol(self._root)) + 1
        return {path[start:]: _stamp(info) for path, info in found.items()}

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Copy objects into files, many at once. Raises: UserError where one is gone."""
        if files:
            with self._reached():
                try:
                    self._files.get([self._path(name) for name in files], [str(file) for file in files.values()])
                except FileNotFoundError as error:
                    raise UserError(
                        f"An object is gone from {self.url} ({error}): run the same command again."
                    ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, UserError):
            raise
        except Exception as error:  # each store has errors of its own
            answer = getattr(error.__cause__, "response", None) or {}
            if answer.get("Error", {}).get("Code") in _REFUSED:
                raise FileExistsError(str(error)) from error
            raise UserError(
                f"The store {self.url} cannot be reached ({type(error).__name__}: {error}): run the same command "
                "again; nothing that was stored is lost."
            ) from error


def _stamp(info: Mapping[str, Any]) -> str:
    changed = next((info[name] for name in ("ETag", "LastModified", "created", "mtime") if info.get(name)), "")
    return f"{changed} {info.get('size')}"
