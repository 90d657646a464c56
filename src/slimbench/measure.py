"""Two stored artifacts and a profile go in; a measurement record comes out. Exclusive on its device."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimbench import identity
from slimbench.core import HardwareProfile, Level, MeasurementRecord, Record
from slimbench.environment import environment, machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from slimbench.store import Store

_ATTEMPTS = 3  # of a full measurement that is disturbed
_REST_S = 20.0


def measurement_id(record: Record, reference: Record, profile: HardwareProfile, level: Level) -> str:
    """The id that a measurement on this machine has."""
    return identity.measurement_id(record.artifact, reference.artifact, profile, level, machine())


def measure(
    record: Record, reference: Record, profile: HardwareProfile, level: Level, store: Store
) -> MeasurementRecord:
    """Measure ``record``'s network against ``reference``'s and store the result.

    A disturbed ``quick`` measurement is kept and flagged; a ``full`` one is tried again and then refused.
    """
    blank = empty_record(record, reference, profile, level)
    with exclusive(profile.name):
        for attempt in range(_ATTEMPTS):
            taken = profile.measure(store.artifact(record.id), store.artifact(reference.id), level)
            if level == "quick" or taken.disturbed is None:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(_REST_S)
    done = replace(blank, measurement=taken, finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    if level == "full" and taken.disturbed:
        done = replace(done, status="failed", measurement=None, reason=f"refused: {taken.disturbed}")
    store.put(done)
    return done


def empty_record(record: Record, reference: Record, profile: HardwareProfile, level: Level) -> MeasurementRecord:
    """A measurement with everything that is known before it."""
    return MeasurementRecord(
        id=measurement_id(record, reference, profile, level),
        cell_id=record.id,
        reference_id=reference.id,
        profile=identity.describe(profile) | {"version": profile.version, "label": identity.label(profile)},
        status="ok",
        environment=environment(),
    )


@contextlib.contextmanager
def exclusive(device: str) -> Iterator[None]:
    """One measurement on a device at a time, over all stores of this machine."""
    with (Path(tempfile.gettempdir()) / f"slimbench-{os.getuid()}-{device}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
