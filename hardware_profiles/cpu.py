"""This machine's processor, by PyTorch: batch norm folded on both sides, dense and compressed interleaved."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.hardware_profiles import _host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from slimbench.hardware_profiles._timing import Run


@dataclass(frozen=True)
class CPU(_host.Host):
    """PyTorch on the processor, fp32, channels last: ``cpu``, or ``cpu(threads=all, batch=1)``."""

    name: ClassVar[str] = "cpu"
    version: ClassVar[int] = 5

    @contextlib.contextmanager
    def ready(self, *, alone: bool) -> Iterator[None]:
        """Threads set, gradients off."""
        import torch

        if alone:
            _host.pin(self.threads_used)
        torch.set_num_threads(self.threads_used)
        with torch.inference_mode():
            yield

    def load(self, file: Path) -> Run:
        """The network in the folder, folded."""
        import torch

        from slimbench.artifact import verify
        from slimbench.hardware_profiles import _program

        shape = (self.batch, *verify(file)["input"])
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        inputs = inputs.to(memory_format=torch.channels_last)
        network = _program.load_folded(file).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return lambda: network(inputs)
