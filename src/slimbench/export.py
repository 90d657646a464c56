"""A stored network goes in; a file in another format, seen to compute the same, comes out."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from slimbench import artifact
from slimbench.core import UserError
from slimbench.files import writable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ABOUT = "about.json"  # a .pt2's extra file
TOLERANCE = 1e-4  # of the largest output, float32: other kernels add in another order


def export(
    folder: Path,
    kind: Literal["onnx", "pt2"],
    target: Path,
    *,
    quick: bool = False,
    about: Mapping[str, str] | None = None,
) -> float:
    """Write the network in ``folder`` to ``target`` and return its largest difference, relative to the largest output.

    Checked at batch 1 and 5. ``quick``: by the exporter that traces, where that can: see ``traced_onnx``.
    ``about``: what the file says of itself, an ONNX file in its metadata, a .pt2 in its extra file ``ABOUT``.
    Raises: UserError where outputs differ or the file cannot be written.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file with --out.")
    program = artifact.load(folder)
    shape = artifact.verify(folder)["input"]
    network = program.module(check_guards=False)
    with tempfile.TemporaryDirectory() as part:
        file = Path(part) / target.name
        if kind == "onnx" and not (quick and traced_onnx(network, shape, file)):
            to_onnx(program, shape, file)
        elif kind == "pt2":
            shutil.copyfile(folder / "program.pt2", file)
        if about:
            _tell(file, kind, about)
        gap = 0.0
        for batch in (1, 5):
            inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
            with torch.inference_mode():
                expected = network(inputs)
            apart = difference(run(file, kind, inputs), expected)
            if not apart <= TOLERANCE:  # nan is not
                raise UserError(
                    f"The {kind} file computes something else (difference {apart:.1e}): it was not written."
                )
            gap = max(gap, apart)
        with writable(target, "--out"):
            shutil.move(file, target)
    return gap


def _tell(file: Path, kind: Literal["onnx", "pt2"], about: Mapping[str, str]) -> None:
    """Have a file say something of itself."""
    if kind == "pt2":
        torch.export.save(torch.export.load(file), file, extra_files={ABOUT: json.dumps(dict(about))})
        return
    import onnx

    model = onnx.load(file)
    onnx.helper.set_model_props(model, dict(about))
    onnx.save(model, file)


def to_onnx(program: torch.export.ExportedProgram, shape: list[int], file: Path) -> None:
    """An ONNX file of one piece, batch dynamic."""
    inputs = torch.zeros(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        onnx = torch.onnx.export(program, (inputs,), dynamo=True, verbose=False)
    assert onnx is not None
    onnx.save(file, external_data=False)


def traced_onnx(network: torch.nn.Module, shape: list[int], file: Path) -> bool:
    """The same by torch's older exporter, ten times as fast; False where it cannot. Height and width are fixed."""
    inputs = torch.zeros(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch prefers the slow one
        try:
            network._forward_pre_hooks.clear()  # guards, which cannot be traced
            traced = torch.jit.trace(network, (inputs,), check_trace=False)
            names, dynamic = ["inputs"], {"inputs": {0: "batch"}}
            torch.onnx.export(traced, (inputs,), file, dynamo=False, input_names=names, dynamic_axes=dynamic)
        except Exception:  # noqa: BLE001  whatever it does not know
            return False
    return True


def run(file: Path, kind: Literal["onnx", "pt2"], inputs: Tensor) -> Tensor:
    """The file's outputs by its own runtime."""
    if kind == "pt2":
        with torch.inference_mode():
            output: Tensor = torch.export.load(file).module(check_guards=False)(inputs)
        return output
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


def difference(ours: Tensor, expected: Tensor) -> float:
    """max |difference| / max |output|; infinite where the shapes differ."""
    if ours.shape != expected.shape:
        return math.inf
    return float((ours - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
