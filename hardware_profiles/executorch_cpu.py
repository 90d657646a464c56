"""This machine's processor, by ExecuTorch and XNNPACK: what runs a network on phones and boards."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import UserError
from slimbench.hardware_profiles import _host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from slimbench.hardware_profiles._timing import Run


@dataclass(frozen=True)
class ExecuTorchCPU(_host.Host):
    """ExecuTorch with XNNPACK on the processor, fp32: ``executorch_cpu``, or ``executorch_cpu(batch=1)``.

    Operators that XNNPACK does not take run by ExecuTorch's portable kernels, which are slow.
    """

    name: ClassVar[str] = "executorch_cpu"
    version: ClassVar[int] = 4

    def unavailable(self) -> str | None:
        """Not installed, or too few cores."""
        if importlib.util.find_spec("executorch") is None:
            return "ExecuTorch is not installed: pip install 'slimbench[executorch]'"
        return super().unavailable()

    @contextlib.contextmanager
    def ready(self, *, alone: bool) -> Iterator[None]:
        """Pinned, imported, with as many threads: each keeps to the cores that the process had when it began."""
        if alone:
            _host.pin(self.threads_used)
        with _without_stderr():
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

            _unsafe_reset_threadpool(self.threads_used)
        yield

    def translate(self, folder: Path, work: Path) -> Path:
        """Folded, then ExecuTorch's own format, for this batch alone. Raises: UserError."""
        import torch

        from slimbench import artifact
        from slimbench.hardware_profiles import _program

        example = (torch.zeros(self.batch, *artifact.verify(folder)["input"]),)
        network = _program.load_folded(folder)
        with _without_stderr():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            try:
                program = torch.export.export(network, example)
                edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
                body = edge.to_executorch().buffer
            except Exception as error:  # the compiler raises its own errors, of no common kind
                at = list(example[0].shape)
                raise UserError(f"ExecuTorch cannot take this network at {at}: {_first_cause(error)}") from error
        (work / "network.pte").write_bytes(body)
        return work / "network.pte"

    def load(self, file: Path) -> Run:
        """Loaded; its input is made once."""
        import torch
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(file)  # held by the run: its weights lie there
        method = program.load_method("forward")
        shape = method.metadata.input_tensor_meta(0).sizes()
        inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0))]

        def run() -> object:
            assert program is not None
            return method.execute(inputs)

        return run

    def runtime(self) -> dict[str, str]:
        """ExecuTorch's version."""
        return {"runtime": f"ExecuTorch {importlib.metadata.version('executorch')}"}


def _first_cause(error: BaseException) -> str:
    """Its first line: the compiler wraps what went wrong once a pass."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """ExecuTorch's libraries print what they look for in the system, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
