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
from typing import TYPE_CHECKING, Any

from slimbench import identity
from slimbench.core import DoesNotFitError, HardwareProfile, Level, MeasurementRecord, Record
from slimbench.environment import environment, machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from slimbench.store import Store

_ATTEMPTS = 3  # of a full measurement that is disturbed
_REST_S = 20.0


def measurement_id(record: Record, reference: Record, profile: HardwareProfile, level: Level) -> str:
    """The id that a measurement has, here or on the profile's own machine."""
    return identity.measurement_id(record.artifact, reference.artifact, profile, level, machine_of(profile))


def machine_of(profile: HardwareProfile) -> Mapping[str, Any]:
    """What is timed: this machine, unless the profile says otherwise."""
    told = getattr(profile, "machine", machine)
    return told()  # type: ignore[no-any-return]


def measure(
    record: Record, reference: Record, profile: HardwareProfile, level: Level, store: Store
) -> MeasurementRecord:
    """Measure ``record``'s network against ``reference``'s and store the result.

    A disturbed ``quick`` measurement is kept and flagged; a ``full`` one is tried again and then refused. Where a
    network does not fit, that is the result: "unsupported".
    """
    blank = empty_record(record, reference, profile, level)
    with exclusive(profile.name):
        for attempt in range(_ATTEMPTS):
            try:
                taken = profile.measure(store.artifact(record.id), store.artifact(reference.id), level)
            except DoesNotFitError as error:
                done = replace(blank, status="unsupported", reason=str(error), finished=now())
                store.put(done)
                return done
            if level == "quick" or taken.disturbed is None:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(_REST_S)
    done = replace(blank, measurement=taken, finished=now())
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
        environment=environment_of(profile),
    )


def environment_of(profile: HardwareProfile) -> dict[str, Any]:
    """Everything a record says of where it was made: ``environment``'s, and the profile's own machine."""
    here, there = environment(), machine_of(profile)
    return {**here, **there, "versions": {"slimbench": here["versions"]["slimbench"], **there["versions"]}}


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def exclusive(device: str) -> Iterator[None]:
    """One measurement on a device at a time, over all stores of this machine."""
    with (Path(tempfile.gettempdir()) / f"slimbench-{os.getuid()}-{device}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
