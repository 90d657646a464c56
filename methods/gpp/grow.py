"""A network goes in; one with a copy more of a module in each stage comes out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.cost import CONVOLUTIONS, evaluating
from slimbench.methods._surgery import put

if TYPE_CHECKING:
    from collections.abc import Sequence


def stages(model: nn.Module, example: Tensor) -> list[str]:
    """The sequences of modules that can grow: a copy of their last module takes what that one puts out.

    A sequence inside a module that is copied is no stage of its own.
    """
    found: list[str] = []
    for name in _keeping_shape(model, example):
        sequence, _, place = name.rpartition(".")
        parent = model.get_submodule(sequence)
        is_last = isinstance(parent, nn.Sequential) and place == str(len(parent) - 1)
        inside = any(sequence.startswith(f"{outer}.") for outer in found)
        if is_last and not inside and _is_block(model.get_submodule(name)):
            found.append(sequence)
    return found


def grown(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of the network with one more module in each of the sequences ``names``, a copy of their last."""
    model = copy.deepcopy(model)
    for name in names:
        modules = list(model.get_submodule(name).children())
        put(model, name, nn.Sequential(*modules, copy.deepcopy(modules[-1])))
    return model


def _keeping_shape(model: nn.Module, example: Tensor) -> list[str]:
    """The modules whose map has the shape of their input, in the order of their names: outer ones first."""
    kept: set[str] = set()

    def hook(name: str) -> Any:
        def see(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            x = next(iter(given), None)
            if isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape:
                kept.add(name)

        return see

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    with evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters())))
    for handle in handles:
        handle.remove()
    return [name for name, _ in model.named_modules() if name in kept]


def _is_block(module: nn.Module) -> bool:
    """Whether a module is more than a layer, and has convolutions."""
    convolves = any(isinstance(layer, CONVOLUTIONS) for layer in module.modules())
    return convolves and any(True for _ in module.children())
