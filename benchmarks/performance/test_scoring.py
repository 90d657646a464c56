"""What ETPF's scores of all channels at once cost beside the authors' way, one channel and one class at a time.

Maps are like those behind a ReLU: 2,000 samples of 10 classes, float32 for us, the same in float64 for numpy. Both
ways alternate on one thread, so that a busy machine slows both. The loop is linear in channels: it is timed on some of
them (``SAMPLED``) and its time is scaled to all; the scores of those must be ours to 1e-6. Our time is all that a layer
needs: moments of batches as they come, the maps that are kept where a function works on them, and the score.

Functions of sums (all named ones) must be 40 times as fast at 512 channels of 2x2, and 8 times at 64 of 16x16.
Functions of maps themselves move as many bytes as the loop does: they must be faster (12 to 16 times, 3 to 4).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from slimbench.methods.etpf import functions, scoring

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import naive

ROUNDS = 5
SAMPLES, CLASSES, BATCH = 2000, 10, 250
SAMPLED = 16
SHAPES = {"512 of 2x2": (512, 4, 40), "64 of 16x16": (64, 256, 8)}  # channels, pixels, how many times faster
FUNCTIONS = (
    "GA_Func2",
    "SymDiv",
    "sum(abs(P - mX)) / sum(pow2(Q))",
    "m_trace(mmul(tran(P), Q)) / (sum(abs(X)) + 0.05)",
)


def data(channels: int, pixels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps that depend on their classes and are not negative, the classes, and filters (C, C_in, 3, 3)."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=rng)
    maps = (
        torch.randn(SAMPLES, channels, pixels, generator=rng) + torch.randn(CLASSES, channels, 1, generator=rng)[labels]
    )
    return maps.relu_(), labels, torch.randn(channels, channels, 3, 3, generator=rng)


def ours(expression: Any, maps: torch.Tensor, labels: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """As a layer's maps come, batch by batch, and then scored."""
    moments = scoring.Moments.none(*maps.shape[1:], by_class=scoring.needs_classes(expression))
    for part, theirs in zip(maps.split(BATCH), labels.split(BATCH), strict=True):
        moments.add(part, theirs)
    kept = scoring.Maps.of(maps, labels) if scoring.needs_maps(expression) else None
    return scoring.score(expression, scoring.Layer(filters, moments, kept))


def timed(work: Callable[[], Any], seconds: list[float]) -> Any:
    started = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - started)
    return result


@pytest.mark.parametrize("text", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_beside_the_naive_loop(benchmark: Any, shape: str, text: str) -> None:
    torch.set_num_threads(1)
    channels, pixels, least = SHAPES[shape]
    expression = functions.function(text)
    maps, labels, filters = data(channels, pixels)
    doubled = maps.numpy().astype(np.float64)[:, :SAMPLED], labels.numpy(), filters.permute(2, 3, 1, 0).double().numpy()
    taken: dict[str, list[float]] = {"ours": [], "naive": []}

    def block() -> None:
        found = timed(lambda: ours(expression, maps, labels, filters), taken["ours"])
        expected = timed(lambda: naive.scores(expression, *doubled), taken["naive"])
        np.testing.assert_allclose(found[:SAMPLED], expected, rtol=1e-6)

    with threadpool_limits(1):
        benchmark.pedantic(block, rounds=ROUNDS, warmup_rounds=1)
    one, other = (statistics.median(seconds[1:]) for seconds in taken.values())
    other *= channels / SAMPLED
    benchmark.extra_info |= {"ours_s": round(one, 4), "naive_s": round(other, 3), "ratio": round(other / one, 1)}
    print(f"\n{shape}, {text}: {benchmark.extra_info}")
    assert other / one >= (1 if scoring.needs_maps(expression) else least)
