"""A GPU in name only: tensors remember on which device they would be, and mixing two is refused as CUDA would."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_GPU, _CPU = torch.device("cuda"), torch.device("cpu")
_MAY_MIX = {
    "grad",
    "_has_compatible_shallow_copy_type",
    "__getitem__",
    "__setitem__",
    "index",
    "copy_",
    "__set__",
    "__get__",
    "load_state_dict",
    "index_put_",
    "to",
}


class Pretend(TorchFunctionMode):
    """Everything computes on the processor; only the names of devices are CUDA's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function with "cuda" taken out, and tell its results where they would be."""
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return where(args[0]) or _CPU
        if func == Tensor.is_cuda.__get__:
            return where(args[0]) == _GPU
        if func in {Tensor.cpu, Tensor.cuda}:
            return place(Tensor.cpu(args[0]) if name == "cpu" else args[0], torch.device(name))
        asked, args, kwargs = _asked(func, args, dict(kwargs or {}))
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        found = {where(tensor) for tensor in tensors if where(tensor) and (tensor.dim() or where(tensor) == _GPU)}
        _refuse(name, args, kwargs, asked, found)
        result = func(*args, **kwargs)
        if name == "grad":  # each gradient is where its input is
            return result
        if name == "__set__" and len(args) == 2 and isinstance(args[1], Tensor):
            place(args[0], where(args[1]))
        if name in _MAY_MIX and tensors and not asked:
            device = where(tensors[0])
        else:
            device = asked or (_GPU if _GPU in found else _CPU if found == {_CPU} or not tensors else None)
        pytree.tree_map_only(Tensor, lambda tensor: place(tensor, device), result)
        return result


def _refuse(name: str, args: Any, kwargs: Any, asked: torch.device | None, found: set[torch.device | None]) -> None:
    """Raises: what CUDA would, of a call that asks for one device and has tensors on others."""
    if name == "numpy" and where(args[0]) == _GPU:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    if kwargs.get("generator") is not None and asked == _GPU:
        raise RuntimeError(f"{name}: Expected a 'cuda' device type for generator but found 'cpu'")
    if len(found) > 1 and name not in _MAY_MIX:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found two")
    if name == "__getitem__" and where(args[0]) == _CPU and _GPU in found:
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


def where(tensor: Tensor) -> torch.device | None:
    """Where it would be; None: nobody has said."""
    return tensor.__dict__.get("pretended", _CPU if isinstance(tensor, nn.Parameter) else None)


def place(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Say where it is."""
    if device:
        tensor.__dict__["pretended"] = device
    return tensor


def _asked(func: Any, args: Any, kwargs: Any) -> tuple[torch.device | None, Any, Any]:
    """The device that a call asks for, and its arguments without it."""
    device = kwargs.pop("device", None)
    if func is Tensor.to:
        if len(args) > 1 and isinstance(args[1], (str, torch.device)):
            device, args = args[1], (args[0], *((args[2] or args[0].dtype,) if args[2:] else ()), *args[3:])
        elif len(args) > 1 and isinstance(args[1], Tensor):
            device, args = where(args[1]), (args[0], args[1].dtype, *args[2:])
        if len(args) == 1 and not kwargs:
            kwargs = {"copy": False, "dtype": args[0].dtype}
    return (torch.device(torch.device(device).type) if device else None), args, kwargs


def parameter(cls: Any, data: Any = None, requires_grad: bool = True, make: Any = nn.Parameter.__new__) -> Any:
    """``Parameter.__new__`` that keeps in mind where its data would be."""
    made = make(cls, data, requires_grad)
    return place(made, where(data)) if isinstance(data, Tensor) else made
