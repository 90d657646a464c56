"""Do zeros make a network faster? Full-size networks of DASS and peers, 0, 90 and 99 % zeros, in several runtimes.

Weights are fresh: a time does not depend on what was learned. Zeros are each layer's smallest weights, as `dass` and
`sparse_scores` leave them. Runtimes of one network alternate in random order on one thread, batch 1:

- torch: dense kernels, batch norm folded, channels last: what the `cpu` profile times;
- torch csr, scipy csr: every convolution but the depthwise as unfolded columns under a compressed-sparse-row matrix;
- onnxruntime: the exported file;
- deepsparse, where BENCH_DEEPSPARSE names a Python that has it: end of life, an environment of its own
  (Python below 3.12, deepsparse==1.8.0, onnx<1.15, numpy<2, setuptools<81). It gets files of opset 13.

`test_networks_of_cells_beside_their_peers` times the dense networks alone, batch 1 and 32: what the cells cost.
Ratios are to the peer, or to dense torch, with a 95 % bootstrap interval; they are printed and kept in ``extra_info``.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits
from torch import Tensor, fx, nn

from slimbench import artifact, export, seeding
from slimbench.hardware_profiles import _program, _timing
from slimbench.methods.dass import genotypes, networks
from slimbench.methods.magnitude_weights import largest
from slimbench.tasks.cifar import CIFAR10

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[[], object]

SHAPE = networks.Shape("classification", 3, 10, 32)
SIZES = {"tiny": (30, 16), "small": (36, 20), "medium": (86, 12), "large": (108, 14)}  # channels, cells
PEERS = ("mobilenetv2", "resnet18-cifar")
ZEROS = (0.0, 0.9, 0.99)
ROUNDS = {1: 30, 32: 7}

DEEPSPARSE = """
import json, sys, time
import numpy
from deepsparse import Engine
engine = Engine(sys.argv[1], batch_size=1, num_cores=1)
inputs = [numpy.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=numpy.float32)]
taken = []
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    engine.run(inputs)
    taken.append(1e3 * (time.perf_counter() - started))
