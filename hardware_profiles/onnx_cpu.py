"""This machine's processor, by ONNX Runtime: what an edge device runs, where no edge device is at hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Level, Measurement, UserError
from slimbench.environment import physical_cores

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class OnnxCPU:
    """ONNX Runtime on the processor, fp32: ``onnx_cpu``, or ``onnx_cpu(batch=32)`` for throughput."""

    threads: int = 1
    batch: int = 1

    name: ClassVar[str] = "onnx_cpu"
    version: ClassVar[int] = 1
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
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_onnx.LIMIT_S, check=False)
            except subprocess.TimeoutExpired as error:
                raise UserError(f"The measurement took more than {_onnx.LIMIT_S:g} s: use a smaller batch.") from error
        found = _onnx.answer(done.stdout)
        if found is None:
            raise UserError(
                f"The measuring process failed: {(done.stderr.strip().splitlines() or ['it was killed'])[-1]}."
            )
        _onnx.refuse(found["failed"], "here", "this machine's memory")
        return _onnx.measurement(found, request, level)


def at_least_one(counts: Mapping[str, int]) -> None:
    """Refuse counts below one. Raises: UserError."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name}={count} is impossible: give one or more.")
