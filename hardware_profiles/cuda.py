"""An NVIDIA GPU, by PyTorch: CUDA events around each pass, one synchronisation a block, watched by NVML."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from slimbench.core import Level, Measurement, UserError
from slimbench.hardware_profiles import _nvml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from slimbench.hardware_profiles._timing import Run

_TYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_CAPTURE_AFTER = 3  # runs that fill the allocator and choose algorithms


@dataclass(frozen=True)
class CUDA:
    """PyTorch on the first CUDA device: ``cuda``, or ``cuda(mode=graph, precision=fp16, batch=1)``.

    Attributes:
        mode: eager; graph: one CUDA graph replayed, so that nothing is launched by Python; compile: torch.compile.
        precision: of weights and activations; tf32: float32 whose products are TensorFloat-32.
        batch: images a forward pass.
        samples: rounds of level full, over five processes.

    """

    mode: Literal["eager", "graph", "compile"] = "eager"
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = "fp32"
    channels_last: bool = True
    batch: int = 32
    samples: int = 1000

    name: ClassVar[str] = "cuda"
    version: ClassVar[int] = 2
    device: ClassVar[str] = "cuda"
    takes_onnx: ClassVar[bool] = False
    threads_used: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name, least in (("batch", 1), ("samples", 10)):
            if (given := getattr(self, name)) < least:
                raise UserError(f"{name}={given} is impossible: give at least {least}.")

    def unavailable(self) -> str | None:
        """No GPU, or a PyTorch that cannot use it."""
        if reason := _nvml.missing():
            return reason
        import torch

        return None if torch.version.cuda else f"PyTorch {torch.__version__} was built without CUDA"

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """By the common protocol. Raises: UserError where the GPU fails or goes away."""
        from slimbench.hardware_profiles import _protocol

        try:
            return _protocol.compare(self, artifact, reference, level)
        except UserError:
            raise
        except Exception as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"The GPU failed or went away while it measured ({said}).") from error

    @contextlib.contextmanager
    def ready(self, *, alone: bool) -> Iterator[None]:
        """Arithmetic as the precision says, gradients off."""
        import torch

        torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        with torch.inference_mode():
            yield

    def translate(self, folder: Path, work: Path) -> Path:
        """Nothing to do: PyTorch loads the artifact."""
        return folder

    def load(self, file: Path) -> Run:
        """The network in the folder, folded, on the GPU; its input stays there."""
        import torch

        from slimbench.artifact import verify
        from slimbench.hardware_profiles import _program

        form: dict[str, Any] = {"memory_format": torch.channels_last} if self.channels_last else {}
        shape = (self.batch, *verify(file)["input"])
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        kind = getattr(torch, _TYPES[self.precision])
        network = _program.load_folded(file).to("cuda", kind, **form)
        return self._run(network, inputs.to("cuda", kind, **form))

    def _run(self, network: nn.Module, inputs: Any) -> Run:
        import torch

        if self.mode == "compile":
            network = torch.compile(network, fullgraph=True)  # type: ignore[assignment]
        if self.mode != "graph":
            return lambda: network(inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_CAPTURE_AFTER):
                network(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(inputs)

        def replay(_held: tuple[nn.Module, Any] = (network, inputs)) -> None:
            graph.replay()  # it reads them where they lie, and holds neither

        return replay

    def times(self, runs: Sequence[Run]) -> list[float]:
        """By events around each run, read after one synchronisation."""
        import torch

        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in runs]
        for (start, end), run in zip(events, runs, strict=True):
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [float(start.elapsed_time(end)) for start, end in events]

    def peak(self, file: Path) -> dict[str, int | None]:
        """Bytes that tensors held at once, and that the allocator took for them, on the GPU.

        The first time is not looked at: what is set up for any network, and what was tried out, is not this one's.
        """
        import torch

        def held() -> tuple[int, int]:
            torch.cuda.synchronize()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

        self.load(file)()
        tensors, blocks = held()
        self.load(file)()
        torch.cuda.synchronize()
        return {
            "peak_bytes": torch.cuda.max_memory_allocated() - tensors,
            "reserved_bytes": torch.cuda.max_memory_reserved() - blocks,
        }

    def joules(self) -> float | None:
        """Of the whole GPU since its driver was loaded, where it counts that."""
        nvml, gpu = _nvml.opened()
        energy = _nvml.asked(nvml, "nvmlDeviceGetTotalEnergyConsumption", gpu)
        return None if energy is None else energy / 1000

    def watch(self) -> _nvml.GPUWatch:
        """The GPU's clock, temperature, power, throttling and other processes; the host's load."""
        import torch

        return _nvml.GPUWatch({"runtime": f"torch {torch.__version__}, CUDA {torch.version.cuda}"})
