"""Residual convolutions that fuse: a convolution gains a layer scale and a shortcut of its own, then loses them.

Form A of the derivation is ``z = scale * BN(W x) + alpha * x`` before the activation, form B ``z = BN(scale * W x +
alpha * x)``. Without batch norm both are ``scale * (W x + b) + alpha * x``. Each fuses into one convolution:

    s        = gamma / sqrt(var + eps)                     delta[o, i, centre] = 1 where o = i
    A:         W' = scale * diag(s) * W + alpha * delta    b' = scale * (beta - s * mu)   (+ scale * s * b)
    B:         W' = diag(s) * (scale * W + alpha * delta)  b' = beta - s * mu             (+ scale * s * b)
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from slimbench.cost import evaluating, watching
from slimbench.methods._surgery import put

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import Batch
    from slimbench.methods._fusible_sites import Site

Form = Literal["A", "B"]
_OPEN = 0.1  # what is left of a shortcut that has closed, where its layer goes: through less nothing would be learnt


class ResConv(nn.Module):
    """A residual convolution, (N, C, H, W) -> (N, C, H, W).

    Made from a trained convolution it computes at first what that did. Where it has a shortcut, alpha is 1 and the
    identity is subtracted from the kernel, W' = diag(s) W - delta. (At alpha 0 the next batch norm would undo any
    scale, and the penalty would rank nothing.) ``fresh`` keeps the weights as they were drawn, with gains of 1.

    The scale must be the only gain of what the convolution says, or weights would grow while it shrinks and escape the
    penalty: in form A the gain of the batch norm is frozen, elsewhere the norm of the weights is held (``settle``).

    Args:
        norm: that follows the convolution; None where none does.
        largest_alpha: of a convolution that closes a residual branch; its own shortcut, at first 0, would else double
            the block's (variant R2 of the derivation). None: alpha starts at 1 and is free.

    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d | None,
        *,
        form: Form = "A",
        largest_alpha: float | None = None,
        fresh: bool = False,
    ) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self.form: Form = form
        self.largest_alpha = math.inf if largest_alpha is None else largest_alpha
        self.scale = nn.Parameter(torch.ones((), device=conv.weight.device))
        start = 1.0 if largest_alpha is None else 0.0
        self.alpha = nn.Parameter(torch.full((), start, device=conv.weight.device), requires_grad=largest_alpha != 0)
        if start and not fresh:
            self._subtract_identity()
        if norm is not None and form == "A":
            if fresh:
                nn.init.ones_(norm.weight)
            norm.weight.requires_grad_(False)
        self._norm_held = None if self.has_gain else float(conv.weight.detach().norm())

    @property
    def has_gain(self) -> bool:
        """Whether a frozen gain stands between the weights and the scale."""
        return self.norm is not None and self.form == "A"

    @torch.no_grad()
    def _subtract_identity(self) -> None:
        delta = identity_kernel(self.conv)
        if not self.has_gain:
            self.conv.weight.sub_(delta.to(self.conv.weight.dtype))
            return
        norm = self.norm
        assert norm is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        s = gain(norm)
        self.conv.weight.copy_(s[:, None, None, None] * self.conv.weight - delta)
        if self.conv.bias is not None:
            self.conv.bias.mul_(s)
        norm.bias.sub_(s * norm.running_mean)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0)
        norm.weight.fill_((1.0 + norm.eps) ** 0.5)  # gain 1, until the statistics are known: see calibrate

    @property
    def needs_statistics(self) -> bool:
        """Whether those of its batch norm are another's: the identity has gone from what it sees."""
        return self.has_gain and self.largest_alpha == math.inf

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Give the batch norm the statistics of its input; gain and bias follow, so eval mode computes the same."""
        norm = self.norm
        assert norm is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        s = gain(norm)
        norm.bias.add_(s * (mean - norm.running_mean))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.weight.copy_(s * (var + norm.eps).sqrt())

    @torch.no_grad()
    def settle(self) -> None:
        """After a step: alpha back into [0, largest], the weights back to their norm where no gain is frozen."""
        self.alpha.clamp_(0.0, self.largest_alpha)
        if self._norm_held is not None:
            self.conv.weight.mul_(self._norm_held / self.conv.weight.norm().clamp(min=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        """The sum before the activation."""
        y = self.conv(x)
        if self.has_gain:
            assert self.norm is not None
            return self.scale * self.norm(y) + self.alpha * x
        y = self.scale * y + self.alpha * x
        return y if self.norm is None else self.norm(y)

    def fused(self) -> nn.Conv2d:
        """One convolution that computes the same in eval mode; the arithmetic is done in float64."""
        conv, norm, scale = self.conv, self.norm, self.scale.double()
        s = torch.ones(conv.out_channels, dtype=torch.float64, device=conv.weight.device)
        shift = torch.zeros_like(s)
        if norm is not None:
            assert norm.running_mean is not None
            s = gain(norm)
            shift = norm.bias.double() - s * norm.running_mean.double()
        shift = scale * shift if self.form == "A" else shift
        if conv.bias is not None:
            shift = shift + scale * s * conv.bias.double()
        own = self.alpha.double() * identity_kernel(conv)
        weight = scale * s[:, None, None, None] * conv.weight.double()
        weight = weight + (own if self.form == "A" else s[:, None, None, None] * own)
        one = copy.deepcopy(conv)
        one.weight = nn.Parameter(weight.detach().to(conv.weight.dtype))
        one.bias = nn.Parameter(shift.detach().to(conv.weight.dtype))
        return one

    def removed(self) -> nn.Module:
        """What is left without the convolution: alpha x, and in form B its batch norm."""
        least = 0.0 if math.isfinite(self.largest_alpha) else _OPEN
        shortcut = Scale(self.alpha.clamp(min=least), self.largest_alpha)
        return shortcut if self.norm is None or self.form == "A" else nn.Sequential(shortcut, self.norm)


class Scale(nn.Module):
    """What is left of a removed layer: ``alpha * x``, alpha at least 0, so that it may cross a ReLU."""

    def __init__(self, alpha: Tensor, largest_alpha: float = math.inf) -> None:
        super().__init__()
        self.alpha = nn.Parameter(alpha.detach().clone())
        self.largest_alpha = largest_alpha

    @torch.no_grad()
    def settle(self) -> None:
        """After a step."""
        self.alpha.clamp_(0.0, self.largest_alpha)

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


def gain(norm: nn.BatchNorm2d) -> Tensor:
    """s = gamma / sqrt(var + eps), float64."""
    assert norm.running_var is not None
    return norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()


def identity_kernel(conv: nn.Conv2d) -> Tensor:
    """delta[o, i, u, v] = 1 where o = i and (u, v) is the centre; float64, shaped like the weight."""
    delta = torch.zeros(conv.weight.shape, dtype=torch.float64, device=conv.weight.device)
    centre = [size // 2 for size in conv.kernel_size]
    rows = torch.arange(conv.out_channels)
    delta[rows, rows if conv.groups == 1 else 0, centre[0], centre[1]] = 1.0
    return delta


def install(
    model: nn.Module, every: Sequence[Site], *, form: Form = "A", closing: float = 0.0, fresh: bool = False
) -> dict[str, ResConv]:
    """Put a ``ResConv`` at each site, in place; by name of the convolution.

    Args:
        closing: the largest alpha of those that close a branch.
        fresh: see ``ResConv``; otherwise the network computes what it did.

    """
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # it would write over what a removed layer hands on
    layers: dict[str, ResConv] = {}
    for site in every:
        conv, norm = model.get_submodule(site.conv), model.get_submodule(site.norm) if site.norm else None
        assert isinstance(conv, nn.Conv2d)
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        largest = closing if site.closes_branch else None
        own = "A" if largest == 0 else form  # without a shortcut, the norm of form B would undo any scale
        layers[site.conv] = ResConv(conv, norm, form=own, largest_alpha=largest, fresh=fresh)
        put(model, site.conv, layers[site.conv])
        if site.norm:
            put(model, site.norm, nn.Identity())
    return layers


def calibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Estimate the statistics of batch norms from data; in eval mode the network computes what it did."""
    layers = [layer for layer in model.modules() if isinstance(layer, ResConv) and layer.needs_statistics]
    moments = {layer.conv: torch.zeros(3, layer.conv.out_channels, dtype=torch.float64) for layer in layers}
    if not layers:
        return

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


def drop(model: nn.Module, site: Site) -> None:
    """Remove the layer at a site, in place: its shortcut stays; where that is 0, its whole branch goes."""
    layer = model.get_submodule(site.conv)
    assert isinstance(layer, ResConv)
    put(model, site.conv, layer.removed())
    if takes_branch(site, layer):
        convs = [m for name in site.branch if isinstance(m := _convolution(model, name), nn.Conv2d)]
        nothing = Nothing(layer.conv.out_channels, math.prod(conv.stride[0] for conv in convs))
        kept = layer.norm if layer.form == "B" and layer.norm is not None else nn.Identity()
        put(model, site.conv, nn.Sequential(nothing, kept))
        for name in site.branch:
            put(model, name, nn.Identity())


def takes_branch(site: Site, layer: ResConv) -> bool:
    """Whether nothing is left of a branch without the layer that closes it."""
    return site.closes_branch and layer.alpha.item() == 0.0


def _convolution(model: nn.Module, name: str) -> nn.Module:
    layer = model.get_submodule(name)
    return layer.conv if isinstance(layer, ResConv) else layer


def fuse(model: nn.Module) -> nn.Module:
    """Replace every ``ResConv`` by the one convolution that it is, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ResConv):
            put(model, name, module.fused())
    return model
