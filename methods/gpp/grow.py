"""A network goes in; one with a copy more of a module in each stage comes out."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.cost import CONVOLUTIONS, evaluating
from slimbench.methods import _surgery

if TYPE_CHECKING:
    from collections.abc import Mapping

Stages = dict[str, tuple[str, ...]]


def stages(model: nn.Module, example: Tensor) -> Stages:
    """The sequences that a copy of their last module can continue, and what must be widened in that copy.

    Such a module has several convolutions, and its map is as high and wide as its input. Where it puts out other
    channels than it takes, the copy keeps its widths, and its convolutions that read the input read more: they are
    named, inside the module. A sequence inside a module that is copied is no stage of its own.
    """
    found: Stages = {}
    every = _surgery.widths(model, example)
    for name, (ins, outs) in _keeping_size(model, example).items():
        sequence, _, place = name.rpartition(".")
        parent = model.get_submodule(sequence)
        is_last = isinstance(parent, nn.Sequential) and place == str(len(parent) - 1)
        inside = any(sequence.startswith(f"{outer}.") for outer in found)
        if sequence and is_last and not inside and _convolutions(model.get_submodule(name)) > 1:
            readers = () if ins == outs else _readers(model, every, name, ins)
            if readers or ins == outs:
                found[sequence] = readers
    return found


def grown(model: nn.Module, found: Mapping[str, tuple[str, ...]], example: Tensor) -> nn.Module:
    """A copy of the network with one more module in each of the stages ``found``, its weights yet to be drawn."""
    sizes = _keeping_size(model, example)
    longer = copy.deepcopy(model)
    for name, readers in found.items():
        modules = list(longer.get_submodule(name).children())
        module = copy.deepcopy(modules[-1])
        ins, outs = sizes[f"{name}.{len(modules) - 1}"]
        for reader in readers if ins != outs else ():
            _surgery.put(module, reader, _reading(module.get_submodule(reader), outs))
        _surgery.put(longer, name, nn.Sequential(*modules, module))
    return longer


def _keeping_size(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """The modules whose map is as high and wide as their input, by name: channels in and out. Outer ones come first."""
    kept: dict[str, tuple[int, int]] = {}

    def hook(name: str) -> Any:
        def see(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            x: Any = next(iter(given), None)
            if _is_map(x) and _is_map(output) and x.shape[2:] == output.shape[2:]:
                kept[name] = x.shape[1], output.shape[1]

        return see

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    with evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters())))
    for handle in handles:
        handle.remove()
    return {name: kept[name] for name, _ in model.named_modules() if name in kept}


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(layer, CONVOLUTIONS) for layer in module.modules())


def _readers(model: nn.Module, every: list[_surgery.Width], name: str, ins: int) -> tuple[str, ...]:
    """The convolutions inside a module that read what is made outside of it; none where others read it too."""
    read: Counter[str] = Counter()
    for width in every:
        if not any(maker.layer.startswith(f"{name}.") for maker in width.makers):
            for member in width.members:
                if member.layer.startswith(f"{name}."):
                    read[member.layer] += sum(map(len, member.indices))
    plain = all(type(model.get_submodule(layer)) is nn.Conv2d and count == ins for layer, count in read.items())
    return tuple(layer.removeprefix(f"{name}.") for layer in read) if plain else ()


def _reading(conv: nn.Module, ins: int) -> nn.Conv2d:
    """A convolution of the same shape for other channels in, of zeros."""
    assert isinstance(conv, nn.Conv2d)
    made = _surgery.conv_like(nn.Conv2d, conv, ins).to_empty(device=conv.weight.device)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made
