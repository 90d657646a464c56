"""The operations that cells are made of, a mixture of them all, and cells (Liu et al., DARTS, ICLR 2019).

All take (N, C, H, W) and give (N, C', H / stride, W / stride), rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.methods.dass.genotypes import NODES, OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from slimbench.methods.dass import genotypes

EDGES = sum(2 + node for node in range(NODES))


class Zero(nn.Module):
    """Nothing: zeros of the right size."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """Half the size without loss: half of the channels see even pixels, the others odd ones.

    The pixels are picked before the convolutions: see ``slimbench.workarounds`` for what strides cost few channels.
    """

    def __init__(self, ins: int, outs: int, *, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(ins, outs // 2, 1, bias=False)
        self.odd = nn.Conv2d(ins, outs - outs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Rows and columns that are odd in number end with a zero for those who see odd pixels."""
        x = torch.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        return self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(shifted)], 1))


def relu_conv_norm(ins: int, outs: int, *, affine: bool) -> nn.Module:
    """1 x 1: to the cell's width."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(ins, outs, 1, bias=False), nn.BatchNorm2d(outs, affine=affine))


def _separable(width: int, kernel: int, stride: int, dilation: int, *, affine: bool) -> list[nn.Module]:
    """ReLU, depthwise, pointwise, batch norm."""
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(
        width, width, kernel, stride=stride, padding=padding, dilation=dilation, groups=width, bias=False
    )
    pointwise = nn.Conv2d(width, width, 1, bias=False)
    return [nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(width, affine=affine)]


def _pool(kind: str, width: int, stride: int, *, affine: bool) -> nn.Module:
    pool = nn.MaxPool2d(3, stride, 1) if kind == "max3" else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(width, affine=False))  # in the search alone


def operation(name: str, width: int, stride: int, *, affine: bool) -> nn.Module:
    """One of ``OPERATIONS``. ``affine``: whether batch norms have weights; in the search they have none."""
    if name == "none":
        return Zero(stride)
    if name == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(width, width, affine=affine)
    if name in {"max3", "avg3"}:
        return _pool(name, width, stride, affine=affine)
    kernel = int(name[3:])
    if name.startswith("dil"):
        return nn.Sequential(*_separable(width, kernel, stride, 2, affine=affine))
    first = _separable(width, kernel, stride, 1, affine=affine)
    return nn.Sequential(*first, *_separable(width, kernel, 1, 1, affine=affine))


class Mixed(nn.Module):
    """All operations at once, weighed."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operation(name, width, stride, affine=False) for name in OPERATIONS)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Sum over operations; ``weights`` (8,)."""
        made = [weight * operation(x) for weight, operation in zip(weights[1:], self.operations[1:], strict=True)]
        return sum(made[1:], made[0])  # "none" adds zeros, whatever its weight


class Cell(nn.Module):
    """What both kinds of cell share: two inputs brought to one width, four nodes concatenated.

    Args:
        widths: channels of the outputs of the cell before the last, of the last, and of this cell's nodes.
        halved: whether the last cell halved the image, so that the input from before it is halved as well.

    """

    def __init__(self, widths: tuple[int, int, int], *, reduces: bool, halved: bool, affine: bool) -> None:
        super().__init__()
        before, last, width = widths
        bring: Callable[..., nn.Module] = FactorizedReduce if halved else relu_conv_norm
        self.reduces = reduces
        self.first = bring(before, width, affine=affine)
        self.second = relu_conv_norm(last, width, affine=affine)

    def strides(self, source: int) -> int:
        """Of an operation on this input."""
        return 2 if self.reduces and source < 2 else 1


class Found(Cell):
    """A cell of a genotype."""

    def __init__(self, plan: genotypes.Cell, widths: tuple[int, int, int], *, reduces: bool, halved: bool) -> None:
        super().__init__(widths, reduces=reduces, halved=halved, affine=True)
        self.sources = [source for node in plan for _, source in node]
        self.edges = nn.ModuleList(
            operation(name, widths[2], self.strides(source), affine=True) for node in plan for name, source in node
        )
        self.drop = 0.0  # share of an operation's samples that is dropped while it trains

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Two outputs of cells to one of four times the width."""
        states = [self.first(before), self.second(last)]
        for node in range(NODES):
            states.append(self._edge(2 * node, states) + self._edge(2 * node + 1, states))
        return torch.cat(states[2:], 1)

    def _edge(self, index: int, states: list[Tensor]) -> Tensor:
        made: Tensor = self.edges[index](states[self.sources[index]])
        if not self.training or not self.drop or isinstance(self.edges[index], nn.Identity):
            return made
        stays = torch.empty(len(made), 1, 1, 1, device=made.device, dtype=made.dtype).bernoulli_(1 - self.drop)
        return made * stays / (1 - self.drop)


class Searched(Cell):
    """A cell of the supernet: every node takes every earlier output by every operation."""

    def __init__(self, widths: tuple[int, int, int], *, reduces: bool, halved: bool) -> None:
        super().__init__(widths, reduces=reduces, halved=halved, affine=False)
        sources = [source for node in range(NODES) for source in range(2 + node)]
        self.edges = nn.ModuleList(Mixed(widths[2], self.strides(source)) for source in sources)

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """As ``Found``; ``weights`` (14, 8), each row a softmax."""
        states = [self.first(before), self.second(last)]
        edge = 0
        for _ in range(NODES):
            made = [self.edges[edge + index](state, weights[edge + index]) for index, state in enumerate(states)]
            edge += len(states)
            states.append(sum(made[1:], made[0]))
        return torch.cat(states[2:], 1)
