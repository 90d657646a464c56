"""A network goes in; its convolutions and linear layers get scores and masks, and at the end zeros: HYDRA's layers.

A sparse layer computes with ``weight * mask``; the mask keeps the weights whose scores are largest in absolute value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from slimbench.cost import prunable
from slimbench.methods.magnitude_weights import largest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Ranking = Literal["layer", "global"]
_ROUNDING = 1e-9  # (1 - 0.9) * 10 is a little less than 1


class _StraightThrough(torch.autograd.Function):
    """mask(|s|), whose derivative by |s| is taken to be 1: grad_s = grad_mask * sign(s)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return mask.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (scores,) = ctx.saved_tensors
        return grads[0] * scores.sign(), None


class Sparse(nn.Module):
    """What all sparse layers have: a score for each weight, and which weights are kept.

    While scores learn, grad_s = grad_(weight * mask) * weight * sign(s); always grad_weight = grad * mask.
    """

    weight: Tensor
    scores: nn.Parameter
    mask: Tensor

    def attach(self) -> None:
        """Scores drawn as weights are at first, a mask that keeps all."""
        self.scores = nn.Parameter(torch.empty_like(self.weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))
        self.register_buffer("mask", torch.ones_like(self.weight, dtype=torch.bool))

    def masked(self) -> Tensor:
        """The weights that the layer computes with."""
        mask = _StraightThrough.apply(self.scores, self.mask) if self.scores.requires_grad else self.mask
        return self.weight * mask


class SparseConv2d(Sparse, nn.Conv2d):
    """A convolution whose kept weights are those of the largest scores."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        return self._conv_forward(x, self.masked(), self.bias)


class SparseConvTranspose2d(Sparse, nn.ConvTranspose2d):
    """The same for a transposed convolution."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        sizes: Any = (self.stride, self.padding, self.kernel_size, 2, self.dilation)
        padding: Any = self._output_padding(x, output_size, *sizes)
        how: Any = (self.stride, self.padding, padding, self.groups, self.dilation)
        return nn.functional.conv_transpose2d(x, self.masked(), self.bias, *how)


class SparseLinear(Sparse, nn.Linear):
    """The same for a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return nn.functional.linear(x, self.masked(), self.bias)


_SPARSE: dict[type[nn.Module], type[Sparse]] = {
    nn.Conv2d: SparseConv2d,
    nn.ConvTranspose2d: SparseConvTranspose2d,
    nn.Linear: SparseLinear,
}


def sparsify(model: nn.Module, names: Iterable[str] | None = None) -> list[Sparse]:
    """Make layers of ``model`` sparse in place, and return them; None: every one whose weights are trainable.

    They keep their names, parameters and hooks: only their class is another.
    """
    chosen = [name.removesuffix(".weight") for name in prunable(model)] if names is None else names
    layers = []
    for name in chosen:
        layer: Any = model.get_submodule(name)
        layer.__class__ = _SPARSE[type(layer)]
        layer.attach()
        layers.append(layer)
    return layers


def bake(model: nn.Module) -> nn.Module:
    """``model``, its sparse layers ordinary again in place: what is not kept is 0.0."""
    back = {sparse: plain for plain, sparse in _SPARSE.items()}
    for layer in model.modules():
        if isinstance(layer, Sparse):
            with torch.no_grad():
                layer.weight.mul_(layer.mask)
            del layer.scores, layer.mask
            layer.__class__ = back[type(layer)]  # type: ignore[assignment]
    return model


def score_by_magnitude(layers: Sequence[Sparse]) -> None:
    """HYDRA's scaled initialisation: s = sqrt(6 / fan_in) * w / max|w|, so that pruning starts as magnitude pruning."""
    for layer in layers:
        with torch.no_grad():
            fan_in = layer.weight[0].numel()
            layer.scores.copy_(math.sqrt(6 / fan_in) * layer.weight / layer.weight.abs().max().clamp(min=1e-12))


def kept(total: int, keep: float) -> int:
    """How many of a layer's weights stay: all but int((1 - k) * n), and never none."""
    return max(1, total - math.floor((1 - keep) * total + _ROUNDING))


def set_masks(layers: Sequence[Sparse], keep: float, ranking: Ranking = "layer") -> None:
    """Keep the weights of the largest |scores|: in each layer alike, or over all layers, at least one in each."""
    for layer, mask in zip(layers, masks([layer.scores.detach() for layer in layers], keep, ranking), strict=True):
        layer.mask.copy_(mask)


def masks(scores: Sequence[Tensor], keep: float, ranking: Ranking) -> list[Tensor]:
    """True where a weight stays; of equal scores the first do."""
    if ranking == "layer":
        return [largest(s.abs(), kept(s.numel(), keep)) for s in scores]
    # layers differ in scale: |s| is sqrt(6 / fan_in) at most at the start, as weights are drawn
    flat = torch.cat([s.abs().flatten() for s in scores])
    parts = largest(flat, kept(flat.numel(), keep)).split([s.numel() for s in scores])
    chosen = [part.view(s.shape) for part, s in zip(parts, scores, strict=True)]
    return [mask if mask.any() else largest(s.abs(), 1) for mask, s in zip(chosen, scores, strict=True)]


def unlike(model: nn.Module) -> str | None:
    """Why a network's layers cannot all be made sparse, or None."""
    for name in prunable(model):
        layer = model.get_submodule(name.removesuffix(".weight"))
        if type(layer) not in _SPARSE:
            return f"layer {name.removesuffix('.weight')!r} is a {type(layer).__name__}, which has no sparse form"
    return None
