"""Samples and their classes go in; the push loss comes out, and what it did is written down (our derivation).

With d_j = sigma_b^2(j) / sigma_w^2(j) over M neurons, of which the K largest are asked for:

    L = CE + l1 * -mean of the K largest log(1 + d_j)                                        separation
           + l2 * (off(S_w) + 0.1 * off(S_b)),  off(S) = |S - diag S|_F^2 / |diag S|_F^2     covariance
           + l3 * (|d|_1 / |d|_2 - 1) / (sqrt(M) - 1)                                        compactness

The ablation ("eigen") has LDA's own eigenvalues v and vectors e instead of the first and the last:

    separation = -mean_i log(1 + v_i)        alignment = sum_i v_i / sum(v) * (|e_i|_1^2 / |e_i|_2^2 - 1) / (M - 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.methods.gpp import discriminants, features
from slimbench.train import full_precision

if TYPE_CHECKING:
    from slimbench.core import Step, Task
    from slimbench.methods.gpp.discriminants import Scatters
    from slimbench.methods.gpp.method import GPP

_OF_BETWEEN = 0.1  # off(S_b) counts less: S_b has rank C - 1, a diagonal one would leave that many neurons alone
_SHOWN = 50  # points of a series that are kept in the record


class CholeskyError(ArithmeticError):
    """S_w is not positive definite."""


def separation(d: Tensor, k: int) -> Tensor:
    """-mean of the k largest log(1 + d)."""
    return -torch.log1p(d).topk(min(k, len(d))).values.mean()


def off_diagonal(S: Tensor) -> Tensor:
    """|S - diag S|_F^2 / |diag S|_F^2; 0 of a matrix of zeros."""
    diagonal = (S.diagonal() ** 2).sum()
    return ((S**2).sum() - diagonal) / diagonal.clamp(min=discriminants.LEAST)


def compactness(d: Tensor) -> Tensor:
    """(|d|_1 / |d|_2 - 1) / (sqrt(M) - 1): 0 where one neuron has it all, 1 where all have as much."""
    return (discriminants.effective(d).clamp(min=1).sqrt() - 1) / max(len(d) ** 0.5 - 1, 1e-12)


def eigen(within: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """LDA's positive eigenvalues (r,), the largest first, and its eigenvectors (r, M) as rows, in float64.

    S_b = Z^T Z has rank r = min(C - 1, M), so the smaller product of the whitened class means has the same eigenvalues:
    with S_w = L L^T and A = Z L^-T, A A^T y = v y gives e = L^-T A^T y, and A^T A y = v y gives e = L^-T y. (Those of
    M x M are mostly zeros, and gradients of equal eigenvalues are not defined.)

    Args:
        spread: Z, (C, M). Raises: CholeskyError.

    """
    factor, failed = torch.linalg.cholesky_ex(within.double())
    if int(failed) or not bool(torch.isfinite(factor).all()):
        raise CholeskyError
    seen = spread[(spread.detach() != 0).any(1)].double()
    A = torch.linalg.solve_triangular(factor, seen.T, upper=False).T
    by_classes = A.shape[0] <= A.shape[1]
    v, y = torch.linalg.eigh(A @ A.T if by_classes else A.T @ A)
    v, y = v[int(by_classes) :].flip(0), y[:, int(by_classes) :].flip(1)  # of as many classes, one eigenvalue is 0
    return v, torch.linalg.solve_triangular(factor.T, A.T @ y if by_classes else y, upper=True).T


def alignment(v: Tensor, e: Tensor) -> Tensor:
    """Mean over eigenvectors, by eigenvalue, of how far they are from an axis: 0 on axes, 1 on a diagonal."""
    spread = e.abs().sum(1) ** 2 / (e**2).sum(1)
    return ((v / v.sum()) * (spread - 1) / max(e.shape[1] - 1, 1)).sum()


@dataclass
class Averages:
    """Moving ones, without gradients: S_w (M, M), class means (C, M) and the classes' shares of samples (C,)."""

    within: Tensor
    means: Tensor
    shares: Tensor

    def reaching(self, classes: int, device: torch.device) -> Averages:
        """The same on a device, with rows of zeros for classes that nothing showed before."""
        more = max(0, classes - len(self.shares))
        padded = nn.functional.pad(self.means, (0, 0, 0, more)), nn.functional.pad(self.shares, (0, more))
        return Averages(self.within.to(device), *(values.to(device) for values in padded))


