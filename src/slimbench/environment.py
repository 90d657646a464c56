"""This machine and these packages: what a record must say about where it was made."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from slimbench.core import Precision, Settings, UserError
from slimbench.identity import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

CORES = Path("/sys/devices/system/cpu")
_PACKAGES = ("slimbench", "torch", "torchvision", "torch-pruning", "numpy", "fvcore", "onnxruntime")
_SOURCES = ("src", "benchmarks", "hardware_profiles", "methods", "tasks")  # what a record's numbers may hang on
_EXTRAS = ("executorch", "openvino")
_GITS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
HELD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # torch and oneDNN: one rounding on all x86
HELD_TO = "AVX2, oneDNN AVX2"  # what ``instructions`` then says


def data_root() -> Path | None:
    """The folder that ``BENCH_DATA`` (or ``--data``) names, or None. Raises: UserError where it does not exist."""
    value = os.environ.get("BENCH_DATA", "")
    if not value:
        return None
    root = Path(value).expanduser()
    if not root.is_dir():
        raise UserError(f"The data folder {root} does not exist: set --data or BENCH_DATA to the folder that holds it.")
    return root


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """What Linux tells of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_name() -> str:
    """The processor's model name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_design() -> str:
    """Which of the designs that share a name: "cpu family 26, model 2"; empty where Linux does not tell."""
    told = ("cpu family", "model", "CPU implementer", "CPU part")
    return ", ".join(f"{name} {_cpuinfo()[name]}" for name in told if name in _cpuinfo())


def cpu_flags() -> frozenset[str]:
    """Instruction sets that Linux lists; empty elsewhere."""
    return frozenset(_cpuinfo().get("flags", "").split())


def instructions() -> str:
    """The vector instructions that torch takes, and those that oneDNN is held to; others round otherwise.

    ``HELD`` holds both to ``HELD_TO``.
    """
    import torch

    held = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN {held.upper()}" if held else "")


def held_as(said: str | None) -> Mapping[str, str]:
    """The variables under which ``instructions`` said this: ``HELD``, or none."""
    return HELD if said == HELD_TO else {}


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 in hardware (AMX or AVX512-bf16)."""
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})


def resolve(precision: str = "auto", device: str = "cpu", threads: int = 1, *, elsewhere: bool = False) -> Settings:
    """What a cell will run with: "auto" precision is bf16 where the hardware has it.

    Args:
        elsewhere: nothing is trained here, so that the device may be absent.

    Raises: UserError where the device is absent or a name is unknown.

    """
    if precision not in {"auto", "fp32", "bf16"}:
        raise UserError(f"Unknown precision {precision!r}: use auto, fp32 or bf16.")
    if device not in {"cpu", "cuda"}:
        raise UserError(f"Unknown device {device!r}: use cpu or cuda.")
    if threads < 1:
        raise UserError(f"threads={threads} is impossible: give one or more.")
    if threads > physical_cores() and not elsewhere:
        raise UserError(f"threads={threads}, but this machine has {physical_cores()} cores: give at most as many.")
    if device == "cuda" and not elsewhere:
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda, but this machine has no usable CUDA device: use --device cpu.")
    resolved: Precision = "bf16" if precision == "bf16" else "fp32"
    if precision == "auto" and (device == "cuda" or has_fast_bf16()):
        resolved = "bf16"
    return Settings(resolved, device, threads)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; extras where they are installed."""
    found = {"python": platform.python_version()}
    for package in _EXTRAS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@functools.cache
def commit() -> str:
    """The commit of this checkout; empty outside of one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / "pyproject.toml").is_file():
        return ""  # installed: whatever repository surrounds it is another's
    try:
        return commit_in(here)
    except (OSError, subprocess.SubprocessError):
        return ""


def commit_in(top: Path) -> str:
    """The commit of a checkout; where its sources differ from it, with "-dirty-" and a digest of those that do."""
    head = _git(top, "rev-parse", "--short=12", "HEAD").strip()
    changed = _git(top, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *_SOURCES)
    added = _git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", *_SOURCES)
    others = {name: _hash(top / name) for name in (changed + added).split("\0") if name}
    return f"{head}-dirty-{digest(others)[:8]}" if others else head


def _git(top: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=top, env=without_git(), capture_output=True, timeout=10, check=True)
    return os.fsdecode(done.stdout)


def _hash(path: Path) -> str:
    """Of what a file holds, or each below a folder (a repository inside, a link); empty for what is gone."""
    if path.is_dir():
        return digest({str(file.relative_to(path)): _hash(file) for file in path.rglob("*") if file.is_file()})
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_git() -> dict[str, str]:
    """The environment without what a git hook says in it: git then looks for the repository where it stands."""
    return {name: value for name, value in os.environ.items() if name not in _GITS}


@functools.cache
def machine() -> dict[str, Any]:
    """A fingerprint of the hardware and the runtimes: latencies of two fingerprints never share a column."""
    return {
        "cpu": cpu_name(),
        "cpu_design": cpu_design(),
        "instructions": instructions(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {k: v for k, v in versions().items() if k != "slimbench"},
    } | ({"gpus": found} if (found := gpus()) else {})


def machine_in(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a record's environment tells of the machine: the same, whichever SlimBench wrote it down."""
    versions = {k: v for k, v in environment["versions"].items() if k != "slimbench"}
    return {k: v for k, v in environment.items() if k != "commit"} | {"versions": versions}


def gpus() -> list[str]:
    """Names of NVIDIA's; none where no driver answers."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        every = range(pynvml.nvmlDeviceGetCount())
        return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in every]
    except pynvml.NVMLError:
        return []


def environment() -> dict[str, Any]:
    """Everything a record says of where it was made."""
    return machine() | {"versions": versions(), "commit": commit()}


def physical_cores() -> int:
    """Cores that this process may use, without hyper-threads."""
    usable = len(usable_cores())
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def usable_cores() -> list[int]:
    """A processor of each core that this process may use, by number: the first of the core's hyper-threads."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings: dict[str, int] = {}
    for cpu in sorted(usable):
        try:
            core = (CORES / f"cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        siblings.setdefault(core, cpu)
    return list(siblings.values())


def clock_mhz() -> float | None:
    """The processor's present clock in MHz, mean over cores; None where the system does not tell."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError):
        return None
    return float(frequency.current) if frequency else None
