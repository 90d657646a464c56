"""Faults of libraries that the engine goes around: each with the fault, and with the work that it must not change."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from conftest import fakes
from slimbench import workarounds
from slimbench.compress import compress
from slimbench.core import Budget, Cell
from slimbench.methods.dense import Dense
from slimbench.store import Store
from slimbench.workarounds import strided_gradients

if TYPE_CHECKING:
    from pathlib import Path

NARROW = """
import torch
from slimbench.workarounds import strided_gradients

torch.set_num_threads(1)
with strided_gradients():
    for size in (8, 16, 32):
        for ins in range(1, 8):
            layer = torch.nn.Conv2d(ins, 8, 1, stride=2).to(memory_format=torch.channels_last)
            for _ in range(12):
                x = torch.randn(32, ins, size, size).to(memory_format=torch.channels_last).requires_grad_()
                layer(x).square().sum().backward()
print("fine")
"""


def test_gradients_of_narrow_strided_convolutions_stay_in_their_memory():
    """Without the crop, a process with AVX2 dies in its first sizes."""
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() == "fine"


@pytest.mark.parametrize(("size", "stride", "read"), [(8, 2, 7), (9, 2, 9), (8, 3, 7), (5, 4, 5)])
def test_the_crop_changes_neither_outputs_nor_gradients(size, stride, read):
    """Only pixels behind the last one that is read are left out; their gradient is zero, as it was."""
    torch.manual_seed(0)
    layer, seen = nn.Conv2d(3, 4, 1, stride=stride).double(), []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-1]))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    found = []
    for crops in (False, True):
        inputs = x.clone().requires_grad_()
        if crops:
            with strided_gradients():
                outputs = layer(inputs)
        else:
            outputs = layer(inputs)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs)
        found.append((outputs, gradient))
    assert seen == [size, read]
    for plain, cropped in zip(*found, strict=True):
        torch.testing.assert_close(cropped, plain)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(8, 4, 1, stride=2), nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, 2, padding=1)],
    ids=["wide", "3x3", "unstrided", "padded"],
)
def test_other_layers_see_what_they_saw(layer):
    """Those that the fault does not concern."""
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-1]))
    with strided_gradients():
        layer(torch.randn(1, layer.in_channels, 8, 8))
    assert seen == [8]


def test_methods_work_inside_and_nothing_stays_behind(tmp_path: Path, monkeypatch):
    """Every convolution that a method runs is looked at; afterwards none is."""
    looked = []
    monkeypatch.setattr(workarounds, "_crop", lambda module, args: looked.append(type(module)))
    cell = Cell(fakes.Stripes(), Dense(), Budget(1.0), 0)
    assert compress(cell, Store(tmp_path)).status == "ok"
    assert nn.Conv2d in looked
    looked.clear()
    nn.Conv2d(3, 4, 1)(torch.randn(1, 3, 4, 4))
    assert not looked