class Push:
    """The loss of one training phase, for ``fit``; give it as ``state`` too.

    Values are those of moving averages, gradients those of the current batch alone.

    Attributes:
        series: power of the K best neurons, correlation and effective number of neurons, step by step.
        skipped: batches that trained on the task's loss alone, S_w having no Cholesky factor.

    """

    def __init__(self, method: GPP, task: Task, start: Scatters) -> None:
        """Averages begin as the training set's scatters are before the phase."""
        self.method, self.task = method, task
        shares = start.sizes / start.sizes.sum()
        self.averages = Averages(start.within.float(), start.means.float(), shares.float())
        self.k = max(1, round(method.top * (len(start.sizes) - 1)))
        self.series: dict[str, list[float]] = {"power": [], "correlation": [], "effective": []}
        self.skipped = 0
        self.weight = 0.0
        self.read = features.Read()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {**vars(self.averages), "series": {k: list(v) for k, v in self.series.items()}, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.averages = Averages(state["within"], state["means"], state["shares"])
        self.series = {name: list(values) for name, values in state["series"].items()}
        self.skipped = state["skipped"]

    def before_step(self, step: Step) -> None:
        """The push sets in slowly."""
        self.weight = min(1.0, step.progress / self.method.warm_up) if self.method.warm_up else 1.0

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
        """The task's, and the push."""
        loss = self.task.loss(full_precision(outputs), targets)
        with torch.autocast(inputs.device.type, enabled=False):
            x, classes = features.samples(self.task, self.read.values, targets, self.method.window)
            if not len(x):
                return loss
            try:
                return loss + self.weight * self.term(x, classes).to(loss)
            except CholeskyError:
                self.skipped += 1
                return loss

    def term(self, x: Tensor, classes: Tensor) -> Tensor:
        """The push of samples (n, M) and their classes (n,). Raises: CholeskyError."""
        within, spread = self.update(x, classes)
        between = spread.T @ spread
        d = discriminants.utilities(within, between)
        self._write_down(within.detach(), d.detach())
        o = self.method
        if o.push == "none":
            return within.new_zeros(())
        covariance = off_diagonal(within) + _OF_BETWEEN * off_diagonal(between)
        if o.push == "eigen-free":
            return o.separation * separation(d, self.k) + o.covariance * covariance + o.compactness * compactness(d)
        v, e = eigen(within, spread)
        return o.separation * separation(v, len(v)) + o.covariance * covariance + o.compactness * alignment(v, e)

    def update(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """S_w, shrunk, (M, M), and Z with S_b = Z^T Z, (C, M), after one more batch; see ``Push`` for gradients.

        The mean of a class that comes for the first time (a rare one, of windows) begins as the batch's. Of fewer
        than two samples a class, little or nothing lies around the batch's own means: it is then divided, and counts,
        by its degrees of freedom.
        """
        old, decay = self.averages.reaching(int(classes.max()) + 1, x.device), self.method.decay
        chosen = discriminants.one_hot(classes, len(old.shares), x)
        sizes = chosen.sum(0)
        batch_means = chosen.T @ x / sizes.clamp(min=1)[:, None]
        residuals = x - chosen @ batch_means
        free, present = len(x), int((sizes > 0).sum())
        if len(x) < 2 * present:
            free -= present
        batch_within = residuals.T @ residuals / max(free, 1)
        within = _blend(old.within, batch_within, decay ** (free / len(x)))
        old_means = torch.where(old.shares[:, None] > 0, old.means, batch_means.detach())
        means = torch.where(sizes[:, None] > 0, _blend(old_means, batch_means, decay), old_means)
        shares = decay * old.shares + (1 - decay) * sizes / len(x)
        self.averages = Averages(within.detach(), means.detach(), shares)
        spread = shares.sqrt()[:, None] * (means - shares @ means)
        r = self.method.shrinkage
        identity = torch.eye(len(within), device=x.device)
        return (1 - r) * within + r * within.diagonal().mean() * identity, spread

    def _write_down(self, within: Tensor, d: Tensor) -> None:
        values = (discriminants.power(d, self.k), discriminants.correlation(within), discriminants.effective(d))
        for series, value in zip(self.series.values(), values, strict=True):
            series.append(float(f"{float(value):.6g}"))

    def shown(self) -> dict[str, list[float]]:
        """The series, thinned out to at most fifty points each."""
        return {name: values[:: -(-len(values) // _SHOWN) or 1] for name, values in self.series.items()}


def _blend(old: Tensor, batch: Tensor, decay: float) -> Tensor:
    """The moving average's value with the batch's gradient."""
    new = decay * old + (1 - decay) * batch.detach()
    return new + (batch - batch.detach())
