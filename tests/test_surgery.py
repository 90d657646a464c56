"""Channels are removed exactly: from every network, at the asked budget, and what is left computes what was masked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conftest import fakes
from slimbench.core import Budget, UserError
from slimbench.cost import count
from slimbench.methods import _choice, _surgery
from slimbench.methods._choice import How
from slimbench.tasks import _networks
from slimbench.tasks._networks.shortcut import PaddedShortcut

NETWORKS = [
    ("resnet8", 3, 32),
    ("resnet20", 3, 32),
    ("resnet20-b", 3, 32),
    ("resnet56", 3, 32),
    ("vgg16-bn", 3, 32),
    ("mobilenetv2", 3, 32),
    ("lenet5", 1, 28),
    ("imagenet-resnet18", 3, 64),
    ("imagenet-resnet50", 3, 64),
    ("imagenet-mobilenetv2", 3, 64),
]


def network(name: str, channels: int, size: int) -> tuple[nn.Module, torch.Tensor]:
    """The network in float64 with batch norms that do something, and an input."""
    torch.manual_seed(0)
    model = _networks.build(name, channels, 10, size).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model, torch.randn(1, channels, size, size, dtype=torch.float64)


def gap(one: nn.Module, two: nn.Module, shape: tuple[int, ...]) -> float:
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        a, b = one(inputs), two(inputs)
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize(("name", "channels", "size"), NETWORKS)
@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_removed_equals_masked_and_meets_the_budget(name, channels, size, ranking):
    """On every network: the same outputs, the ledger's count, the asked share of MACs."""
    model, example = network(name, channels, size)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.5), how=How(ranking))
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    assert gap(masked, smaller, tuple(example.shape[1:])) < 1e-10

    dense, cost = count(model, example), count(smaller, example)
    assert cost.macs / dense.macs == pytest.approx(0.5, rel=0.01)
    ledger = _choice.Ledger(model, example, every)
    for index, channels_gone in enumerate(removed):
        ledger.change(index, sorted(channels_gone), -1)
    assert (ledger.left("macs"), ledger.left("params")) == (cost.macs, cost.params)


@pytest.mark.parametrize("name", ["resnet32", "resnet44-b", "resnet110"])
def test_removed_equals_masked_on_the_deeper_ones(name):
    """The rest of the zoo, once."""
    test_removed_equals_masked_and_meets_the_budget(name, 3, 16, "layer")


@pytest.mark.parametrize("resource", ["macs", "params", "prunable_nonzero"])
@pytest.mark.parametrize("keep", [0.8, 0.3, 0.12])
def test_each_resource_is_met(resource, keep):
    """Within one percent of what was asked."""
    model, example = network("resnet20", 3, 32)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(keep, resource), how=How())
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    assert count(smaller, example).of(resource) / count(model, example).of(resource) == pytest.approx(keep, rel=0.01)


def test_lowest_scores_go_first():
    """Where one width alone must give, its lowest channels are those that go."""
    model, example = network("lenet5", 1, 28)
    every = _surgery.widths(model, example)
    scores = [torch.full((w.channels,), 100.0) for w in every]
    scores[2] = torch.arange(500, dtype=torch.float64).flip(0)  # fc1: channel 499 is the lowest
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.9, "params"), how=How("global"))
    lowest = sorted(removed[2], reverse=True)
    assert lowest
    assert lowest == list(range(499, 499 - len(lowest), -1))


def test_round_to_leaves_multiples():
    """Widths stay multiples of eight, and the budget is as near as blocks of eight allow."""
    model, example = network("resnet20", 3, 32)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.5), how=How("layer", 8))
    left = [width.channels - len(gone) for width, gone in zip(every, removed, strict=True)]
    assert all(count % 8 == 0 and count > 0 for count in left)
    assert any(removed)


def test_no_width_is_emptied():
    """The least that can be reached leaves a channel everywhere, and less is refused with that figure."""
    model, example = network("resnet8", 1, 8)
    least = _choice.reachable(model, example, "macs")
    assert 0 < least < 0.05
    assert _choice.why_not(model, example, Budget(least * 1.01)) is None
    assert f"{least:.4f}" in _choice.why_not(model, example, Budget(least * 0.9))


