"""A network and one input go in; MACs, parameters, nonzeros, activations and bytes come out, counted twice.

MACs are those of convolutions, linear layers and matrix products, and they are what fvcore *and* PyTorch's own
counter say (FLOPs = 2 x MACs): where the two disagree there is no number. Every other operator is listed with its
share, one operation a value that it puts out.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from slimbench.core import Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from slimbench.core import Resource

_FVCORE_PRODUCTS = ("conv", "linear", "matmul", "addmm", "mm", "bmm", "baddbmm", "einsum")
_ATEN_PRODUCTS = {"convolution", "_convolution", "addmm", "mm", "bmm", "baddbmm"}
_UNCOUNTABLE = ("attention", "lstm", "gru", "rnn", "cdist")  # parts of names: products that both counters call 0
_UNCOUNTABLE_NAMES = {"_trilinear", "addbmm", "addmv", "dot", "mv", "vdot"}  # likewise, in place too
_BOOKKEEPING = {"_unsafe_view", "detach", "empty", "empty_like", "clone", "copy_", "_to_copy", "lift_fresh"}
_MAX_LISTED = 8
NORMS = nn.modules.batchnorm._BatchNorm
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
PRODUCTS = (*CONVOLUTIONS, nn.Linear)


class CannotCountError(ValueError):
    """The network holds something that a counter would miss, or the two counters disagree."""


def count(model: nn.Module, example: Tensor) -> Cost:
    """Count ``model`` for one ``example`` (1, C, H, W).

    Raises: CannotCountError for packed or scripted layers and where the counters disagree.
    """
    refuse_packed_layers(model)
    with evaluating(model), torch.no_grad():
        outputs = _Outputs()
        with outputs:
            model(example)
        if missed := sorted(filter(_is_uncountable, outputs.elements)):
            raise CannotCountError(f"no counter knows the products inside {', '.join(missed)}")
        first = macs_by_fvcore(model, example)
        second = macs_by_torch(model, example)
    if first != second:
        raise CannotCountError(
            f"the counters disagree: fvcore says {first:,} MACs, PyTorch {second:,} ({_operators(model, example)})"
        )
    params = [p for p in model.parameters() if p.requires_grad]
    held = [*model.parameters(), *model.buffers()]
    other = outputs.elements
    share = 1 / max(1, first + sum(other.values()))
    listed = sorted(other.items(), key=lambda item: (-item[1], item[0]))[:_MAX_LISTED]
    return Cost(
        macs=first,
        params=sum(p.numel() for p in params),
        nonzero=sum(int(p.count_nonzero()) for p in params),
        prunable_nonzero=sum(int(w.count_nonzero()) for w in prunable(model).values()),
        activations=outputs.activations,
        bytes=sum(t.numel() * t.element_size() for t in held),
        uncounted=tuple((name, round(elements * share, 6)) for name, elements in listed),
    )


def _is_uncountable(operator: str) -> bool:
    """Whether an operator has products that both counters call 0."""
    return operator.rstrip("_") in _UNCOUNTABLE_NAMES or any(word in operator for word in _UNCOUNTABLE)


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by name: what pruning may zero; frozen ones it may not."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    found = {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, kinds)}
    return {name: weight for name, weight in found.items() if weight.requires_grad}


def is_depthwise(layer: nn.Module) -> bool:
    """One filter a channel: its channels out are its channels in."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels > 1


@dataclass
class Layer:
    """What a layer costs: ``kernel`` weights for each pair of channels, at ``positions``; ``vectors`` values a channel.

    Attributes:
        ins: channels that each filter reads.
        positions: of the output, or of a transposed convolution's input, in all calls.
        vectors: trainable ones.
        passes: its channels out are its channels in (batch norm, depthwise convolution).
        trained: its weights are trainable.

    """

    ins: int
    outs: int
    kernel: int
    positions: int
    vectors: int
    passes: bool
    trained: bool = True

    @property
    def weights(self) -> int:
        """Weights of filters; batch norm has none."""
        return self.kernel * self.outs * (1 if self.passes else self.ins)

    def of(self, resource: Resource) -> int:
        """MACs, params or prunable weights."""
        if resource == "macs":
            return self.weights * self.positions
        return self.weights * self.trained + (self.vectors * self.outs if resource == "params" else 0)


