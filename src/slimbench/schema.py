"""A record file's document goes in; the body that this version reads comes out, or one sentence says why not.

A field with a default that says what records without it meant needs no new version: ``store`` reads both. Any other
change of form raises ``SCHEMA``, and puts a pure function here that turns a body of the version before into one of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from slimbench.core import UserError

Kind = Literal["records", "measurements"]
Body = dict[str, Any]
Migration = Callable[[Kind, Body], Body]  # never changes the body that it is given

SCHEMA = 4
_OWN_PEAK = {  # since which version a peak is the network's alone
    "cpu": 4, "executorch_cpu": 3, "cuda": 2, "openvino": 3, "onnx_cpu": 2, "edge_container": 2, "edge_remote": 2
}  # fmt: skip
_PEAKS = ("peak_bytes", "dense_peak_bytes", "reserved_bytes", "dense_reserved_bytes")


def _without_peaks(kind: Kind, body: Body) -> Body:
    """Those had in them what Python or a runtime sets up or tries out for any network, 17 to 110 MB, or blocks that lay
    between what was freed, up to half as much again: they are told no more.
    """
    taken = body.get("measurement")
    if kind != "measurements" or not taken or body["profile"]["version"] >= _OWN_PEAK.get(body["profile"]["is"], 0):
        return body
    return {**body, "measurement": {**taken, **dict.fromkeys(_PEAKS)}}


# by the version that a body comes from: to the next one
MIGRATIONS: dict[int, Migration] = dict.fromkeys((1, 2, 3), _without_peaks)


def current(kind: Kind, version: int, body: Body, name: str) -> Body:
    """``body`` of a ``version`` as one of ``SCHEMA``. Raises: UserError for newer versions, and forgotten ones.

    ``name``: of the file, for the sentence.
    """
    refuse_newer(version, name)
    for step in range(version, SCHEMA):
        if step not in MIGRATIONS:
            raise UserError(
                f"{name} has the form of schema {version}, which this SlimBench no longer reads: "
                "open its store with an older one, or make it again in a new store."
            )
        body = MIGRATIONS[step](kind, body)
    return body


def refuse_newer(version: int, name: str, by: str = "") -> None:
    """Raises: UserError where a version is not known yet, ValueError where it is none."""
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError(f"its schema is {version!r}")
    if version > SCHEMA:
        raise UserError(f"{name} was written by a newer SlimBench ({by or f'schema {version}'}): update first.")