def test_outputs_are_no_width():
    """The classifier's classes stay; every other convolution and linear layer can give."""
    model, example = network("vgg16-bn", 3, 32)
    makers = {maker.layer for width in _surgery.widths(model, example) for maker in width.makers}
    assert "classifier" not in makers
    assert sum(isinstance(model.get_submodule(name), nn.Conv2d) for name in makers) == 13


def test_coupled_widths_of_a_residual_stage_are_one():
    """ResNet-20: the stem and the last convolutions of stage 1 share one width; nine inner widths are free."""
    model, example = network("resnet20", 3, 32)
    every = _surgery.widths(model, example)
    assert len(every) == 12
    convs = {m.layer for m in every[0].makers if "conv" in m.layer}
    assert convs == {"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"}


def test_padded_shortcut_follows_both_sides():
    """Removing inputs leaves zeros where they were copied to; removing outputs shortens the map."""
    shortcut = PaddedShortcut(4, 8, 2)
    assert shortcut.source == [-1, -1, 0, 1, 2, 3, -1, -1]
    _surgery._shrink_map(shortcut, "in", {1})
    assert shortcut.source == [-1, -1, 0, -1, 1, 2, -1, -1]
    _surgery._shrink_map(shortcut, "out", {0, 4})
    assert shortcut.source == [-1, 0, -1, 2, -1, -1]
    x = torch.randn(1, 3, 4, 4)
    expected = torch.zeros(1, 6, 2, 2)
    expected[:, 1], expected[:, 3] = x[:, 0, ::2, ::2], x[:, 2, ::2, ::2]
    assert torch.equal(shortcut(x), expected)


def test_a_planted_fault_in_the_map_is_caught():
    """The masked-equals-removed test fails when the shortcut's map is off by one."""
    model, example = network("resnet8", 3, 32)
    every = _surgery.widths(model, example)
    removed = [{0, 5} for _ in every]
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    assert gap(masked, smaller, (3, 32, 32)) < 1e-10
    for module in smaller.modules():
        if isinstance(module, PaddedShortcut):
            module.set_map([*module.source[1:], module.source[0]], module.width_in)
    assert gap(masked, smaller, (3, 32, 32)) > 1e-3


def test_a_layer_that_surgery_does_not_know_is_named():
    """Rather than silently cut wrong."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            return self.b(self.act(self.a(x)))

    with pytest.raises(ValueError, match=r"'act' \(GroupNorm\)"):
        _surgery.widths(Odd(), torch.randn(1, 1, 8, 8))


def test_grouped_convolutions_keep_their_channels():
    """Neither their inputs nor their outputs may go; the rest may."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1))
    every = _surgery.widths(model, torch.randn(1, 3, 12, 12))
    assert [width.name for width in every] == ["2"]


def test_nonsense_orders_are_refused():
    """An unknown ranking and blocks of nothing."""
    with pytest.raises(UserError, match="at least 1"):
        How(round_to=0)
    with pytest.raises(UserError, match="use layer or global"):
        How("global-ish")


@pytest.mark.data
def test_published_option_a_network_is_cut_exactly(real_data):
    """The stem and stage channels of the published ResNet-20, which a tracer alone maps to the wrong places."""
    from slimbench.tasks.cifar import CIFAR10

    task = CIFAR10(weights="akamaster")
    model = task.build()
    task.load_published(model)
    model = model.double().eval()
    every = _surgery.widths(model, task.example().double())
    removed = [{0, 3, 5, 7} if len(width.makers) > 2 else set() for width in every]
    assert sum(map(bool, removed)) == 3
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    assert gap(masked, smaller, (3, 32, 32)) < 1e-10
    assert gap(model, smaller, (3, 32, 32)) > 1e-3


def test_magnitude_finds_the_smallest_filter():
    """A filter that was made small is the first to go."""
    from slimbench.methods import _channels

    model = fakes.Stripes().build()
    every = _surgery.widths(model, fakes.Stripes().example())
    inner = next(width for width in every if width.name == "layer1.0.conv1")
    with torch.no_grad():
        model.layer1[0].conv1.weight[3] *= 1e-3
    assert int(_channels.mean_magnitude(model, inner).argmin()) == 3
