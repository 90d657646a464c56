"""A network, a layer and images go in; what made that layer's input comes out, traced back by deconvolution.

Zeiler and Fergus's deconvolution is a backward pass with rules of its own. The one of a convolution is its transpose,
of max pooling the unpooling by the switches that the forward pass set, of a concatenation the parts by branch, of a sum
both summands: those are what autograd does. (Batch norm, in eval mode, is a scaling: it goes back as if it were folded
into its convolution's filters.) Two are other than autograd's:

    activations    let pass what is positive on the way back, whatever was positive on the way forth
    gates          (sigmoids that maps are multiplied by) are constants
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from slimbench.cost import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_RECTIFIERS = {
    *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "leaky_relu", "leaky_relu_", "prelu"),
    *("elu", "elu_", "celu", "celu_", "selu", "selu_", "gelu", "silu", "mish", "hardswish", "softplus"),
    *("threshold", "threshold_", "clamp_min", "clamp_min_", "tanh", "tanh_"),
}
_GATES = {"sigmoid", "sigmoid_", "hardsigmoid", "softmax"}


def trace(
    model: nn.Module, layers: Iterable[str], decision: str, inputs: Tensor, kept: Tensor
) -> dict[str, list[Tensor]]:
    """What is traced back to the input of each layer, of images (N, C, H, W): maps in the inputs' own shape, summed.

    A layer that is called twice has two maps; one from which no way leads to the decision has none.

    Args:
        decision: the layer that reads the features; the trace starts from what it reads.
        kept: (M,) bool: the neurons whose responses it starts with; all others are 0.

    """
    edges: dict[str, list[GradientEdge]] = {name: [] for name in dict.fromkeys([*layers, decision])}
    start: list[Tensor] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if given[0].requires_grad:  # else it comes from gates alone
                edges[name].append(get_gradient_edge(given[0]))  # now: later the tensor may be written over
            if name == decision:
                start[:] = [given[0].detach().clone()]

        return keep

    with contextlib.ExitStack() as stack, evaluating(model), torch.enable_grad():
        for name in edges:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(hook(name)).remove)
        with Deconvolution():
            model(inputs.detach().requires_grad_())
    (responses,) = start
    shape = [1, -1] + [1] * (responses.ndim - 2)
    responses = responses * kept.to(responses).reshape(shape)
    flat = [edge for name in edges for edge in edges[name]]
    found = iter(torch.autograd.grad(edges[decision][-1], flat, responses, allow_unused=True))
    traced = {name: [next(found) for _ in each] for name, each in edges.items()}
    return {name: [maps for maps in each if maps is not None] for name, each in traced.items()}


def leads_back(model: nn.Module, decision: str, example: Tensor) -> bool:
    """Whether a way leads from what the decision reads to the network's input, (1, C, H, W)."""
    found: list[bool] = []
    handle = model.get_submodule(decision).register_forward_pre_hook(lambda _, x: found.append(x[0].requires_grad))
    try:
        with evaluating(model), torch.enable_grad(), Deconvolution():
            model(example.to(next(model.parameters())).detach().requires_grad_())
    finally:
        handle.remove()
    return found[-1]


class Deconvolution(TorchFunctionMode):
    """While it is active, activations and gates put out what they do, and go back by the deconvolution's rules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in _RECTIFIERS | _GATES:
            return func(*args, **kwargs)
        x, *others = args
        result = func(x.detach().clone(), *others, **kwargs)
        if name in _RECTIFIERS:
            result = result + (x - x.detach())  # the same values; what comes back goes on to x
            result.register_hook(_rectified)
        in_place = name.endswith("_") or kwargs.get("inplace", False) or (name in _IN_PLACE_SECOND and others == [True])
        return x.copy_(result) if in_place else result


_IN_PLACE_SECOND = {"relu", "relu6", "silu", "mish", "hardswish", "hardsigmoid"}  # F.relu(x, True)


def _rectified(traced: Tensor) -> Tensor:
    return traced.clamp(min=0)
