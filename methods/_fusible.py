"""Residual convolutions that fuse: a convolution with batch norm gains a layer scale and a shortcut, then loses them.

Form A of the derivation: ``z = scale * BN(W x) + alpha * x`` before the activation. It fuses into one convolution:

    s        = gamma / sqrt(var + eps)
    W_fused  = scale * diag(s) * W + alpha * delta      delta[o, i, centre] = 1 where o = i
    b_fused  = scale * (beta - s * mu)                  (+ scale * s * b_conv)
"""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from slimbench.cost import evaluating, watching
from slimbench.methods import _fx
from slimbench.methods._surgery import put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from slimbench.core import Batch

_ADDS = (operator.add, operator.iadd, torch.add)


@dataclass(frozen=True)
class Site:
    """One convolution with its batch norm.

    Attributes:
        closes_branch: its output goes straight into the block's sum. Its own shortcut would double the block's
            identity path (variant R2 of the derivation), so alpha stays 0 there.
        branch: the convolutions that feed nothing but this one; they go with it when the branch goes.

    """

    conv: str
    norm: str
    closes_branch: bool
    branch: tuple[str, ...] = ()


class ResConv(nn.Module):
    """``scale * norm(conv(x)) + alpha * x``, (N, C, H, W) -> (N, C, H, W), at first equal to ``norm(conv(x))``.

    Where the layer has a shortcut, the identity is subtracted from the kernel: W' = diag(s) W - delta, scale 1 and
    alpha 1. (At alpha 0 the next batch norm would undo any scale, and the penalty would rank nothing.) The gain of the
    batch norm is frozen: it could grow while the scale shrinks, and so escape the penalty.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, closes_branch: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.closes_branch = conv, norm, closes_branch
        self.scale = nn.Parameter(torch.ones((), device=conv.weight.device))
        alpha = 0.0 if closes_branch else 1.0
        self.alpha = nn.Parameter(torch.full((), alpha, device=conv.weight.device), requires_grad=not closes_branch)
        if not closes_branch:
            self._subtract_identity()
        norm.weight.requires_grad_(False)

    @torch.no_grad()
    def _subtract_identity(self) -> None:
        s = gain(self.norm)
        self.conv.weight.copy_(s[:, None, None, None] * self.conv.weight - identity_kernel(self.conv))
        if self.conv.bias is not None:
            self.conv.bias.mul_(s)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.bias.sub_(s * self.norm.running_mean)
        self.norm.running_mean.zero_()
        self.norm.running_var.fill_(1.0)
        self.norm.weight.fill_((1.0 + self.norm.eps) ** 0.5)  # gain 1, until the statistics are known: see calibrate

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Give the batch norm the statistics of its input; gain and bias follow, so eval mode computes the same."""
        norm, s = self.norm, gain(self.norm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.bias.add_(s * (mean - norm.running_mean))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_(s * (var + norm.eps).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """The sum before the activation."""
        y = self.scale * self.norm(self.conv(x))
        return y if self.closes_branch else y + self.alpha * x

    def fused(self) -> nn.Conv2d:
        """One convolution that computes the same in eval mode; the arithmetic is done in float64."""
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None
        s = gain(norm)
        weight = self.scale.double() * s[:, None, None, None] * conv.weight.double()
        bias = norm.bias.double() - s * norm.running_mean.double()
        if conv.bias is not None:
            bias = bias + s * conv.bias.double()
        weight = weight + self.alpha.double() * identity_kernel(conv)
        one = copy.deepcopy(conv)
        one.weight = nn.Parameter(weight.detach().to(conv.weight.dtype))
        one.bias = nn.Parameter((self.scale.double() * bias).detach().to(conv.weight.dtype))
        return one


class Scale(nn.Module):
    """What is left of a removed layer: ``alpha * x``."""

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(alpha.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Scale."""
        return self.alpha * x


class Nothing(nn.Module):
    """What is left of a removed branch, (N, C_in, H, W) -> zeros (N, channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros in the shape of the sum."""
        return x.new_zeros(x.shape[0], self.channels, *(-(-size // self.stride) for size in x.shape[2:]))


def sites(model: nn.Module) -> list[Site]:
    """Every eligible convolution: stride 1, as many channels out as in, odd kernel, same padding, not grouped."""
    with evaluating(model):  # auxiliary heads are not deployed: nothing is gained by pruning them
        graph = _fx.graph(model)
    modules = dict(model.named_modules())
    found = []
    for node in graph.nodes:
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        norm = next(iter(node.users), None)
        if not isinstance(conv, nn.Conv2d) or not _is_eligible(conv) or len(node.users) != 1 or norm is None:
            continue
        if norm.op == "call_module" and isinstance(modules[str(norm.target)], nn.BatchNorm2d):
            closes = _closes_branch(norm)
            branch = tuple(_only_feeding(node, modules)) if closes else ()
            found.append(Site(str(node.target), str(norm.target), closes, branch))
    return found


def gain(norm: nn.BatchNorm2d) -> Tensor:
    """s = gamma / sqrt(var + eps), float64."""
    assert norm.running_var is not None
    return norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()


def calibrate(model: nn.Module, layers: Iterable[ResConv], batches: Iterable[Batch]) -> None:
    """Estimate the statistics of each layer's batch norm from data; in eval mode the network computes what it did."""
    moments = {layer.conv: torch.zeros(3, layer.conv.out_channels, dtype=torch.float64) for layer in layers}

    def see(_: str, conv: nn.Module, output: Tensor) -> None:
        if conv in moments:
            values = output.double()
            ones = torch.ones_like(values)
            sums = torch.stack([v.sum((0, 2, 3)) for v in (ones, values, values.square())])
            moments[conv] += sums.cpu()

    with watching(model, nn.Conv2d, see), evaluating(model), torch.no_grad():
        for inputs, _ in batches:
            model.to(inputs.device)(inputs)
    for layer in layers:
        count, total, squares = moments[layer.conv].to(layer.conv.weight.device)
        mean = total / count
        layer.set_statistics(mean, (squares / count - mean.square()).clamp(min=0))


def install(model: nn.Module, every: list[Site]) -> dict[str, ResConv]:
    """Put a ``ResConv`` at each site, in place; the network computes what it did. By name of the convolution."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # it would write over what a removed layer hands on
    layers: dict[str, ResConv] = {}
    for site in every:
        conv, norm = model.get_submodule(site.conv), model.get_submodule(site.norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        layers[site.conv] = ResConv(conv, norm, closes_branch=site.closes_branch)
        put(model, site.conv, layers[site.conv])
        put(model, site.norm, nn.Identity())
    return layers


def drop(model: nn.Module, site: Site) -> None:
    """Remove the layer at a site, in place: its shortcut stays, or its whole branch goes."""
    if not site.closes_branch:
        layer = model.get_submodule(site.conv)
        assert isinstance(layer, ResConv)
        put(model, site.conv, Scale(layer.alpha))
        return
    layer = model.get_submodule(site.conv)
    assert isinstance(layer, ResConv)
    convs = [m for name in site.branch if isinstance(m := _convolution(model, name), nn.Conv2d)]
    stride = math.prod(conv.stride[0] for conv in convs)
    put(model, site.conv, Nothing(layer.conv.out_channels, stride))
    for name in site.branch:
        put(model, name, nn.Identity())


def _convolution(model: nn.Module, name: str) -> nn.Module:
    layer = model.get_submodule(name)
    return layer.conv if isinstance(layer, ResConv) else layer


def fuse(model: nn.Module) -> nn.Module:
    """Replace every ``ResConv`` by the one convolution that it is, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ResConv):
            put(model, name, module.fused())
    return model


def identity_kernel(conv: nn.Conv2d) -> Tensor:
    """delta[o, i, u, v] = 1 where o = i and (u, v) is the centre; float64, shaped like the weight."""
    delta = torch.zeros(conv.weight.shape, dtype=torch.float64, device=conv.weight.device)
    centre = [size // 2 for size in conv.kernel_size]
    rows = torch.arange(conv.out_channels)
    delta[rows, rows if conv.groups == 1 else 0, centre[0], centre[1]] = 1.0
    return delta


def _is_eligible(conv: nn.Conv2d) -> bool:
    same = all(
        k % 2 == 1 and p == d * (k - 1) // 2
        for k, p, d in zip(conv.kernel_size, conv.padding, conv.dilation, strict=True)
        if isinstance(p, int)
    )
    alike = conv.in_channels == conv.out_channels and conv.groups in {1, conv.in_channels}
    return same and alike and conv.stride == (1, 1) and not isinstance(conv.padding, str)


def _closes_branch(norm: fx.Node) -> bool:
    users = list(norm.users)
    return len(users) == 1 and users[0].target in _ADDS


def _only_feeding(node: fx.Node, modules: dict[str, nn.Module]) -> list[str]:
    """Layers with weights upstream of ``node`` whose results go nowhere else."""
    names = []
    upstream = node.all_input_nodes[0]
    while len(upstream.users) == 1 and upstream.op != "placeholder" and len(upstream.all_input_nodes) == 1:
        if upstream.op == "call_module" and any(True for _ in modules[str(upstream.target)].parameters()):
            names.append(str(upstream.target))
        upstream = upstream.all_input_nodes[0]
    return names