def layers(model: nn.Module, example: Tensor) -> dict[str, Layer]:
    """Every convolution, linear layer and batch norm that a forward pass calls, by name; all calls of a layer count."""
    rows: dict[str, Layer] = {}

    def see(name: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> None:
        row = rows.setdefault(name, _uncalled(layer))
        if isinstance(layer, nn.ConvTranspose2d):
            row.positions += inputs.numel() // layer.in_channels
        else:
            row.positions += output.numel() // row.outs

    with _hooked(model, (*PRODUCTS, NORMS), see), evaluating(model), torch.no_grad():
        model(example.to(next(model.parameters()).device))
    return rows


def _uncalled(layer: nn.Module) -> Layer:
    if isinstance(layer, NORMS):
        return Layer(0, layer.num_features, 0, 0, sum(p.requires_grad for p in layer.parameters()), True)
    assert isinstance(layer, PRODUCTS)
    if isinstance(layer, nn.Linear):
        ins, outs = layer.in_features, layer.out_features
    else:
        ins, outs = layer.in_channels // layer.groups, layer.out_channels
    vectors = int(layer.bias is not None and layer.bias.requires_grad)
    return Layer(ins, outs, layer.weight[0, 0].numel(), 0, vectors, is_depthwise(layer), layer.weight.requires_grad)


@contextlib.contextmanager
def watching(model: nn.Module, kinds: Any, see: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Call ``see(name, layer, output)`` after each forward pass of a layer of these kinds."""
    with _hooked(model, kinds, lambda name, layer, _, output: see(name, layer, output)):
        yield


@contextlib.contextmanager
def _hooked(model: nn.Module, kinds: Any, see: Callable[[str, nn.Module, Any, Any], None]) -> Iterator[None]:
    """Call ``see(name, layer, input, output)``; the input is the first one that has no keyword, or None."""
    handles = [
        layer.register_forward_hook(lambda m, given, output, name=name: see(name, m, next(iter(given), None), output))
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def macs_by_fvcore(model: nn.Module, example: Tensor) -> int:
    """MACs of products by fvcore, which counts one a multiply-accumulate and calls it a flop."""
    by_operator = _fvcore(model, example)
    return int(sum(by_operator.get(name, 0) for name in _FVCORE_PRODUCTS))


def _fvcore(model: nn.Module, example: Tensor) -> Counter[str]:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, example)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    analysis.set_op_handle("aten::_convolution_mode", _same_padding)
    return analysis.by_operator()


def _same_padding(inputs: Any, outputs: Any) -> Counter[str]:
    """A convolution whose padding is given in words, which fvcore does not know: one MAC a weight and position."""
    weight, output = inputs[1].type().sizes(), outputs[0].type().sizes()
    return Counter({"conv": math.prod(weight) * math.prod(output[2:]) * output[0]})


def macs_by_torch(model: nn.Module, example: Tensor) -> int:
    """MACs of products by PyTorch's counter, which counts two a multiply-accumulate."""
    with FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops() // 2


def _operators(model: nn.Module, example: Tensor) -> str:
    """What each counter counted, by its own names of operators."""
    with evaluating(model), torch.no_grad():
        by_fvcore = {name: int(n) for name, n in _fvcore(model, example).items() if name in _FVCORE_PRODUCTS and n}
        with FlopCounterMode(display=False) as counter:
            model(example)
    by_torch = {str(op).removeprefix("aten."): n // 2 for op, n in counter.get_flop_counts()["Global"].items()}
    sides = (", ".join(f"{name} {n:,}" for name, n in sorted(s.items())) or "nothing" for s in (by_fvcore, by_torch))
    return "by operator: {}; {}".format(*sides)


def refuse_packed_layers(model: nn.Module) -> None:
    """Quantised, packed and scripted layers keep their weights where no counter looks."""
    for name, module in model.named_modules():
        packed = "quantized" in type(module).__module__ or hasattr(module, "_packed_params")
        if packed or isinstance(module, torch.jit.ScriptModule):
            kind = f"{type(module).__module__}.{type(module).__name__}"
            raise CannotCountError(f"layer {name or 'model'!r} is a {kind}, whose weights no counter sees")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and back into its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Outputs(TorchDispatchMode):
    """Counts the values that operators put out: products as activations, the rest by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.activations = 0
        self.elements: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        name = func._schema.name.removeprefix("aten::")
        if not isinstance(first, Tensor) or name in _BOOKKEEPING or _is_view(func):
            return result
        if name in _ATEN_PRODUCTS:
            self.activations += first.numel()
        else:
            self.elements[name] += first.numel()
        return result


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write
