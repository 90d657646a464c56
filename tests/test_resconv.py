"""Residual convolutions: converting changes nothing, fusing changes nothing, and whole layers go."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conftest import fakes
from slimbench.core import Budget
from slimbench.cost import count
from slimbench.methods import _fusible
from slimbench.methods.resconv import ResConv
from test_surgery import gap, network


@pytest.mark.parametrize("name", ["resnet20", "resnet20-b", "resnet56", "vgg16-bn", "mobilenetv2", "imagenet-resnet18"])
def test_conversion_calibration_and_fusing_change_nothing(name):
    """The dense network, the converted, the calibrated and the fused one put out the same."""
    size = 64 if name.startswith("imagenet") else 32
    model, example = network(name, 3, size)
    converted = copy.deepcopy(model)
    layers = _fusible.install(converted, _fusible.sites(converted))
    converted.double()
    shape = (3, size, size)
    assert gap(model, converted, shape) < 1e-10
    shortcuts = [layer for layer in layers.values() if not layer.closes_branch]
    inputs = torch.randn(8, *shape, dtype=torch.float64)
    _fusible.calibrate(converted, shortcuts, [(inputs, inputs)])
    assert gap(model, converted, shape) < 1e-10
    for layer in layers.values():
        nn.init.uniform_(layer.scale, 0.2, 1.0)
        nn.init.uniform_(layer.alpha, 0.0, 1.0) if not layer.closes_branch else None
    fused = _fusible.fuse(copy.deepcopy(converted))
    assert gap(converted, fused, shape) < 1e-10
    assert not any(isinstance(module, _fusible.ResConv) for module in fused.modules())
    assert count(fused, example).macs == count(model, example).macs


def test_eligible_layers():
    """ResNet-56: 52 of its 54 block convolutions; VGG-16: nine of thirteen; MobileNetV2: unstrided depthwise ones."""
    from slimbench.tasks import _networks

    assert len(_fusible.sites(_networks.build("resnet56", 3, 10, 32))) == 52
    vgg = _fusible.sites(_networks.build("vgg16-bn", 3, 10, 32))
    assert len(vgg) == 9
    assert not any(site.closes_branch for site in vgg)
    mobile = _networks.build("mobilenetv2", 3, 10, 32)
    convs = [mobile.get_submodule(site.conv) for site in _fusible.sites(mobile)]
    assert convs
    assert all(conv.stride == (1, 1) and conv.in_channels == conv.out_channels for conv in convs)


def test_calibration_gives_the_statistics_of_the_data():
    """The running mean and variance become those of the convolution's output."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    layer = _fusible.ResConv(conv, norm, closes_branch=False)
    x = torch.randn(16, 4, 8, 8)
    _fusible.calibrate(layer, [layer], [(x[:10], x), (x[10:], x)])
    with torch.no_grad():
        z = layer.conv(x)
    torch.testing.assert_close(norm.running_mean, z.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, z.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-5)


def test_a_layer_with_scale_zero_goes_without_a_trace():
    """Inner: what is left multiplies by alpha. Closing: its branch adds nothing, and its convolutions are gone."""
    model, example = network("resnet20", 3, 32)
    sites = _fusible.sites(model)
    layers = _fusible.install(model, sites)
    model.double()
    inner = next(site for site in sites if site.conv == "layer1.1.conv1")
    closing = next(site for site in sites if site.conv == "layer2.1.conv2")
    assert closing.closes_branch
    assert "layer2.1.conv1" in closing.branch
    with torch.no_grad():
        layers[inner.conv].scale.zero_()
        layers[closing.conv].scale.zero_()
    before, dense = copy.deepcopy(model), count(model, example).macs
    _fusible.drop(model, inner)
    _fusible.drop(model, closing)
    assert gap(before, model, (3, 32, 32)) < 1e-10
    assert count(model, example).macs == dense - 3 * 2_359_296
    assert gap(model, _fusible.fuse(copy.deepcopy(model)), (3, 32, 32)) < 1e-10


@pytest.mark.parametrize(
    ("name", "size"), [("imagenet-resnet18", 64), ("resnet14", 32), ("resnet20-b", 32), ("resnet56", 30)]
)
def test_every_branch_can_go(name, size):
    """Whatever adds it, in place or not, and whatever shape it changes: what is left runs, and only shortcuts add."""
    model, example = network(name, 3, size)
    sites = _fusible.sites(model)
    _fusible.install(model, sites)
    for site in sites:
        if site.closes_branch:
            _fusible.drop(model, site)
    assert model.double()(example).shape == (1, 10)


def test_gain_is_frozen_and_scalars_do_not_decay():
    """Else the penalty on the scale would be escaped, and decay would remove layers by itself."""
    from slimbench.methods.resconv import _groups
    from slimbench.tasks import _networks

    model, _ = network("resnet8", 3, 32)
    layers = _fusible.install(model, _fusible.sites(model))
    _fusible.drop(
        model, next(site for site in _fusible.sites(_networks.build("resnet8", 3, 10, 32)) if not site.closes_branch)
    )
    rest, scalars = _groups(model)
    assert scalars["weight_decay"] == 0.0
    left = [layer for layer in model.modules() if isinstance(layer, _fusible.ResConv)]
    scales = {id(layer.scale) for layer in left} | {
        id(m.alpha) for m in model.modules() if isinstance(m, _fusible.Scale)
    }
    assert len(left) == len(layers) - 1
    assert {id(p) for p in scalars["params"]} >= scales
    assert not any(layer.norm.weight.requires_grad for layer in layers.values())
    assert not {id(p) for p in rest["params"]} & {id(p) for p in scalars["params"]}


def test_networks_without_eligible_layers_are_unsupported():
    """LeNet-5 has no batch norm; budgets below what removing every layer leaves are refused with that figure."""
    from slimbench.tasks.mnist import MNIST

    assert "no convolution with batch norm" in ResConv().unsupported(MNIST(), Budget(0.5, epochs=1))
    assert "below the least that removing layers leaves" in ResConv().unsupported(
        fakes.Stripes(), Budget(0.01, epochs=1)
    )
    assert "no epochs" in ResConv().unsupported(fakes.Stripes(), Budget(0.6))
    assert ResConv().unsupported(fakes.Stripes(), Budget(0.6, epochs=1)) is None


def test_the_penalty_makes_exact_zeros():
    """A penalty far above the gradient drives every scale to 0.0 exactly, none below."""
    from slimbench import seeding
    from slimbench.core import Settings
    from slimbench.train import Loop

    task = fakes.Stripes("resnet14")
    with seeding.seeded(0):
        trainer = Loop(task, 0, Settings(), 4.0)
        ResConv(shrink=50.0).compress(task.build(), task, Budget(0.5, epochs=4), trainer)
    assert set(trainer.notes["scales"].values()) == {0.0}
    assert all(alpha >= 0 for alpha in trainer.notes["alphas"].values())
    assert trainer.notes["removed layers"]
