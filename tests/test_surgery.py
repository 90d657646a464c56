"""Channels are removed exactly: from every network, at the asked budget, and what is left computes what was masked."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes
from slimbench.core import Budget, UserError
from slimbench.cost import count
from slimbench.methods import _channels, _choice, _surgery
from slimbench.methods._choice import How
from slimbench.tasks._networks import super_resolution
from slimbench.tasks._networks.shortcut import PaddedShortcut
from zoo import gap, network, relative

NETWORKS = [
    ("resnet8", 3, 32),
    ("resnet20", 3, 32),
    ("resnet20-b", 3, 32),
    ("resnet56", 3, 32),
    ("vgg16-bn", 3, 32),
    ("vgg16-relu-bn-fc", 3, 32),
    ("mobilenetv2", 3, 32),
    ("lenet5", 1, 28),
    ("imagenet-resnet18", 3, 64),
    ("imagenet-resnet50", 3, 64),
    ("imagenet-mobilenetv2", 3, 64),
]


@pytest.mark.parametrize(("name", "channels", "size"), NETWORKS)
@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_removed_equals_masked_and_meets_the_budget(name, channels, size, ranking):
    """On every network: the same outputs, the ledger's count, the asked share of MACs."""
    model, example = network(f"{name} {channels} {size}")
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
    model, example = network("resnet20 3 32")
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(keep, resource), how=How())
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    assert count(smaller, example).of(resource) / count(model, example).of(resource) == pytest.approx(keep, rel=0.01)


def test_coarse_steps_are_traded_only_where_the_budget_would_be_missed(monkeypatch):
    """A step of EDSR-tiny is up to 2 % of its MACs: by itself too coarse for 1 % of a quarter of them."""
    model, example = super_resolution.build("edsr-tiny", 2), torch.randn(1, 3, 15, 16)
    every = [width for width in _surgery.widths(model, example) if len(width.members) == 2]
    traded = []
    real = _choice._trade
    monkeypatch.setattr(_choice, "_trade", lambda *args: (traded.append(seed), real(*args)))

    def kept(seed):
        scores = [torch.rand(width.channels, generator=seeded) for width in every]
        removed = _choice.choose(model, example, every, scores, budget=Budget(0.25), how=How("as scored"))
        ledger = _choice.Ledger(model, example, every)
        whole = ledger.left("macs")
        for index, channels in enumerate(removed):
            ledger.change(index, sorted(channels), -1)
        return ledger.left("macs") / whole

    for seed in range(12):
        seeded = torch.Generator().manual_seed(seed)
        assert kept(seed) == pytest.approx(0.25, rel=0.01)
    assert 0 < len(traded) < 12


def test_lowest_scores_go_first():
    """Where one width alone must give, its lowest channels are those that go."""
    model, example = network("lenet5 1 28")
    every = _surgery.widths(model, example)
    scores = [torch.full((w.channels,), 100.0) for w in every]
    scores[2] = torch.arange(500, dtype=torch.float64).flip(0)  # fc1: channel 499 is the lowest
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.9, "params"), how=How("global"))
    lowest = sorted(removed[2], reverse=True)
    assert lowest
    assert lowest == list(range(499, 499 - len(lowest), -1))


def test_round_to_leaves_multiples():
    """Widths stay multiples of eight, and the budget is as near as blocks of eight allow."""
    model, example = network("resnet20 3 32")
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.5), how=How("layer", 8))
    left = [width.channels - len(gone) for width, gone in zip(every, removed, strict=True)]
    assert all(count % 8 == 0 and count > 0 for count in left)
    assert any(removed)


def test_no_width_is_emptied():
    """The least that can be reached leaves a channel everywhere, and less is refused with that figure."""
    model, example = network("resnet8 1 8")
    least = _choice.reachable(model, example, _surgery.widths(model, example), "macs")
    assert 0 < least < 0.05
    assert _choice.why_not(model, example, Budget(least * 1.01)) is None
    assert f"{least:.4f}" in _choice.why_not(model, example, Budget(least * 0.9))


