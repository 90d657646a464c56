"""A network, its widths and a scorer go in; the channels that the scorer thinks least of come out."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slimbench.methods.etpf import features, readings
from slimbench.methods.etpf.algebra import OneClassError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import Batch, Task, Trainer
    from slimbench.methods._graph import Width
    from slimbench.methods.etpf.baselines import Scorer
    from slimbench.methods.etpf.readings import Reading
    from slimbench.methods.etpf.scoring import Layer


@dataclass
class Ranker:
    """Ranks the channels of a task's networks by one scorer.

    Attributes:
        images: training images that are looked at; None: all, or as many as maps are kept of.
        window: side of the windows of a map that are samples, where windows have labels.
        one_class: the layers that read maps whose samples are all of one class.

    """

    task: Task
    trainer: Trainer
    scorer: Scorer
    images: int | None = None
    window: int = 4
    one_class: list[str] = field(default_factory=list)

    def lowest(
        self, model: nn.Module, every: Sequence[Width], counts: Sequence[int], whole: Sequence[Width]
    ) -> list[set[int]]:
        """``counts`` channels of each of ``every`` width, all scored on the network as it is."""
        places = readings.readings(model, self.task.example(), every, whole)
        flat = [reading for each in places for reading in each]
        layers = features.gather(model, flat, self.task, self.scorer, batches=self._batches, window=self.window)
        scores = [_mean_rank([(reading, self._score(reading, next(layers))) for reading in each]) for each in places]
        return [set(score.argsort(stable=True)[:count].tolist()) for score, count in zip(scores, counts, strict=True)]

    def _score(self, reading: Reading, layer: Layer) -> Tensor:
        """By the scorer; by the filters' norms where samples are all of one class. Raises: InvalidExpressionError."""
        try:
            return self.scorer.score(layer)
        except OneClassError:
            self.one_class = sorted({*self.one_class, reading.layer})
            return layer.filters.double().abs().flatten(1).sum(1)

    def lowest_front_to_back(
        self, model: nn.Module, every: Sequence[Width], counts: Sequence[int], whole: Sequence[Width]
    ) -> list[set[int]]:
        """The same, each width scored behind those before it, as cut as they are by then."""
        masked, removed = copy.deepcopy(model), []
        for width, count in zip(every, counts, strict=True):
            (gone,) = self.lowest(masked, [width], [count], whole)
            readings.mask(masked, width, gone)
            removed.append(gone)
        return removed

    def _batches(self) -> Iterable[Batch]:
        """The same images every time."""
        if not self.scorer.needs_data:
            return ()
        if self._looked_at is None or self._looked_at >= self.task.size("train"):
            return self.trainer.batches("train")
        return [self.task.batch("train", part, None) for part in self._subset.split(features.chunk(self.trainer))]

    @property
    def _looked_at(self) -> int | None:
        return features.KEPT if self.images is None and self.scorer.needs_maps else self.images

    @functools.cached_property
    def _subset(self) -> Tensor:
        return features.subset(self.task, self.trainer, self._looked_at or 0)


def _mean_rank(scored: Sequence[tuple[Reading, Tensor]]) -> Tensor:
    """Of a width's channels, (channels,): scores of several readings have no common scale, their ranks do.

    Ranks are shares in [0, 1] among the channels that a reading knows; a channel that nothing reads comes first.
    """
    ranks = []
    for reading, score in scored:
        known = readings.known(reading)
        rank = torch.full(score.shape, math.nan, dtype=torch.float64)
        rank[known] = score.cpu()[known].argsort(stable=True).argsort().double() / known.sum()
        ranks.append(rank)
    return torch.stack(ranks).nanmean(0).nan_to_num(-1.0)
