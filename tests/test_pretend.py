"""Every method on a GPU in name only: no tensor of the processor's meets one of the device's.

What CUDA itself would do is in ``test_gpu.py``, for machines that have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from conftest import fakes
from pretend import Pretend, parameter
from slimbench import compress, identity, train
from slimbench.benchmarks._arms import arms
from slimbench.core import Budget, Cell, Settings
from slimbench.methods.dass import DASS
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.gpp import GPP
from slimbench.methods.resconv import ResConvFromScratch
from slimbench.store import Store

TASK = fakes.Stripes("resnet8")
SETTINGS = Settings("fp32", "cuda")
METHODS = [method for arm in arms(1, DASS("dass-99", 4, 3)) for method in arm.methods]
METHODS += [ETPF("sum(abs(P - mX))"), GPP(push="eigen"), ResConvFromScratch(variant="R1")]
METHODS += [DASS(channels=4, cells=3, search_channels=2, search_cells=3, unrolled=True)]


@dataclass
class Pretending:
    """A method that computes under the pretence."""

    method: Any

    def compress(self, *arguments: Any) -> Any:
        """The method's own."""
        with Pretend():
            return self.method.compress(*arguments)


@pytest.fixture(scope="module")
def gpu():
    """CUDA, as far as the method can tell; what follows it runs on the processor."""
    with pytest.MonkeyPatch.context() as patch:
        sealed = compress.with_sealed_sources
        patch.setattr(compress, "with_sealed_sources", lambda method: Pretending(sealed(method)))
        patch.setattr(compress, "judged", lambda network, settings: compress.contextlib.nullcontext(network))
        patch.setattr(train.Loop, "watch_memory", lambda self: None)
        patch.setattr(train.Loop, "memory_spent", lambda self: {})
        patch.setattr(train.Loop, "autocast", lambda self: compress.contextlib.nullcontext())
        patch.setattr(compress, "set_up", lambda settings: None)
        patch.setattr(torch.nn.Parameter, "__new__", parameter)
        yield


@pytest.fixture(scope="module")
def trained(gpu, tmp_path_factory) -> tuple[Cell, Store]:
    """The dense cell, done."""
    store = Store(tmp_path_factory.mktemp("store"))
    dense = Cell(TASK, Dense(), Budget(1.0), 0, SETTINGS)
    assert compress.compress(dense, store).status == "ok"
    return dense, store


@pytest.mark.parametrize("method", METHODS, ids=identity.label)
def test_a_method_keeps_to_the_device(trained, method):
    """From its first step to its network."""
    dense, store = trained
    resource = "prunable_nonzero" if method.card.granularity == "weight" else "macs"
    record = compress.compress(Cell(TASK, method, Budget(0.5, resource, epochs=1), 0, SETTINGS, dense), store)
    assert record.status in {"ok", "off_budget"}


@pytest.mark.parametrize(
    "mixes",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([there, here]),
        lambda here, there: here[there.long()],
        lambda here, there: there.numpy(),
        lambda here, there: torch.rand(3, device=there.device, generator=torch.Generator()),
    ],
)
def test_the_pretence_refuses_what_cuda_would(mixes):
    """Mixed devices, indices that the processor cannot see, and generators of another device."""
    with Pretend():
        here = torch.ones(3)
        there = torch.zeros(3).to("cuda")
        assert (there * 2).device.type == "cuda"
        with pytest.raises((RuntimeError, TypeError)):
            mixes(here, there)