def test_outputs_are_no_width():
    """The classifier's classes stay; every other convolution and linear layer can give."""
    model, example = network("vgg16-bn 3 32")
    makers = {maker.layer for width in _surgery.widths(model, example) for maker in width.makers}
    assert "classifier" not in makers
    assert sum(isinstance(model.get_submodule(name), nn.Conv2d) for name in makers) == 13


def test_coupled_widths_of_a_residual_stage_are_one():
    """ResNet-20: the stem and the last convolutions of stage 1 share one width; nine inner widths are free."""
    model, example = network("resnet20 3 32")
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
    model, example = network("resnet8 3 32")
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


# ------------------------------------------------------------- what segmentation and super resolution bring

PIXELS = (1, 3, 12, 12)


class Net(nn.Module):
    """Named layers, and a function that calls them: ``function(net, x)``."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def conv(ins: int, outs: int, size: int = 3, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, size, padding=kwargs.pop("padding", size // 2), **kwargs)


def normed(ins: int, outs: int) -> nn.Sequential:
    """Convolution and a batch norm that does something."""
    norm = nn.BatchNorm2d(outs)
    for value in (norm.weight, norm.running_var):
        nn.init.uniform_(value, 0.5, 1.5)
    for value in (norm.bias, norm.running_mean):
        nn.init.normal_(value)
    return nn.Sequential(conv(ins, outs), norm)


def names(net: nn.Module) -> list[str]:
    return [width.name for width in _surgery.widths(net, torch.randn(PIXELS))]


def cut(net: nn.Module, keep: float = 0.5) -> nn.Module:
    """Masked and removed by random scores: equal outputs, and the ledger's count. The smaller network comes back."""
    torch.manual_seed(1)
    net, example = net.double().eval(), torch.randn(PIXELS, dtype=torch.float64)
    every = _surgery.widths(net, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(net, example, every, scores, budget=Budget(keep), how=How())
    assert all(removed)
    masked = _surgery.mask(copy.deepcopy(net), every, removed)
    smaller = _surgery.remove(copy.deepcopy(net), every, removed)
    assert gap(masked, smaller, PIXELS[1:]) < 1e-10
    assert gap(net, smaller, PIXELS[1:]) > 1e-3
    ledger, cost = _choice.Ledger(net, example, every), count(smaller, example)
    for index, gone in enumerate(removed):
        ledger.change(index, sorted(gone), -1)
    for resource in ("macs", "params", "prunable_nonzero"):
        assert ledger.left(resource) == cost.of(resource)
    return smaller


def upsampler(shuffles: int) -> Net:
    """EDSR for scale 4: residual blocks, a long skip, two shuffles, which may be one module."""

    def forward(net, x):
        x = net.head(x)
        y = x + net.b(net.a(x).relu())
        x = x + net.body(y + 0.1 * net.d(net.c(y).relu()))
        return net.last(net.shuffles[-1](net.up2(net.shuffles[0](net.up1(x)))))

    blocks = {name: conv(8, 8) for name in ("a", "b", "c", "d", "body")}
    ups = {name: conv(8, 32) for name in ("up1", "up2")}
    shuffle = nn.ModuleList(nn.PixelShuffle(2) for _ in range(shuffles))
    return Net(forward, head=conv(3, 8), **blocks, **ups, shuffles=shuffle, last=conv(8, 3))


@pytest.mark.parametrize("shuffles", [1, 2])
def test_channels_go_through_pixel_shuffles(shuffles):
    """Four filters make a channel; each shuffle, though it be one module, has a width of its own."""
    net = upsampler(shuffles)
    every = _surgery.widths(net, torch.randn(PIXELS))
    assert [(w.name, w.channels) for w in every] == [(n, 8) for n in ("head", "a", "c", "up1", "up2")]
    assert {(m.layer, m.side, m.indices[1]) for m in every[3].members} == {
        ("up1", "out", (4, 5, 6, 7)),
        ("up2", "in", (1,)),
    }
    cut(net)


def test_a_shuffle_by_three_and_its_inverse():
    """Nine channels become one, and one becomes nine."""
    net = Net(
        lambda net, x: net.c(net.shuffle(net.b(net.unshuffle(net.a(x))))),
        a=conv(3, 5), unshuffle=nn.PixelUnshuffle(3), b=conv(45, 54), shuffle=nn.PixelShuffle(3), c=conv(6, 3),
    )  # fmt: skip
    first, second = _surgery.widths(net, torch.randn(PIXELS))
    assert [(w.name, w.channels) for w in (first, second)] == [("a", 5), ("b", 6)]
    assert {m.layer: m.indices[2] for m in first.members} == {"a": (2,), "b": tuple(range(18, 27))}
    assert {m.layer: m.indices[2] for m in second.members} == {"b": tuple(range(18, 27)), "c": (2,)}
    cut(net)


def test_a_shuffle_that_ends_the_network_keeps_its_channels():
    """They are the image's."""
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12), nn.PixelShuffle(2))
    assert names(net) == ["0"]
    cut(net)


