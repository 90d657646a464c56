"""Two ONNX files and a request go in; samples of both networks, taken in fresh processes, come out as JSON.

One file, for any machine that has Python 3.8, numpy and onnxruntime: ``python agent.py FOLDER``. FOLDER holds
dense.onnx, compressed.onnx and request.json:

    {"threads": 1, "shape": [N, C, H, W], "sessions": 1, "rounds": 30, "warm_s": [at least, at most]}

It samples as ``_timing.py`` does; what is made of the samples is made on the other side. ``python agent.py --machine``
prints the machine alone.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW = 10
_STABLE = 0.02  # two successive windows' medians agree to this
_LOOK_S = 0.25
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # numpy's own: onnxruntime's are set below


def main(arguments: list[str]) -> None:
    """Print what was asked for; a process that fails is part of the answer."""
    if arguments[0] == "--machine":
        answer: Any = {"machine": machine()}
    elif len(arguments) > 1:
        answer = _PARTS[arguments[1]](Path(arguments[0]), arguments[2])
    else:
        answer = measure(arguments[0])
    sys.stdout.write(json.dumps(answer) + "\n")


def measure(folder: str) -> dict[str, Any]:
    """Peaks and sessions, each in a process of its own while this one sleeps; after a failure no session begins."""
    sessions, parent = json.loads((Path(folder) / "request.json").read_text())["sessions"], os.getppid()
    parts = [("peak", "dense"), ("peak", "compressed"), *(("session", str(seed)) for seed in range(sessions))]
    answer: dict[str, Any] = {"machine": machine(), "peak": {}, "session": {}, "failed": []}
    for what, which in parts:
        if os.getppid() != parent or (what == "session" and answer["failed"]):
            break  # nobody listens any more, or there is nothing to time
        # -B: the folder may be read-only, and is not ours
        command = [sys.executable, "-B", __file__, folder, what, which]
        # what onnxruntime leaves in TMPDIR goes with the folder
        environ = {**os.environ, **_ONE_THREAD, "TMPDIR": str(folder)}
        done = subprocess.run(command, capture_output=True, env=environ, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            failed = {"what": what, "which": which, "code": done.returncode, "said": (said or [""])[-1]}
            answer["failed"].append(failed)
        else:
            answer[what][which] = json.loads(done.stdout.decode().splitlines()[-1])
    return answer


def session(folder: Path, seed: str) -> dict[str, Any]:
    """All that one process measures: milliseconds by network, and what went on meanwhile."""
    request = json.loads((folder / "request.json").read_text())
    busy, load = busy_cores(), load_average()
    # three copies: a network that runs twice a round would find its weights in the cache more often
    files = {"dense": "dense", "again": "dense", "compressed": "compressed"}
    runs = {name: _load(folder / (file + ".onnx"), request) for name, file in files.items()}
    for run in runs.values():
        warm_up(run, *request["warm_s"])
    clock, started, before, own = clock_mhz(), time.monotonic(), _busy_seconds(), time.process_time()
    samples = interleaved(runs, request["rounds"], int(seed))
    elapsed = time.monotonic() - started
    if elapsed >= _LOOK_S:  # the system counts in hundredths of a second
        busy = max(busy, (_busy_seconds() - before - time.process_time() + own) / elapsed)
    return {
        "samples": samples,
        "busy_cores": busy,
        "load_average": [load, load_average()],
        "clock_mhz": [clock, clock_mhz()],
    }


def peak(folder: Path, name: str) -> int | None:
    """Bytes that loading the network and running one batch add; None where the system does not tell.

    To a process that has done so before: what a runtime sets up for any network is not this one's.
    """
    request = json.loads((folder / "request.json").read_text())
    _libc("mallopt", -3, 128 * 1024)  # as memory.count_exactly: else what was freed would be taken, unseen
    _load(folder / (name + ".onnx"), request)()
    gc.collect()
    _libc("malloc_trim", 0)
    before = _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = _status("VmHWM")  # the highest so far cannot be forgotten: count from there
    _load(folder / (name + ".onnx"), request)()
    highest = _status("VmHWM")
    return highest - before if highest and before else None


def _libc(name: str, *arguments: int) -> None:
    """A function of the C library, where there is one."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import ctypes

        getattr(ctypes.CDLL(None), name)(*arguments)


