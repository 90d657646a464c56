"""torchvision, also where its wheel was linked against CUDA libraries that a CPU build of torch does not have.

There ``import torchvision`` fails because its operators were not registered. Nothing here uses them (nms,
deform_conv2d, its image decoders), so their names are declared and the rest imports. A no-op where they load.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

_DECLARED: list[torch.library.Library] = []  # a declaration lives as long as its library


@functools.cache
def torchvision() -> Any:
    """The package, with ``models``, ``datasets`` and ``transforms`` imported."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    if not _operators_load(Path(spec.origin).parent / "_C.so"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
    package = importlib.import_module("torchvision")
    for name in ("models", "datasets", "transforms"):
        importlib.import_module(f"torchvision.{name}")
    return package


def _operators_load(library: Path) -> bool:
    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
