"""Layers of stored networks: counts are the cost's, times are medians over runs, removed layers are named."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from conftest import fakes
from slimbench import artifact, cost, layers
from slimbench.cli import main
from slimbench.core import Record
from slimbench.layers import Layer


class Twice(nn.Module):
    """(N, 1, 6, 6) -> (N, 3): a convolution that runs twice, and a sum outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    def forward(self, x):
        return self.head(self.norm(self.conv(self.conv(x) + x)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two networks in a folder each."""
    folder = tmp_path_factory.mktemp("layers")
    artifact.save(Twice(), torch.zeros(1, 1, 6, 6), folder / "twice")
    for depth in (8, 14):
        task = fakes.Stripes(f"resnet{depth}")
        artifact.save(task.build(), task.example(), folder / f"resnet{depth}")
    return folder


def test_every_figure_by_hand(stored):
    """Counts of one input: all calls of a layer together; what belongs to no layer is named by its operator."""
    (rows,) = layers.measured(stored / "twice")
    assert [(r.name, r.kind, r.output, r.params, r.macs, r.activations) for r in rows] == [
        ("conv", "Conv2d", (1, 6, 6), 10, 2 * 9 * 36, 2 * 36),
        ("(add)", "add", (1, 6, 6), 0, 0, 0),
        ("norm", "BatchNorm2d", (1, 6, 6), 2, 0, 0),
        ("head.0", "Flatten", (36,), 0, 0, 0),
        ("head.1", "Linear", (3,), 111, 108, 3),
    ]
    assert all(row.ms > 0 for row in rows)


def test_layers_sum_to_the_count(stored):
    """Of the same network."""
    task = fakes.Stripes("resnet14")
    expected = cost.count(task.build(), task.example())
    (rows,) = layers.measured(stored / "resnet14")
    sums = [sum(getattr(row, name) for row in rows) for name in ("params", "macs", "activations")]
    assert sums == [expected.params, expected.macs, expected.activations]


def test_times_are_medians_of_runs_in_turns(stored, monkeypatch):
    """A clock on which a node of the n-th network takes n ms; calls of a layer add up, the threads come back."""
    clock, turns = iter(range(10**9)), []
    real = layers._Program.time
    monkeypatch.setattr(layers._Program, "time", lambda self: (turns.append(self), real(self)))
    monkeypatch.setattr(layers, "time", SimpleNamespace(perf_counter_ns=lambda: next(clock) * 1_000_000))
    before = torch.get_num_threads()
    one, other = layers.measured(stored / "twice", stored / "resnet8")
    assert {row.name: row.ms for row in one} == {"conv": 2.0, "(add)": 1.0, "norm": 1.0, "head.0": 1.0, "head.1": 1.0}
    assert other[0].ms == 1.0
    assert len(turns) == 2 * 33
    assert turns[0] is turns[2] is not turns[1]
    assert torch.get_num_threads() == before


OURS = [Layer("a", "Conv2d", (2, 4, 4), 10, 1000, 32, 1.0), Layer("(add)", "add", (2, 4, 4), ms=1.0)]
DENSE = [Layer("a", "Conv2d", (4, 4, 4), 20, 3000, 64, 2.0), Layer("b", "Conv2d", (4, 4, 4), 20, 1000, 64, 4.0)]


def cells(text):
    """Rows by layer."""
    lines = text.splitlines()
    edges = [len(run) for run in lines[1].split("  ")]
    rows = {}
    for line in [lines[0], *lines[2:]]:
        start, row = 0, []
        for width in edges:
            row.append(line[start : start + width].strip())
            start += width + 2
        rows[row[0]] = row[1:]
    return rows


def test_the_table_beside_the_dense_network():
    """Theoretical and measured speed-up a layer and in total; removed layers at the end."""
    rows = cells(layers.table(OURS, DENSE))
    assert rows["a"] == ["Conv2d", "2 x 4 x 4", "10", "1,000", "32", "1.000", "50.0 %", "2.000", "3.00x", "2.00x"]
    assert rows["(add)"] == ["add", "2 x 4 x 4", "", "", "", "1.000", "50.0 %", "", "", ""]
    assert rows["b"] == ["Conv2d", "removed", "", "", "", "", "", "4.000", "", ""]
    assert rows["total"] == ["", "", "10", "1,000", "32", "2.000", "100.0 %", "6.000", "4.00x", "3.00x"]
    assert "batch norm not folded" in layers.table(OURS, DENSE)


def test_what_came_in_a_layers_place_stands_beside_it():
    """A selection of channels before a convolution: one row, not a layer removed and two that came from nowhere."""
    parts = [
        Layer("b (index_select)", "index_select", (2, 4, 4), ms=0.5),
        replace(OURS[0], name="b (conv2d)", kind="conv2d"),
    ]
    rows = cells(layers.table([*OURS, *parts], DENSE))
    assert rows["b"] == [
        *("index_select, conv2d", "2 x 4 x 4", "10", "1,000", "32"),
        *("1.500", "42.9 %", "4.000", "1.00x", "2.67x"),
    ]
    assert list(rows)[:5] == ["layer", "a", "(add)", "b", "total"]


def test_the_table_of_the_dense_network_itself():
    """Nothing to compare with."""
    rows = cells(layers.table(OURS, None))
    assert rows["layer"] == ["kind", "output", "params", "MACs", "activations", "ms", "time"]
    assert rows["total"][2:4] == ["10", "1,000"]


def test_bench_show_layers(stored, store, monkeypatch):
    """Beside the dense network that the cell started from; without a network it says so."""
    for name, reference in (("resnet14", ""), ("resnet8", "resnet14"), ("gone", "")):
        store.put(Record(name, name, {}, "ok", artifact="some", reference=reference))
        if name != "gone":
            store.artifact(name).symlink_to(stored / name)

    def show(*args):
        return CliRunner().invoke(main, ["show", *args, "--layers", "--store", str(store.root)])

    assert "removed" in show("resnet8").stdout
    assert "theoretical" not in show("resnet14").stdout.splitlines()[0]
    assert '"name": "conv1", "kind": "Conv2d"' in show("resnet8", "--json").stdout
    refused = show("gone")
    assert refused.exit_code == 2
    assert f"bench: The network of gone is not in {store.root}, which may hold records alone: the" in refused.stderr