def _load(file: Path, request: dict[str, Any]) -> Callable[[], object]:
    """A forward pass of one batch."""
    import numpy
    import onnxruntime

    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    # threads of one network that spin for more work would take the cores of the next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    network = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = numpy.random.RandomState(0).randn(*request["shape"]).astype(numpy.float32)
    name = network.get_inputs()[0].name
    return lambda: network.run(None, {name: inputs})


# ------------------------------------------------------------------------------------- the rounds, as in _timing.py


def warm_up(run: Callable[[], object], at_least_s: float, at_most_s: float) -> None:
    """Run until at least ``at_least_s`` seconds went by and the running median is stable, or ``at_most_s`` went by."""
    started = time.perf_counter()
    taken: list[float] = []
    while time.perf_counter() - started < at_most_s:
        elapsed = time.perf_counter() - started
        taken.append(_once(run))
        if elapsed >= at_least_s and len(taken) >= 2 * _WINDOW:
            before, now = statistics.median(taken[-2 * _WINDOW : -_WINDOW]), statistics.median(taken[-_WINDOW:])
            if abs(now - before) <= _STABLE * before:
                return


def interleaved(runs: dict[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Time each run once a round, in an order drawn anew each round, with the garbage collector off."""
    shuffle = random.Random(seed)
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle.shuffle(names)
            for name in names:
                samples[name].append(_once(runs[name]))
    finally:
        if collecting:
            gc.enable()
    return samples


def _once(run: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started) / 1e6


# ----------------------------------------------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions: a fingerprint as ``environment.machine`` makes it."""
    memory = _field("/proc/meminfo", "MemTotal")
    return {
        "cpu": cpu_name(),
        "cpu_design": cpu_design(),
        "cores": cores(),
        "memory_gib": round(int(memory.split()[0]) / 2**20) if memory else None,
        "system": platform.system() + " " + platform.machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("numpy", "onnxruntime")},
        },
    }


def cpu_name() -> str:
    """The board's model where the device tree has it, and the processor's."""
    board = _read("/proc/device-tree/model").strip("\0\n ")
    chip = _field("/proc/cpuinfo", "model name") or _field("/proc/cpuinfo", "Hardware")
    return ", ".join(part for part in (board, chip) if part) or platform.processor() or platform.machine()


def cpu_design() -> str:
    """As ``environment.cpu_design`` tells it."""
    told = ("cpu family", "model", "CPU implementer", "CPU part")
    found = {name: _field("/proc/cpuinfo", f"{name}\t") for name in told}
    return ", ".join(f"{name} {value}" for name, value in found.items() if value)


def cores() -> int:
    """Cores without hyper-threads."""
    count = os.cpu_count() or 1
    paths = [f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list" for i in range(count)]
    siblings = [_read(path) for path in paths]
    return len(set(siblings)) if all(siblings) else count


def clock_mhz() -> float | None:
    """The present clock, mean over cores; None where the system does not tell."""
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("cpu MHz")]
    clocks = [float(line.split(":")[1]) for line in lines]
    if not clocks:
        paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
        clocks = [int(text) / 1000 for text in map(_read, paths) if text.strip()]
    return statistics.mean(clocks) if clocks else None


def load_average() -> float:
    """Of the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy_cores() -> float:
    """Cores that other work keeps busy right now."""
    before = _busy_seconds()
    time.sleep(_LOOK_S)
    return (_busy_seconds() - before) / _LOOK_S


def _busy_seconds() -> float:
    """Of all cores since the start, all but idle and waiting; 0 where the system does not tell."""
    ticks = [int(count) for count in _read("/proc/stat").partition("\n")[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 4 else 0.0


def _status(name: str) -> int | None:
    found = _field("/proc/self/status", name)
    return int(found.split()[0]) * 1024 if found else None


def _field(path: str, name: str) -> str:
    """What stands behind the colon in the first line that begins with ``name``; empty where there is none."""
    lines = (line for line in _read(path).splitlines() if line.startswith(name))
    return next(lines, "").partition(":")[2].strip()


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


_PARTS = {"peak": peak, "session": session}

if __name__ == "__main__":
    main(sys.argv[1:])
