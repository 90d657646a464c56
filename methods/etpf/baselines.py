"""A name or a formula goes in; a way to score channels comes out: functions, and baselines that are no formulas.

Besides the seeds the authors compare with DI, MMD and the gain of batch norm; random scores are the floor.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from slimbench.methods.etpf import functions, scoring, space
from slimbench.methods.etpf.algebra import InvalidExpressionError, OneClassError

if TYPE_CHECKING:
    from collections.abc import Callable

    from slimbench.methods.etpf.scoring import Layer
    from slimbench.methods.etpf.space import Expression

RIDGE: Final = 1e-4
BANDWIDTH: Final = 1.0  # of MMD's kernel
BLOCK: Final = 100  # samples of one estimate of MMD


@dataclass(frozen=True)
class Scorer:
    """A way to score a layer's channels: low means dispensable.

    Attributes:
        score: of a layer, (channels,) float64. Raises: InvalidExpressionError.
        expression: where it is a formula.
        needs_data: whether maps are looked at at all; needs_maps: themselves, not sums of them alone;
            needs_classes: the mean maps of classes; needs_gains: the gain of a batch norm.

    """

    score: Callable[[Layer], Tensor]
    expression: Expression | None = None
    needs_data: bool = True
    needs_maps: bool = False
    needs_classes: bool = False
    needs_gains: bool = False


def scorer(text: str) -> Scorer:
    """The scorer of a name, or of a formula. Raises: UserError where it is neither."""
    if text in functions.BASELINES:
        return _BASELINES[text]
    expression = functions.function(text)
    return Scorer(
        functools.partial(scoring.score, expression),
        expression,
        needs_data=bool(space.operands(expression) - {"W", "WI"}),
        needs_maps=scoring.needs_maps(expression),
        needs_classes=scoring.needs_classes(expression),
    )


def discriminant_information(layer: Layer) -> Tensor:
    """trace((S + rho I)^-1 B): S scatter around the mean, B = sum over classes of n_c d_c d_c^T, rho = 1e-4."""
    assert layer.maps is not None
    labels = _several(layer.maps.labels)
    scores = []
    for x in layer.maps.values:  # (n, D)
        centred = x.double() - x.double().mean(0)
        between = torch.stack([n**-0.5 * c.sum(0) for c in _by_class(centred, labels) if (n := len(c))])  # (classes, D)
        scatter = centred.T @ centred
        scatter.diagonal().add_(RIDGE)
        scores.append((between * torch.linalg.solve(scatter, between.T).T).sum())
    return torch.stack(scores)


def maximum_mean_discrepancy(layer: Layer) -> Tensor:
    """Sum over classes of MMD^2 between a class and the rest; Gaussian kernel, in blocks of 100 samples, mean of all.

    In a block the samples stand by turns of class, as far as there are any left.
    """
    assert layer.maps is not None
    labels = _several(layer.maps.labels)
    turn = torch.stack([(labels[: k + 1] == label).sum() for k, label in enumerate(labels)])
    order = (turn * (int(labels.max()) + 1) + labels).argsort()
    blocks = [block for block in order.split(BLOCK) if len(labels[block].unique()) > 1]
    return torch.stack(
        [torch.stack([_mmd(x[b].double(), labels[b]) for b in blocks]).mean() for x in layer.maps.values]
    )


def _mmd(x: Tensor, labels: Tensor) -> Tensor:
    """Of one block (n, D): weights w of 1/|P| and -1/|Q| give mean k(P, P) + mean k(Q, Q) - 2 mean k(P, Q) = w K w."""
    kernel = torch.exp(-torch.cdist(x, x).square() / (2 * BANDWIDTH**2))
    own = torch.stack([labels == label for label in labels.unique()]).double()
    weights = own / own.sum(1, keepdim=True) - (1 - own) / (1 - own).sum(1, keepdim=True)
    return (weights @ kernel * weights).sum()


def _several(labels: Tensor) -> Tensor:
    """Raises: OneClassError where there is nothing to compare."""
    if len(labels.unique()) < 2:
        raise OneClassError
    return labels


def _by_class(x: Tensor, labels: Tensor) -> list[Tensor]:
    return [x[labels == label] for label in labels.unique()]


def gain(layer: Layer) -> Tensor:
    """|gain| of the batch norm that scales the channels: Liu et al., Network Slimming, 2017."""
    if layer.gains is None:
        raise InvalidExpressionError("no batch norm scales the channels")
    return layer.gains.double()


def at_random(layer: Layer) -> Tensor:
    """From torch's generator."""
    return torch.rand(len(layer.filters), dtype=torch.float64)


_BASELINES: Final = {
    "DI": Scorer(discriminant_information, needs_maps=True),
    "MMD": Scorer(maximum_mean_discrepancy, needs_maps=True),
    "BN": Scorer(gain, needs_data=False, needs_gains=True),
    "random": Scorer(at_random, needs_data=False),
}
