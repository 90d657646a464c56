"""A stored network goes in; what each of its layers costs, counted and measured here, comes out, beside the dense ones.

The program is run node by node, in eager mode on one thread of the processor, batch norm not folded: the times say
where a network spends its own, and are no latency of a profile.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from tabulate import tabulate
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from slimbench import artifact, devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BATCH, RUNS, _WARM = 32, 30, 3
CAPTION = (
    f"Counts: for one input. ms: median of {RUNS} runs of a batch of {BATCH}, on one thread of this machine by PyTorch "
    "in eager mode, batch norm not folded: the sum is more than the latency. theoretical: dense MACs / MACs; measured: "
    "dense ms / ms."
)
_PATIENCE_S = 30.0  # with cells that train


@dataclass(frozen=True)
class Layer:
    """One layer, all its calls together; counts are for one input, ``ms`` for a batch of 32, the median over runs.

    Attributes:
        name: the module's, or of what the forward pass does outside any layer "(add)", say.
        output: shape of its last output, without the batch.
        activations: values that products put out.

    """

    name: str
    kind: str
    output: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activations: int = 0
    ms: float = 0.0


def measured(*folders: Path) -> list[list[Layer]]:
    """The layers of each network, in the order in which they run; timed in turns. Raises: UserError."""
    programs = [_Program(folder) for folder in folders]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with devices.alone("cpu", _PATIENCE_S), torch.inference_mode():
            for _ in range(_WARM + RUNS):
                for program in programs:
                    program.time()
    finally:
        torch.set_num_threads(threads)
    return [program.timed() for program in programs]


class _Program(fx.Interpreter):
    """A stored program that notes what each node costs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(artifact.load(folder).module(check_guards=False))
        shape = artifact.verify(folder)["input"]
        inputs = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
        self.inputs = inputs.to(memory_format=torch.channels_last)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers: dict[str, Layer] = {}
        self.runs: list[dict[str, float]] = []
        self.counting = True
        self.held = {name: p.numel() for name, p in self.module.named_parameters()}
        with torch.inference_mode():
            self.run(self.inputs[:1])
        self.counting = False

    def time(self) -> None:
        """One more run."""
        self.runs.append(defaultdict(float))
        self.run(self.inputs)

    def timed(self) -> list[Layer]:
        """Its layers with their times."""
        runs = self.runs[_WARM:]
        return [replace(one, ms=statistics.median(run[name] for run in runs)) for name, one in self.layers.items()]

    def run_node(self, n: fx.Node) -> Any:
        """Count it, or time it."""
        if n.op != "call_function":
            return super().run_node(n)
        name, kind = layer_of(n)
        if self.counting:
            return self._count(n, name, kind)
        started = time.perf_counter_ns()
        result = super().run_node(n)
        self.runs[-1][name] += (time.perf_counter_ns() - started) / 1e6
        return result

    def _count(self, n: fx.Node, name: str, kind: str) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        row, macs = self.layers.get(name, Layer(name, kind)), counter.get_total_flops() // 2
        held = sum(self.held.pop(str(arg.target), 0) for arg in n.all_input_nodes if arg.op == "get_attr")
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if isinstance(first, Tensor):
            values = first.numel() if macs else 0
            row = replace(row, output=tuple(first.shape[1:]), activations=row.activations + values)
        self.layers[name] = replace(row, params=row.params + held, macs=row.macs + macs)
        return result


def layer_of(node: fx.Node) -> tuple[str, str]:
    """Name and kind of the layer that a node belongs to; of what belongs to none the operator, once for all."""
    operator = str(node.target).split(".")[-2 if "." in str(node.target) else -1]
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, cls = stack[-1] if stack else ("", "")
    kind = str(getattr(cls, "__name__", cls)).rpartition(".")[2]
    return (path, kind) if path and _is_leaf(cls) else (f"{path} ({operator})".strip(), operator)


def _is_leaf(cls: Any) -> bool:
    """Whether a module's class is a layer of PyTorch's rather than what holds layers."""
    text = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
    return text.startswith("torch.nn.modules.") and not text.startswith("torch.nn.modules.container.")


def table(ours: Sequence[Layer], dense: Sequence[Layer] | None) -> str:
    """A row a layer and a total; beside the dense network's, speed-ups counted and measured, and what was removed."""
    theirs = {layer.name: layer for layer in dense or ()}
    ours = _joined(ours, theirs)
    whole = sum(layer.ms for layer in ours) or 1.0
    rows = [_row(layer, whole, theirs.get(layer.name) if dense else None) for layer in ours]
    names = {layer.name for layer in ours}
    rows += [_removed(layer) for layer in dense or () if layer.name not in names]
    rows.append(_row(_total(ours), whole, _total(dense) if dense else None))
    heads = ["layer", "kind", "output", "params", "MACs", "activations", "ms", "time"]
    if dense:
        heads += ["dense ms", "theoretical", "measured"]
    rows = [row[: len(heads)] for row in rows]
    aligned = ["left"] * 3 + ["right"] * (len(heads) - 3)
    text = tabulate(rows, heads, disable_numparse=True, colalign=aligned)
    return f"{text}\n\n{CAPTION}"


def _joined(ours: Sequence[Layer], dense: Mapping[str, Layer]) -> list[Layer]:
    """What came in a dense layer's place (a selection of channels and a convolution, say) as one layer of its name."""
    layers: dict[str, Layer] = {}
    for layer in ours:
        place = layer.name.removesuffix(f" ({layer.kind})")
        if place == layer.name or place not in dense:
            layers[layer.name] = layer
        elif place not in layers:
            layers[place] = replace(layer, name=place)
        else:
            before = layers[place]
            layers[place] = replace(
                _total((before, layer)), name=place, kind=f"{before.kind}, {layer.kind}", output=layer.output
            )
    return list(layers.values())


def _row(layer: Layer, whole: float, dense: Layer | None) -> list[str]:
    shape = " x ".join(str(size) for size in layer.output)
    counts = [f"{count:,}" if count else "" for count in (layer.params, layer.macs, layer.activations)]
    cells = [layer.name, layer.kind, shape, *counts, f"{layer.ms:.3f}", f"{100 * layer.ms / whole:.1f} %"]
    if dense is None:
        return [*cells, "", "", ""]
    return [*cells, f"{dense.ms:.3f}", _times(dense.macs, layer.macs), _times(dense.ms, layer.ms)]


def _removed(layer: Layer) -> list[str]:
    return [layer.name, layer.kind, "removed", *[""] * 5, f"{layer.ms:.3f}", "", ""]


def _times(above: float, below: float) -> str:
    return f"{above / below:.2f}x" if above and below else ""


def _total(layers: Sequence[Layer]) -> Layer:
    sums: Mapping[str, Any] = {
        name: sum(getattr(one, name) for one in layers) for name in ("params", "macs", "activations", "ms")
    }
    return Layer("total", "", **sums)
