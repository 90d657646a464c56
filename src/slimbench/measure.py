"""Two stored artifacts and a profile go in; a measurement record comes out. Exclusive on its device."""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slimbench import devices, identity
from slimbench.core import DoesNotFitError, HardwareProfile, Level, Measurement, MeasurementRecord, Record
from slimbench.environment import commit, machine, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from slimbench.store import Store

_ATTEMPTS = 3  # of a full measurement that is disturbed
_REST_S = 20.0
_PATIENCE_S = {"quick": 30.0, "full": math.inf}  # with other runs that train on the device


def measurement_id(record: Record, reference: Record, profile: HardwareProfile, level: Level) -> str:
    """The id that a measurement has, here or on the profile's own machine."""
    return identity.measurement_id(record.artifact, reference.artifact, profile, level, machine_of(profile))


def machine_of(profile: HardwareProfile) -> Mapping[str, Any]:
    """What is timed: this machine, unless the profile says otherwise."""
    told = getattr(profile, "machine", machine)
    return told()  # type: ignore[no-any-return]


def measure(
    record: Record,
    reference: Record,
    profile: HardwareProfile,
    level: Level,
    store: Store,
    *,
    say: Callable[[str], object] = devices.say_nothing,
) -> MeasurementRecord:
    """Measure ``record``'s network against ``reference``'s and store the result.

    A disturbed ``quick`` measurement is kept and flagged; a ``full`` one is tried again and then refused. Where a
    network does not fit, that is the result: "unsupported".
    """
    done = empty_record(record, reference, profile, level)
    try:
        taken = timed(profile, store.artifact(record.id), store.artifact(reference.id), level, say)
    except DoesNotFitError as error:
        done = replace(done, status="unsupported", reason=str(error))
    else:
        reason = refusal(taken)
        done = replace(done, status="failed", reason=reason) if reason else replace(done, measurement=taken)
    done = replace(done, finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    store.put(done)
    return done


def timed(
    profile: HardwareProfile,
    artifact: Path,
    reference: Path,
    level: Level,
    say: Callable[[str], object] = devices.say_nothing,
) -> Measurement:
    """A measurement that has the device to itself; a disturbed ``full`` one is tried again, twice."""
    with devices.alone(device_of(profile), _PATIENCE_S[level], say) as is_alone:
        for attempt in range(_ATTEMPTS):
            taken = profile.measure(artifact, reference, level)
            if level == "quick" or taken.disturbed is None:
                break
            if attempt < _ATTEMPTS - 1:
                time.sleep(_REST_S)
    return taken if is_alone or taken.disturbed else replace(taken, disturbed="another run trained on the device")


def refusal(taken: Measurement) -> str:
    """Why a measurement is none, or nothing: a full one that was disturbed to the end."""
    return f"refused: {taken.disturbed}" if taken.level == "full" and taken.disturbed else ""


def device_of(profile: HardwareProfile) -> str:
    """What a profile times; one that does not say times a device of its own."""
    return getattr(profile, "device", profile.name)


def empty_record(record: Record, reference: Record, profile: HardwareProfile, level: Level) -> MeasurementRecord:
    """A measurement with everything that is known before it."""
    return MeasurementRecord(
        id=measurement_id(record, reference, profile, level),
        cell_id=record.id,
        reference_id=reference.id,
        profile=identity.describe(profile) | {"version": profile.version, "label": label_of(profile)},
        status="ok",
        environment=environment_of(profile),
    )


def label_of(profile: HardwareProfile) -> str:
    """As it would be typed, with what "all" threads came to: times of one and of eight are not of one kind."""
    label, threads = identity.label(profile), identity.threads_of_all(profile)
    return label.replace("threads=all", f"threads=all: {threads}") if threads else label


def environment_of(profile: HardwareProfile) -> dict[str, Any]:
    """Everything a record says of where it was made: the machine that was timed, and the SlimBench that timed it.

    What another machine does not tell is not known: it is not this one's.
    """
    told = machine_of(profile)
    return {**told, "versions": {"slimbench": versions()["slimbench"], **told["versions"]}, "commit": commit()}
