"""This machine's processor, by OpenVINO: a network's ONNX file, compiled for a fixed number of threads."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import UserError
from slimbench.hardware_profiles import _host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from slimbench.hardware_profiles._timing import Run


@dataclass(frozen=True)
class OpenVINO(_host.Host):
    """OpenVINO on the processor, fp32, one stream: ``openvino``; it takes ONNX files as well."""

    name: ClassVar[str] = "openvino"
    version: ClassVar[int] = 3
    takes_onnx: ClassVar[bool] = True

    def unavailable(self) -> str | None:
        """Not installed, or too few cores."""
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed: pip install 'slimbench[openvino]'"
        return super().unavailable()

    @contextlib.contextmanager
    def ready(self, *, alone: bool) -> Iterator[None]:
        """Imported, so that its libraries are in nobody's peak."""
        import openvino  # noqa: F401

        if alone:
            _host.pin(self.threads_used)
        yield

    def translate(self, folder: Path, work: Path) -> Path:
        """ONNX, then OpenVINO's own format in float32, for this batch alone. Raises: UserError."""
        import openvino

        from slimbench import artifact, export

        shape, file = artifact.verify(folder)["input"], folder / artifact.ONNX
        if not file.is_file():
            file = work / "exported.onnx"
            export.to_onnx(artifact.load(folder), shape, file)
        try:
            model = openvino.Core().read_model(file)
            model.reshape([self.batch, *shape])
            openvino.save_model(model, work / "network.xml", compress_to_fp16=False)
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
            raise UserError(f"OpenVINO cannot take this network at {[self.batch, *shape]}: {said}") from error
        return work / "network.xml"

    def load(self, file: Path) -> Run:
        """Compiled; its input is set once."""
        import openvino
        import torch

        config = {
            "INFERENCE_NUM_THREADS": self.threads_used,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Core().compile_model(file, "CPU", config)
        inputs = torch.randn(tuple(model.input().shape), generator=torch.Generator().manual_seed(0))
        request = model.create_infer_request()
        request.infer([inputs.numpy()])
        return request.infer

    def runtime(self) -> dict[str, str]:
        """OpenVINO's version."""
        return {"runtime": f"OpenVINO {importlib.metadata.version('openvino')}"}
