"""Faults of libraries that corrupt results, and how the engine goes around them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

_VECTOR = 8  # float32 values in an AVX2 register


@contextmanager
def strided_gradients() -> Iterator[None]:
    """Crop what a strided 1 x 1 convolution of few channels does not read anyway. Outputs and gradients stay the same.

    oneDNN's gradient of such a convolution writes past the end of its memory: torch 2.13 on processors with AVX2, in
    channels-last format, with fewer than eight input channels, where pixels follow the last one that is read. Cut
    networks are full of such shortcuts.
    """
    hook = register_module_forward_pre_hook(_crop)
    try:
        yield
    finally:
        hook.remove()


def _crop(module: nn.Module, args: tuple[Any, ...]) -> Any:
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return None
    x = args[0]
    if not isinstance(x, Tensor) or x.device.type != "cpu" or x.ndim != 4 or module.in_channels >= _VECTOR:
        return None
    if module.padding != (0, 0):
        return None
    height, width = (1 + (size - 1) // step * step for size, step in zip(x.shape[2:], module.stride, strict=True))
    return (x[:, :, :height, :width], *args[1:])
