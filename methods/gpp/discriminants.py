"""Samples and their classes go in; scatters within and between classes come out, and what neurons are worth.

Of n samples x of M neurons, with class means m_c, class sizes n_c and mean m:

    S_w = 1/n * sum_x (x - m_c(x)) (x - m_c(x))^T        S_b = 1/n * sum_c n_c (m_c - m) (m_c - m)^T

Pre-decision neurons fire almost uncorrelated, so both are taken to be diagonal; LDA's eigenvectors are then the axes of
the neurons, and its eigenvalues their utilities, v_j = sigma_b^2(j) / sigma_w^2(j) (Tian, Arbel and Clark 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

LEAST = 1e-18  # of a divisor whose square divides a gradient
_NOISE = 1e-9  # of a neuron's mean square: less variance than this is rounding, within classes or in all


@dataclass(frozen=True)
class Scatters:
    """Of samples of M neurons in C classes, float64.

    Attributes:
        within, between: S_w and S_b, (M, M).
        means: of the classes, (C, M); zeros for a class without samples. sizes: (C,).

    """

    within: Tensor
    between: Tensor
    means: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, parts: Iterable[tuple[Tensor, Tensor]]) -> Scatters:
        """Of samples (n, M) and classes (n,), part by part: sums are kept, samples are not."""
        sums = sizes = gram = torch.zeros(0)
        for samples, classes in parts:
            x = samples.double()
            if not gram.numel():
                sums, sizes, gram = x.new_zeros(0, x.shape[1]), x.new_zeros(0), x.new_zeros(x.shape[1], x.shape[1])
            more = max(0, int(classes.max()) + 1 - len(sizes)) if len(classes) else 0
            sums, sizes = torch.cat([sums, sums.new_zeros(more, x.shape[1])]), torch.cat([sizes, sizes.new_zeros(more)])
            chosen = one_hot(classes, len(sizes), x)
            sums, sizes, gram = sums + chosen.T @ x, sizes + chosen.sum(0), gram + x.T @ x
        total = sizes.sum().clamp(min=1)
        means = sums / sizes.clamp(min=1)[:, None]
        root = (sizes / total).sqrt()[:, None]
        moment = gram / total
        spread = root * (means - sums.sum(0) / total)
        within = moment - (root * means).T @ (root * means)
        least = _NOISE * moment.diagonal()
        moves = within.diagonal() + (spread**2).sum(0) > least
        spread, within = spread * moves, within * moves * moves[:, None]
        within.diagonal().copy_(torch.where(moves, within.diagonal().maximum(least), 0.0))
        return cls(within, spread.T @ spread, means, sizes)

    def utilities(self) -> Tensor:
        """v_j of each neuron, (M,): 0 for one without variance, and for the copies of another."""
        v = utilities(self.within, self.between)
        rows = torch.cat([self.means, self.within.diagonal()[None]]).T
        _, twins = rows.unique(dim=0, return_inverse=True)
        first = torch.full((len(rows),), len(rows), device=rows.device).scatter_reduce(
            0, twins, torch.arange(len(rows), device=rows.device), "amin"
        )
        return torch.where(first[twins] == torch.arange(len(rows), device=rows.device), v, 0.0)


def one_hot(classes: Tensor, count: int, like: Tensor) -> Tensor:
    """(n,) -> (n, count) in the type of ``like``."""
    return torch.nn.functional.one_hot(classes, count).to(like)


def utilities(within: Tensor, between: Tensor) -> Tensor:
    """v_j = sigma_b^2(j) / sigma_w^2(j), (M,): 0 where a neuron has no variance at all."""
    return between.diagonal() / within.diagonal().clamp(min=LEAST)


def power(v: Tensor, k: int) -> Tensor:
    """The mean of the ``k`` largest utilities."""
    return v.topk(min(k, len(v))).values.mean()


def effective(v: Tensor) -> Tensor:
    """Over how many neurons the utilities spread, (sum v)^2 / sum v^2: from 1 to M."""
    return v.sum() ** 2 / (v**2).sum().clamp(min=LEAST)


def correlation(within: Tensor) -> Tensor:
    """The mean |correlation| of two different neurons inside classes, over those that vary."""
    live = within.diagonal() > 0
    deviations = within.diagonal()[live].sqrt()
    r = within[live][:, live] / (deviations * deviations[:, None])
    pairs = max(1, len(deviations) * (len(deviations) - 1))
    return (r.abs().sum() - r.diagonal().abs().sum()) / pairs
