"""What a width search costs beside plain training of the same network: a step's peak memory and its time.

Memory is what torch has allocated at once. Steps of the three kinds alternate, so that a busy machine slows all.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from slimbench.core import Budget, Step
from slimbench.methods._gate_search import Search
from slimbench.methods.dcss import DCSS
from slimbench.tasks.cifar import CIFAR10
from slimbench.tasks.div2k import T91
from slimbench.train import full_precision

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
BATCH = {"preresnet20": 128, "resnet20": 128, "resnet56": 128, "mobilenetv2": 64, "edsr-small": 16}


def batch(task: Any, size: int) -> Any:
    """Random inputs and targets of the task's shape."""
    rng = torch.Generator().manual_seed(0)
    side = task.example().shape[2]
    inputs = torch.rand(size, 3, side, side, generator=rng).contiguous(memory_format=torch.channels_last)
    if task.family == "classification":
        return inputs, torch.randint(0, 10, (size,), generator=rng)
    return inputs, torch.rand(size, 3, 2 * side, 2 * side, generator=rng)


def kinds(task: Any, held: Any) -> dict[str, Callable[[], object]]:
    """Plain training, the search's step of the weights, its step of the gates; optimisers of weights left out."""
    search = Search(DCSS(), task, task.build(), Budget(0.5))
    plain, gated = (model.train().to(memory_format=torch.channels_last) for model in (task.build(), search.network))
    step = Step(1, 10, 0.1, *held, None, lambda: held)

    def train(model: Any) -> None:
        model.zero_grad()
        task.loss(full_precision(model(held[0])), held[1]).backward()

    def weights() -> None:
        search.draw_gates(step)
        train(gated)

    return {"plain": lambda: train(plain), "weights": weights, "gates": lambda: search.turn_gates(step)}


def peak_mb(work: Callable[[], object]) -> float:
    """Largest sum of what torch holds of what it allocates meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = most = 0
    for _, size in sorted(sizes):
        held += size
        most = max(most, held)
    return most / 2**20


@pytest.mark.parametrize("network", BATCH)
def test_search_beside_plain_training(benchmark: Any, network: str) -> None:
    torch.set_num_threads(1)
    task = T91(network) if network.startswith("edsr") else CIFAR10(network)
    works = kinds(task, batch(task, BATCH[network]))
    seconds: dict[str, list[float]] = {name: [] for name in works}

    def block() -> None:
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(block, rounds=ROUNDS, warmup_rounds=1)
    peaks = {name: peak_mb(work) for name, work in works.items()}
    times = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    for name in works:
        benchmark.extra_info[f"{name}_peak_mb"] = round(peaks[name], 1)
        benchmark.extra_info[f"{name}_peak_ratio"] = round(peaks[name] / peaks["plain"], 3)
        benchmark.extra_info[f"{name}_time_ratio"] = round(times[name] / times["plain"], 2)
    print(f"\n{network}: {benchmark.extra_info}")