def test_a_shuffle_that_no_layer_shows_keeps_its_channels():
    """A function's channel map is not asked for, and so its channels stay."""
    net = Net(lambda net, x: net.c(F.pixel_shuffle(net.b(net.a(x)), 2)), a=conv(3, 4), b=conv(4, 8), c=conv(2, 3))
    assert names(net) == ["a"]
    cut(net)


def test_transposed_convolutions():
    """Their filters are the second dimension; depthwise ones pass channels on."""
    net = nn.Sequential(
        normed(3, 6),
        nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(8),
        nn.ConvTranspose2d(8, 8, 4, stride=2, groups=8),
        conv(8, 4),
        nn.ConvTranspose2d(4, 2, 2, stride=2),
    )
    assert [w.channels for w in _surgery.widths(net, torch.randn(PIXELS))] == [6, 8, 4]
    layers = list(cut(net))
    assert layers[1].weight.shape[1] == layers[1].out_channels == layers[3].weight.shape[0] < 8


def test_skips_dilation_and_upsampling():
    """A small U-Net over a pyramid: concatenations, dilated branches, pooled ones, sums of branches."""

    def forward(net, x):
        shallow = net.enter(x).relu()
        deep = net.down(F.max_pool2d(shallow, 2)).relu()
        pooled = F.interpolate(net.pooled(F.adaptive_avg_pool2d(deep, 2)), deep.shape[2:], mode="bilinear")
        deep = net.fuse(torch.cat([deep, net.dilated(deep) + net.other(deep), pooled], 1))
        return net.leave(torch.cat([shallow, net.up(deep)], 1))

    branches = {"dilated": conv(8, 6, dilation=2, padding=2), "other": normed(8, 6), "pooled": conv(8, 4, 1)}
    up = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), normed(7, 5))
    net = Net(forward, enter=normed(3, 6), down=normed(6, 8), **branches, fuse=conv(18, 7), up=up, leave=conv(11, 3))
    assert names(net) == ["enter.0", "down.0", "dilated", "pooled", "fuse", "up.1.0"]
    cut(net)


def test_a_sum_with_a_concatenation():
    """One width of ten channels, of which the two parts make four and six."""
    net = Net(
        lambda net, x: net.d(torch.cat([net.a(x), net.b(x)], 1) + net.c(x)),
        a=conv(3, 4), b=conv(3, 6), c=conv(3, 10), d=conv(10, 3),
    )  # fmt: skip
    (width,) = _surgery.widths(net, torch.randn(PIXELS))
    assert width.channels == 10
    means = {name: net.get_submodule(name).weight.abs().mean((1, 2, 3)) for name in "abc"}
    expected = (torch.cat([means["a"], means["b"]]) + means["c"]) / 2
    torch.testing.assert_close(_channels.mean_magnitude(net, width), expected)
    cut(net)


def test_long_chains_before_a_concatenation():
    """Six hundred operators on the way, more than torch-pruning would look behind."""

    def forward(net, x):
        x = net.a(x)
        y = net.b(x)
        for _ in range(600):
            y = y + 0.001
        return net.c(torch.cat([y, x], 1))

    net = Net(forward, a=conv(3, 4), b=conv(4, 5), c=conv(9, 3))
    shallow, deep = _surgery.widths(net, torch.randn(PIXELS))
    assert {member.layer: member.indices[1] for member in shallow.members} == {"a": (1,), "b": (1,), "c": (6,)}
    assert {member.layer: member.indices[1] for member in deep.members} == {"b": (1,), "c": (1,)}


