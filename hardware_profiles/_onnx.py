"""Two stored networks go in; a folder for the agent comes out, and of the agent's answer a measurement."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench.core import DoesNotFitError, Level, Measurement, UserError
from slimbench.hardware_profiles import _agent, _host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.hardware_profiles._protocol import Session

AGENT = Path(_agent.__file__)
LIMIT_S = 1200.0  # of one agent; level full takes two or three minutes
_LEVELS = {  # processes, rounds in each, warm-up seconds at least and at most
    "quick": (1, 30, (0.1, 1.0)),
    "full": (5, 40, (2.0, 20.0)),
}
_KILLED = -9  # what systems do that run out of memory
_DOES_NOT_FIT = {
    ("dense", "compressed"): "neither the dense nor the compressed network fits in {room}",
    ("dense",): "the dense network does not fit in {room}, the compressed one does",
    ("compressed",): "the compressed network does not fit in {room}, the dense one does",
    (): "the networks fit in {room} one at a time, but not side by side to be timed",
}
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|Failed to allocate|Cannot allocate")


def package(artifact: Path, reference: Path, folder: Path, level: Level, *, threads: int, batch: int) -> dict[str, Any]:
    """Put the agent, both networks as ONNX and the request into ``folder``, and return the request.

    Raises: UserError where a network is damaged, computes something else as ONNX, or takes another batch only.
    """
    from slimbench.artifact import verify

    networks = {"compressed": artifact, "dense": reference}
    for network in networks.values():
        _refuse_other_batches(network, batch)
    for name, network in networks.items():  # both by the exporter of now
        exported(network, folder / f"{name}.onnx")
    shutil.copyfile(AGENT, folder / "agent.py")
    sessions, rounds, warm_s = _LEVELS[level]
    shape = [batch, *verify(artifact)["input"]]
    request = {"threads": threads, "shape": shape, "sessions": sessions, "rounds": rounds, "warm_s": warm_s}
    request["bytes"] = {name: (folder / f"{name}.onnx").stat().st_size for name in networks}
    (folder / "request.json").write_text(json.dumps(request))
    return request


def exported(folder: Path, target: Path) -> None:
    """The stored network as ONNX, seen to compute the same; a user's own ONNX file as it is. Raises: UserError."""
    from slimbench.artifact import ONNX
    from slimbench.export import export

    if (given := folder / ONNX).is_file():
        shutil.copyfile(given, target)
        return
    export(folder, "onnx", target, quick=True)


def _refuse_other_batches(folder: Path, batch: int) -> None:
    """Raise UserError where a user's own ONNX file is bound to another batch."""
    from slimbench.artifact import ONNX

    if not (folder / ONNX).is_file():
        return
    import onnx

    graph = onnx.load(folder / ONNX, load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    (given,) = (one for one in graph.input if one.name not in held)
    if (fixed := given.type.tensor_type.shape.dim[0].dim_value) not in {0, batch}:
        raise UserError(f"The ONNX file takes batches of {fixed} alone: profile it with batch={fixed}.")


def answer(text: str) -> dict[str, Any] | None:
    """What the agent printed, last; None where it printed nothing whole."""
    try:
        found = json.loads((text.strip().splitlines() or [""])[-1])
    except ValueError:
        return None
    return found if isinstance(found, dict) and "machine" in found else None


def refuse(failed: Sequence[Mapping[str, Any]], where: str, room: str) -> None:
    """Raise what processes of the agent that failed come to; nothing where none did.

    Args:
        failed: "what" each did ("peak" or "session"), "which" network, its exit "code" and what it "said" last.
        where: the place, as in "onnxruntime is missing WHERE"; ``room``: its memory, as in "does not fit in ROOM".

    Raises: DoesNotFitError where memory was short; else UserError.

    """
    for one in failed:
        said, code = str(one["said"]), one["code"]
        if code == _KILLED or _NO_MEMORY.search(said):
            continue
        if missing := re.search(r"No module named '(numpy|onnxruntime)", said):
            raise UserError(f"{missing[1]} is missing {where}: `python3 -m pip install numpy onnxruntime` there.")
        died = f"signal {-code}" if code < 0 else f"exit {code}"
        raise UserError(f"onnxruntime failed {where} ({said or died}): run `bench export` and try the file there.")
    if failed:
        alone = tuple(one["which"] for one in failed if one["what"] == "peak")
        raise DoesNotFitError(_DOES_NOT_FIT[alone].format(room=room))


def measurement(found: Mapping[str, Any], request: Mapping[str, Any], level: Level) -> Measurement:
    """The agent's answer by the common arithmetic; the first session that is disturbed is the last that counts."""
    from slimbench.hardware_profiles import _protocol

    sessions = []
    for told in found["session"].values():
        sessions.append(_session(told, request["threads"], found["machine"]))
        if sessions[-1].seen.disturbed:
            break
    about: dict[str, Any] = {"input_shape": tuple(request["shape"])}
    for of, name in (("", "compressed"), ("dense_", "dense")):
        about |= {f"{of}peak_bytes": found["peak"][name], f"{of}artifact_bytes": request["bytes"][name]}
    return _protocol.measurement(_Ran(request["shape"][0], request["threads"]), level, sessions, about)


@dataclass(frozen=True)
class _Ran:
    batch: int
    threads_used: int


def _session(told: Mapping[str, Any], threads: int, machine: Mapping[str, Any]) -> Session:
    """One of the agent's processes as one of ours."""
    import numpy as np

    from slimbench.hardware_profiles._protocol import Seen, Session

    busy, load, clocks = told["busy_cores"], told["load_average"], told["clock_mhz"]
    runtime = {"runtime": f"onnxruntime {machine['versions']['onnxruntime']}"}
    seen = Seen(
        _host.disturbed(busy, machine["cores"] - threads, machine["cores"], clocks),
        busy,
        (load[0], load[1]),
        tuple(clocks),
        runtime,
    )
    return Session({name: np.asarray(values) for name, values in told["samples"].items()}, {}, seen)


def fingerprint(told: Mapping[str, Any]) -> dict[str, Any]:
    """Of another machine, as the agent told it, with the version of torch that made the ONNX files."""
    from slimbench.environment import versions

    return {**told, "versions": {"torch": versions()["torch"], **told["versions"]}}


def readable(folder: Path) -> None:
    """Let another user read what a folder holds."""
    os.chmod(folder, 0o755)  # noqa: PTH101, S103
    for file in folder.iterdir():
        file.chmod(0o644)
