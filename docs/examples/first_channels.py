"""A hardware profile in one file: this machine's processor with images laid out channel by channel."""

import contextlib
from dataclasses import dataclass
from typing import ClassVar

from slimbench.hardware_profiles import _host


@dataclass(frozen=True)
class FirstChannels(_host.Host):
    """PyTorch, fp32, batches as (N, C, H, W) in memory: what ``cpu`` gains by channels last, this profile shows."""

    name: ClassVar[str] = "cpu_channels_first"
    version: ClassVar[int] = 1

    @contextlib.contextmanager
    def ready(self, *, alone):
        """Threads set, gradients off; level full has a process of its own, pinned to its cores."""
        import torch

        if alone:
            _host.pin(self.threads_used)
        torch.set_num_threads(self.threads_used)
        with torch.inference_mode():
            yield

    def load(self, file):
        """The stored network with batch norm folded, as a function that runs one batch."""
        import torch

        from slimbench.artifact import verify
        from slimbench.hardware_profiles import _program

        shape = (self.batch, *verify(file)["input"])
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        network = _program.load_folded(file)
        return lambda: network(inputs)