def test_frozen_layers_keep_their_channels():
    """The image's mean is subtracted and added again by convolutions that nobody trains, in the ledger too."""

    def shift():
        return nn.Conv2d(3, 3, 1).requires_grad_(False)

    net = nn.Sequential(shift(), conv(3, 8), conv(8, 3), shift())
    assert names(net) == ["1"]
    smaller = cut(net)
    assert smaller[0].weight.shape == smaller[3].weight.shape == (3, 3, 1, 1)


def test_frozen_layers_inside_keep_their_channels():
    """On both of their sides."""
    frozen = conv(6, 8).requires_grad_(False)
    net = nn.Sequential(conv(3, 4), conv(4, 6), frozen, conv(8, 5), conv(5, 3))
    assert names(net) == ["0", "3"]
    cut(net)


@pytest.mark.parametrize(
    ("forward", "more"),
    [
        (lambda net, x: x + net.b(net.a(x)), ""),
        (lambda net, x: net.c(x + net.b(net.a(x))), "c"),
        (lambda net, x: net.e(torch.cat([x, net.b(net.a(x))], 1) + net.d(x)), "de"),
        (lambda net, x: F.interpolate(x, scale_factor=2) + net.b(F.interpolate(net.a(x), scale_factor=2)), ""),
    ],
    ids=["residual", "residual that is read", "concatenated and summed", "enlarged"],
)
def test_channels_of_the_image_stay(forward, more):
    """Whatever is summed with the image keeps its three channels, whoever reads them."""
    sides = {"a": (3, 8), "b": (8, 3), "c": (3, 3), "d": (3, 6), "e": (6, 3)}
    net = Net(forward, **{name: conv(*sides[name]) for name in "ab" + more})
    assert "b" not in names(net)
    assert "d" not in names(net)
    cut(net)


def test_an_output_that_a_head_reads_keeps_its_channels():
    """Both outputs are the network's."""
    net = Net(lambda net, x: (y := net.b(net.a(x)), net.c(y)), a=conv(3, 8), b=conv(8, 4), c=conv(4, 2))
    assert names(net) == ["a"]


def auxiliary(rate: float = 0.0) -> Net:
    """Logits, and in training the logits of a head on shallow features as well."""

    def forward(net, x):
        shallow = F.dropout(net.a(x), rate, net.training).relu()
        logits = net.head(net.b(shallow).relu())
        return (logits, net.side(shallow)) if net.training else logits

    side = nn.Sequential(normed(8, 6), nn.Dropout(0.5), conv(6, 5))
    return Net(forward, a=normed(3, 8), b=normed(8, 7), head=conv(7, 5), side=side).eval()


def test_auxiliary_heads_shrink_with_what_they_read():
    """Both modes work and compute what the masked network does; the head's own widths are no business of a budget."""
    net = auxiliary().double()
    every = _surgery.widths(net, torch.randn(PIXELS))
    assert [width.name for width in every] == ["a.0", "b.0"]
    removed = [{1, 5}, {0, 2, 6}]
    masked = _surgery.mask(copy.deepcopy(net), every, removed)
    smaller = _surgery.remove(copy.deepcopy(net), every, removed)
    assert gap(masked, smaller, PIXELS[1:]) < 1e-10
    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    for training in (masked, smaller):
        training.training = True  # the container alone: no batch statistics, no dropout
    with torch.no_grad():
        for one, two in zip(masked(x), smaller(x), strict=True):
            assert relative(two, one) < 1e-10
    assert [y.shape[1] for y in smaller.train()(x)] == [5, 5]
    assert smaller.side[0][0].weight.shape[:2] == (6, 6)
    example = torch.randn(PIXELS, dtype=torch.float64)
    ledger = _choice.Ledger(net, example, every)
    for index, gone in enumerate(removed):
        ledger.change(index, sorted(gone), -1)
    deployed = Net(lambda net, x: net.head(net.b(net.a(x))), a=smaller.a, b=smaller.b, head=smaller.head)
    assert ledger.left("params") == count(deployed, example).params


