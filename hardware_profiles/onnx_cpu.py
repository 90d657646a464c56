"""This machine's processor, by ONNX Runtime: what an edge device runs, where no edge device is at hand."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psutil

from slimbench.core import Level, Measurement, UserError
from slimbench.environment import physical_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class OnnxCPU:
    """ONNX Runtime on the processor, fp32: ``onnx_cpu``, or ``onnx_cpu(batch=32)`` for throughput.

    It takes ONNX files as well.
    """

    threads: int = 1
    batch: int = 1

    name: ClassVar[str] = "onnx_cpu"
    version: ClassVar[int] = 2
    takes_onnx: ClassVar[bool] = True
    device: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        at_least_one({"threads": self.threads, "batch": self.batch})

    def unavailable(self) -> str | None:
        """Too few cores for the threads."""
        cores = physical_cores()
        return None if self.threads <= cores else f"{self.threads} threads on {cores} cores would wait for each other"

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """By the agent, in processes of its own. Raises: UserError; DoesNotFitError."""
        from slimbench.hardware_profiles import _onnx

        with tempfile.TemporaryDirectory(prefix="slimbench-") as name:
            folder = Path(name)
            request = _onnx.package(artifact, reference, folder, level, threads=self.threads, batch=self.batch)
            command = [sys.executable, "-B", str(folder / "agent.py"), name]
            said, complained = _run(command, _onnx.LIMIT_S)
        found = _onnx.answer(said)
        if found is None:
            raise UserError(
                f"The measuring process failed: {(complained.strip().splitlines() or ['it was killed'])[-1]}."
            )
        _onnx.refuse(found["failed"], "here", "this machine's memory")
        return _onnx.measurement(found, request, level)


def _run(command: Sequence[str], limit_s: float) -> tuple[str, str]:
    """What a process says and complains of; where it takes too long it ends, with all that it started.

    It stays in this process's group, which is killed where this process has to end. Raises: UserError.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as agent:
        try:
            return agent.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"The measurement took more than {limit_s:g} s: use a smaller batch.") from error
        finally:
            _end(agent)


def _end(agent: subprocess.Popen[str]) -> None:
    """Kill a process that still runs, and what it started; stopped first, so that it starts nothing meanwhile."""
    if agent.poll() is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(agent.pid)
        process.suspend()
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    agent.kill()


def at_least_one(counts: Mapping[str, int]) -> None:
    """Refuse counts below one. Raises: UserError."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name}={count} is impossible: give one or more.")
