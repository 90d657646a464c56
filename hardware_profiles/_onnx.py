"""Two stored networks go in; a folder for the agent comes out, and of the agent's answer a measurement."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench.core import DoesNotFitError, Level, Measurement, UserError
from slimbench.hardware_profiles import _agent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGENT = Path(_agent.__file__)
LIMIT_S = 1200.0  # of one agent; level full takes two or three minutes
_LEVELS = {  # processes, rounds in each, warm-up seconds at least and at most
    "quick": (1, 30, (0.1, 1.0)),
    "full": (5, 40, (2.0, 20.0)),
}
_NOISY = 0.10  # an A/A interval wider than this, each way, is no measurement
_CLOCK_DRIFT = 0.10
_SPARE = 0.3  # of a core: the system itself
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

    Raises: UserError where a network is damaged, or computes something else as ONNX.
    """
    from slimbench.artifact import verify

    exported(artifact, folder / "compressed.onnx")
    shutil.copyfile(_kept(reference), folder / "dense.onnx")
    shutil.copyfile(AGENT, folder / "agent.py")
    sessions, rounds, warm_s = _LEVELS[level]
    shape = [batch, *verify(artifact)["input"]]
    request = {"threads": threads, "shape": shape, "sessions": sessions, "rounds": rounds, "warm_s": warm_s}
    (folder / "request.json").write_text(json.dumps(request))
    return request


def exported(folder: Path, target: Path) -> None:
    """The stored network as ONNX, seen to compute the same. Raises: UserError."""
    from slimbench.export import export

    export(folder, "onnx", target, quick=True)


def _kept(folder: Path) -> Path:
    """The dense network as ONNX, kept beside its artifact: it is measured with every network made from it."""
    target = folder / "measured.onnx"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as part:
            exported(folder, Path(part) / target.name)
            (Path(part) / target.name).replace(target)
    return target


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
    """Percentiles, ratio, noise and doubts, of the agent's samples."""
    import numpy as np

    from slimbench.hardware_profiles import _timing

    sessions: Sequence[Mapping[str, Any]] = list(found["session"].values())
    names = ("dense", "again", "compressed")
    samples = {name: np.array([s["samples"][name] for s in sessions]) for name in names}
    ratio, low, high = _timing.ratio(samples["dense"], samples["compressed"])
    _, same_low, same_high = _timing.ratio(samples["dense"], samples["again"])
    noise = max(abs(same_low - 1), abs(same_high - 1))
    threads = request["threads"]
    doubts = [disturbed(s, threads, found["machine"]["cores"]) for s in sessions] + [unsteady(noise)]
    first, last = sessions[0], sessions[-1]
    return Measurement(
        **_timing.percentiles(samples["compressed"]),
        dense_p50_ms=_timing.percentiles(samples["dense"])["p50_ms"],
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        noise=noise,
        level=level,
        disturbed=next((doubt for doubt in doubts if doubt), None),
        batch=request["shape"][0],
        threads=threads,
        samples=samples["compressed"].size,
        peak_bytes=found["peak"]["compressed"],
        dense_peak_bytes=found["peak"]["dense"],
        busy_cores=max(s["busy_cores"] for s in sessions),
        load_average=(first["load_average"][0], last["load_average"][1]),
        clock_mhz=(first["clock_mhz"][0], last["clock_mhz"][1]),
        input_shape=tuple(request["shape"]),
    )


def disturbed(session: Mapping[str, Any], threads: int, cores: int) -> str | None:
    """Why a session should be doubted, or None: foreign load, or a drifting clock."""
    busy, (before, after) = session["busy_cores"], session["clock_mhz"]
    if busy > cores - threads + _SPARE:
        return f"other work kept {busy:.1f} of {cores} cores busy"
    if before and after and abs(after - before) > _CLOCK_DRIFT * before:
        return f"the clock went from {before:.0f} to {after:.0f} MHz"
    return None


def unsteady(noise: float) -> str | None:
    """Why the samples themselves should be doubted, or None."""
    return f"dense against itself varies by {100 * noise:.0f} %" if noise > _NOISY else None


def fingerprint(told: Mapping[str, Any]) -> dict[str, Any]:
    """Of another machine, as the agent told it, with the version of torch that made the ONNX files."""
    from slimbench.environment import versions

    return {**told, "versions": {"torch": versions()["torch"], **told["versions"]}}


def readable(folder: Path) -> None:
    """Let another user read what a folder holds."""
    os.chmod(folder, 0o755)  # noqa: PTH101, S103
    for file in folder.iterdir():
        file.chmod(0o644)