def test_looking_at_widths_changes_nothing():
    """Neither the modes, though training's heads are seen, nor the caller's random numbers, nor what is frozen."""
    net, shuffled = auxiliary(rate=0.5), upsampler(2)
    net.side.train()
    net.b.requires_grad_(False)
    modes, state = [m.training for m in net.modules()], torch.get_rng_state()
    _surgery.widths(net, torch.zeros(PIXELS))
    _surgery.widths(shuffled, torch.zeros(PIXELS))
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in net.b.parameters()] == [False] * 4
    assert isinstance(shuffled.shuffles[0], nn.PixelShuffle)


def test_gates_go_with_what_they_multiply():
    """An attention of one value a channel has its channels; one of one value a pixel stays, and what it multiplies."""

    def forward(net, x):
        x = net.a(x)
        x = x * net.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        y = net.b(x)
        esa = F.interpolate(net.small(F.max_pool2d(y, 3)), y.shape[2:], mode="bilinear")
        z = net.c(y * net.back(esa).sigmoid())
        return net.d(z * net.pixels(z).sigmoid())

    inner = {"gate": conv(8, 8, 1), "small": conv(6, 4), "back": conv(4, 6, 1), "pixels": conv(5, 1)}
    net = Net(forward, a=normed(3, 8), b=conv(8, 6), c=conv(6, 5), d=conv(5, 3), **inner)
    every = _surgery.widths(net, torch.randn(PIXELS))
    found = {frozenset(maker.layer for maker in width.makers) for width in every}
    assert found == {frozenset({"a.0", "a.1", "gate"}), frozenset({"b", "back"}), frozenset({"small"})}
    cut(net)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.c(torch.cat(net.b(x).chunk(2, 1), 1)),
        lambda net, x: net.c(net.b(x)[:, :6].repeat(1, 2, 1, 1)[:, :8]),
        lambda net, x: net.d(F.pad(net.b(x), (0, 0, 0, 0, 1, 1))),
        lambda net, x: net.c(net.b(x).softmax(1)),
        lambda net, x: net.c(net.b(x) * net.b(x).mean(1, keepdim=True)),
        lambda net, x: net.c(net.b(x).unflatten(1, (2, 4)).permute(0, 2, 1, 3, 4).flatten(1, 2)),
        lambda net, x: net.c(net.b(x) * net.scale),
    ],
    ids=["chunk", "slice", "pad", "softmax", "mean", "permuted", "parameter"],
)
def test_operators_that_mix_channels_keep_them(forward):
    """Numbers of channels are written into them, or each channel's value depends on how many there are."""
    net = Net(lambda net, x: forward(net, net.a(x)), a=conv(3, 5), b=conv(5, 8), c=conv(8, 3), d=conv(10, 3))
    net.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
    assert names(net) == ["a"]


def test_channel_multipliers_are_grouped():
    """A filter or two for each channel: neither side may give."""
    net = nn.Sequential(conv(3, 4), conv(4, 8, groups=4), conv(8, 6), conv(6, 3))
    assert names(net) == ["2"]
    cut(net)


def test_magnitude_of_filters_that_make_one_channel():
    """The mean over the four filters of a shuffled channel; a transposed convolution's filters are its columns."""
    net = nn.Sequential(conv(3, 4), nn.ConvTranspose2d(4, 8, 2, 2), nn.PixelShuffle(2), conv(2, 3))
    every = _surgery.widths(net, torch.randn(PIXELS))
    each = net[1].weight.abs().mean((0, 2, 3))
    torch.testing.assert_close(_channels.mean_magnitude(net, every[1]), each.reshape(2, 4).mean(1))


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
    model = fakes.Stripes().build()
    every = _surgery.widths(model, fakes.Stripes().example())
    inner = next(width for width in every if width.name == "layer1.0.conv1")
    with torch.no_grad():
        model.layer1[0].conv1.weight[3] *= 1e-3
    assert int(_channels.mean_magnitude(model, inner).argmin()) == 3