print(json.dumps(taken[len(taken) // 4:]))
"""


def made(name: str) -> nn.Module:
    """A network of CIFAR-10 with fresh weights, by the name of a peer or of a size of DASS."""
    with seeding.seeded(0):
        if name in PEERS:
            return CIFAR10(name).build().eval()
        return networks.CellNetwork(SHAPE, *SIZES[name], genotypes.parse("dass-99")).eval()


def zeroed(model: nn.Module, zeros: float) -> nn.Module:
    """The network, in place, with that share of zeros in each convolution and linear layer."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and zeros:
            kept = largest(layer.weight.detach().abs(), max(1, round((1 - zeros) * layer.weight.numel())))
            layer.weight.data *= kept
    return model


class Columns(nn.Module):
    """A convolution as a matrix in compressed-sparse-row form times unfolded columns, by torch or by scipy."""

    def __init__(self, weight: Tensor, bias: Tensor | None, geometry: dict[str, tuple[int, int]], by: str) -> None:
        super().__init__()
        flat, self.size, self.bias, self.geometry, self.by = weight.flatten(1), weight.shape[2:], bias, geometry, by
        self.rows = flat.to_sparse_csr() if by == "torch" else sparse.csr_matrix(flat.numpy())

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) to (1, filters, H', W')."""
        steps, pads, gaps = (self.geometry[name] for name in ("stride", "padding", "dilation"))
        out = [(x.shape[2 + i] + 2 * pads[i] - gaps[i] * (self.size[i] - 1) - 1) // steps[i] + 1 for i in (0, 1)]
        columns = nn.functional.unfold(x, self.size, **self.geometry)[0]
        product = self.rows @ columns if self.by == "torch" else torch.from_numpy(self.rows @ columns.numpy())
        return (product if self.bias is None else product + self.bias[:, None]).view(1, -1, *out)


def in_columns(model: fx.GraphModule, by: str) -> fx.GraphModule:
    """The network, batch norm folded, whose convolutions of one group are sparse matrices."""
    names = ("x", "weight", "bias", "stride", "padding", "dilation", "groups")
    for node in list(model.graph.nodes):
        given = dict(zip(names, node.args, strict=False))
        if node.target is not torch.ops.aten.conv2d.default or given.get("groups", 1) != 1:
            continue
        weight, bias = (_program._tensor(model, given.get(name)) for name in ("weight", "bias"))
        assert weight is not None
        default = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        geometry = {name: tuple(given.get(name, usual)) for name, usual in default.items()}
        model.add_submodule(f"columns_{node.name}", Columns(weight, bias, geometry, by))
        with model.graph.inserting_before(node):
            node.replace_all_uses_with(model.graph.call_module(f"columns_{node.name}", (given["x"],)))
        model.graph.erase_node(node)
    model.recompile()
    return model


def onnx_run(file: Path, inputs: Tensor) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    fed = {session.get_inputs()[0].name: inputs.numpy()}
    return lambda: session.run(None, fed)[0]


def stored(model: nn.Module, folder: Path) -> Path:
    artifact.save(model, torch.zeros(1, 3, 32, 32), folder)
    return folder


def told(benchmark: Any, title: str, runs: dict[str, Run], against: str, batch: int) -> None:
    """Alternate the runs, print each one's median and its speed-up over one of them, and keep both."""
    with torch.inference_mode(), threadpool_limits(1):
        for run in runs.values():
            _timing.warm_up(run, 0.2, 3.0)
        timed = benchmark.pedantic(lambda: _timing.interleaved(runs, ROUNDS[batch]), rounds=1)
    print(f"\n{title}")
    for name, samples in timed.items():
        ratio, low, high = _timing.ratio(timed[against], samples)
        ms = _timing.percentiles(samples)["p50_ms"]
        print(f"  {name:<16}{ms:9.2f} ms   {ratio:5.2f}x [{low:.2f}, {high:.2f}]")
        benchmark.extra_info[name] = {"p50_ms": round(ms, 3), "ratio": [round(v, 3) for v in (ratio, low, high)]}


@pytest.mark.parametrize("batch", ROUNDS)
def test_networks_of_cells_beside_their_peers(benchmark: Any, tmp_path: Path, batch: int) -> None:
    torch.set_num_threads(1)
    inputs = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    runs: dict[str, Run] = {}
    for name in (*PEERS, *SIZES):
        network = _program.load_folded(stored(made(name), tmp_path / name)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        runs[name] = lambda network=network: network(inputs)
    told(benchmark, f"dense, batch {batch}, speed-up over {PEERS[0]}", runs, PEERS[0], batch)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("name", [*PEERS, "tiny"])
def test_runtimes_on_zeros(benchmark: Any, tmp_path: Path, name: str, zeros: float) -> None:
    torch.set_num_threads(1)
    network = zeroed(made(name), zeros)
    folder = stored(network, tmp_path / "network")
    inputs = torch.randn(1, 3, 32, 32)
    program = _program.load_folded(folder)
    with torch.inference_mode():
        expected = program(inputs)
    dense = program.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    runs: dict[str, Run] = {"torch": lambda: dense(inputs)}
    for by in ("torch", "scipy"):
        matrices = in_columns(_program.fold(artifact.load(folder).module(check_guards=False)), by)
        runs[f"{by} csr"] = lambda matrices=matrices: matrices(inputs)
    export.export(folder, "onnx", tmp_path / "network.onnx")
    runs["onnxruntime"] = onnx_run(tmp_path / "network.onnx", inputs)
    with torch.inference_mode():
        for run in runs.values():
            torch.testing.assert_close(torch.as_tensor(run()), expected, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]
    told(benchmark, f"{name}, {zeros:.0%} zeros, speed-up over dense torch", runs, "torch", 1)


@pytest.mark.filterwarnings("ignore")  # of the exporter that reaches back to opset 13
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("name", [*PEERS, "tiny"])
def test_deepsparse_on_zeros(benchmark: Any, tmp_path: Path, name: str, zeros: float) -> None:
    """Its times stand alone, as it cannot live in this process; `told` of the same network gives torch's."""
    python = os.environ.get("BENCH_DEEPSPARSE")
    if not python:
        pytest.skip("BENCH_DEEPSPARSE does not name a Python that has deepsparse 1.8.0")
    file = tmp_path / "network.onnx"
    torch.onnx.export(
        zeroed(made(name), zeros),
        (torch.zeros(1, 3, 32, 32),),
        str(file),
        opset_version=13,
        dynamo=False,
        verbose=False,
    )
    environment = os.environ | {"NM_DISABLE_ANALYTICS": "1"}
    command = [python, "-c", DEEPSPARSE, str(file), "60"]

    def work() -> list[float]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-500:]
        return list(json.loads(done.stdout.splitlines()[-1]))

    p50 = _timing.percentiles(np.asarray(benchmark.pedantic(work, rounds=1)))["p50_ms"]
    benchmark.extra_info["p50_ms"] = round(p50, 3)
    print(f"\n{name}, {zeros:.0%} zeros, deepsparse: {p50:.2f} ms")
