"""Counts are those of the literature and of a pencil: golden networks, hand-counted layers, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimbench import cost
from slimbench.cost import CannotCountError, count
from slimbench.tasks import _networks
from slimbench.tasks._networks import mobilenet, segmentation, super_resolution, vgg


def counted(name: str, channels: int = 3, classes: int = 10, size: int = 32):
    return count(_networks.build(name, channels, classes, size), torch.zeros(1, channels, size, size))


class Runs(nn.Module):
    """A function with one weight, as a network."""

    def __init__(self, function) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.function = function

    def forward(self, x):
        return self.function(x)


class Packed(nn.Module):
    """A user's layer that hides its weights as PyTorch's quantised ones do."""

    _packed_params = ()


def small() -> nn.Module:
    """(1, 4, 4) -> (3): every trainable value is 1."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


PIXELS = torch.ones(1, 1, 4, 4)

# ------------------------------------------------------------------------------------------- golden networks


def resnet_macs(depth: int) -> int:
    """Stem and linear, then 6n - 1 convolutions' worth: every stage has 2n, and the two that halve cost half."""
    n = (depth - 2) // 6
    stem, full, linear = 3 * 16 * 9 * 32**2, 16 * 16 * 9 * 32**2, 64 * 10
    assert full == 32 * 32 * 9 * 16**2 == 64 * 64 * 9 * 8**2
    return stem + 2 * n * full + 2 * ((2 * n - 1) * full + full // 2) + linear


def resnet_params(depth: int) -> int:
    n = (depth - 2) // 6
    stage = 9 * (2 * n * 16 * 16 + 16 * 32 + (2 * n - 1) * 32 * 32 + 32 * 64 + (2 * n - 1) * 64 * 64)
    return 9 * 3 * 16 + stage + 2 * (16 + 2 * n * (16 + 32 + 64)) + 64 * 10 + 10


@pytest.mark.parametrize(
    ("depth", "macs", "params"),
    [
        (20, 40_551_040, 269_722),
        (32, 68_862_592, 464_154),
        (44, 97_174_144, 658_586),
        (56, 125_485_696, 853_018),
        (110, 252_887_680, 1_727_962),
    ],
)
def test_cifar_resnets(depth, macs, params):
    """Option A costs nothing: ResNet-20 to -110 by closed form."""
    found = counted(f"resnet{depth}")
    assert (found.macs, found.params) == (macs, params) == (resnet_macs(depth), resnet_params(depth))


def test_cifar_resnet_option_b():
    """Two 1x1 convolutions with batch norm more than option A: 125.75 M."""
    found = counted("resnet56-b")
    assert found.macs == 125_747_840 == resnet_macs(56) + 16 * 32 * 16**2 + 32 * 64 * 8**2
    assert found.params == resnet_params(56) + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_vgg16_bn():
    """Thirteen 3x3 convolutions at 32, 16, 8, 4 and 2 pixels, one linear layer: the literature's 313 M."""
    macs, params, width_in = 0, 0, 3
    for stage, size in zip(vgg.WIDTHS, (32, 16, 8, 4, 2), strict=True):
        for width in stage:
            macs += width_in * width * 9 * size**2
            params += width_in * width * 9 + 2 * width
            width_in = width
    found = counted("vgg16-bn")
    assert found.macs == macs + 512 * 10 == 313_201_664
    assert found.params == params + 512 * 10 + 10 == 14_724_042


def test_mobilenetv2():
    """Expand, depthwise, project, and 1x1 shortcuts where widths change at stride 1."""
    size, width_in, macs = 32, 32, 3 * 32 * 9 * 32**2
    for expansion, width, blocks, stride in mobilenet.STAGES:
        for index in range(blocks):
            inner, step = expansion * width_in, stride if index == 0 else 1
            macs += width_in * inner * size**2
            size //= step
            macs += inner * 9 * size**2 + inner * width * size**2
            if step == 1 and width_in != width:
                macs += width_in * width * size**2
            width_in = width
    found = counted("mobilenetv2")
    assert found.macs == macs + 320 * 1280 * size**2 + 1280 * 10 == 91_154_944
    assert found.params == 2_296_922


def test_lenet5():
    """288,000 + 1,600,000 + 400,000 + 5,000 MACs at 28 x 28."""
    found = counted("lenet5", channels=1, size=28)
    assert (found.macs, found.params) == (2_293_000, 431_080)
    assert found.macs == 20 * 25 * 24**2 + 20 * 50 * 25 * 8**2 + 800 * 500 + 500 * 10


def test_imagenet_resnet18():
    """torchvision's network at 224 pixels."""
    found = counted("imagenet-resnet18", classes=1000, size=224)
    assert (found.macs, found.params) == (1_814_073_344, 11_689_512)


# --------------------------------------------------------------------------------------------- layers by hand


TRANSPOSED = {
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), 4 * 6 * 4 * 25),
    "overlapping": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), 4 * 6 * 9 * 25),
    "transposed in groups": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), 2 * 6 * 9 * 25),
    "transposed depthwise": (nn.ConvTranspose2d(4, 4, 4, stride=2, groups=4), 4 * 16 * 25),
    "transposed and dilated": (nn.ConvTranspose2d(4, 6, (2, 3), dilation=3, output_padding=2), 4 * 6 * 6 * 25),
}


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(4, 6, 3), 4 * 6 * 9 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), 4 * 6 * 9 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), 2 * 6 * 9 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2), 4 * 6 * 9),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1), 4 * 9 * 25),
        (nn.Conv2d(4, 6, (1, 3)), 4 * 6 * 3 * 15),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 7)), 700),
        (Runs(lambda x: x[0, 0] @ x[0, 1]), 5 * 5 * 5),
        (Runs(lambda x: torch.bmm(x[0], x[0])), 4 * 5 * 5 * 5),
        *TRANSPOSED.values(),
    ],
    ids=["plain", "strided", "grouped", "dilated", "depthwise", "flat", "linear", "matmul", "bmm", *TRANSPOSED],
)
def test_products_by_hand(layer, macs):
    """Weights times output positions on (4, 5, 5); transposed: times input positions; biases cost nothing."""
    assert count(layer, torch.zeros(1, 4, 5, 5)).macs == macs


def test_every_figure_of_a_small_network():
    """Conv 18 + 2, batch norm 4, linear 24 + 3 values; four positions; eight and three outputs."""
    found = count(small(), PIXELS)
    assert (found.macs, found.params, found.nonzero) == (18 * 4 + 24, 51, 51)
    assert (found.prunable_nonzero, found.activations) == (18 + 24, 8 + 3)
    assert found.bytes == 4 * 51 + 4 * 4 + 8, "with running mean and variance and the int64 batch counter"


def test_bytes_follow_the_type():
    """In float64 every value but the counter is twice as large."""
    assert count(small().double(), PIXELS.double()).bytes == 8 * 51 + 8 * 4 + 8


def test_zeros_are_not_speed():
    """Zeroed weights leave MACs and params alone; biases and batch norms are not prunable."""
    model = small()
    with torch.no_grad():
        model[0].weight[0, 0, :2, :2] = 0.0
        model[4].weight[1, 3] = 0.0
        model[0].bias[0] = 0.0
        model[1].weight[0] = 0.0
    found = count(model, PIXELS)
    assert (found.macs, found.params) == (96, 51)
    assert (found.nonzero, found.prunable_nonzero) == (51 - 7, 42 - 5)


def test_frozen_values_are_no_params():
    """Params are what is trainable; bytes hold everything."""
    model = small()
    model[4].requires_grad_(False)
    found = count(model, PIXELS)
    assert (found.params, found.nonzero, found.bytes) == (24, 24, 228)


def test_uncounted_operators_are_listed_with_their_shares():
    """Values put out / (MACs + all values put out), largest first, ties by name; views are nothing."""
    assert count(small(), PIXELS).uncounted == (
        ("native_batch_norm", round(8 / 112, 6)),
        ("relu", round(8 / 112, 6)),
    )
    found = count(Runs(lambda x: x.sigmoid_().cumsum(3).sum((2, 3)).flatten().abs()), PIXELS)
    assert (found.macs, found.activations) == (0, 0)
    large, little = round(16 / 34, 6), round(1 / 34, 6)
    assert found.uncounted == (("cumsum", large), ("sigmoid_", large), ("abs", little), ("sum", little))


def test_at_most_eight_operators_are_listed():
    """Of nine, with shares of a ninth."""
    found = count(Runs(lambda x: x.abs().sin().cos().tan().exp().ceil().sign().sqrt().neg()), PIXELS)
    assert [share for _, share in found.uncounted] == [round(1 / 9, 6)] * 8


RESOURCES = ("macs", "params", "prunable_nonzero")


def test_layers_sum_to_the_count():
    """Convolutions, linear layers and batch norms are all there is in these networks."""
    for name in ("resnet20-b", "mobilenetv2"):
        model = _networks.build(name, 3, 10, 32)
        rows, found = cost.layers(model, torch.zeros(1, 3, 32, 32)), counted(name)
        held = sum(w.numel() for w in cost.prunable(model).values())
        assert [sum(row.of(r) for row in rows.values()) for r in RESOURCES] == [found.macs, found.params, held]


@pytest.mark.parametrize("layer", [layer for layer, _ in TRANSPOSED.values()], ids=list(TRANSPOSED))
def test_transposed_layers_are_counted_alike(layer):
    """One row says what both counters do."""
    net, pixels = nn.Sequential(layer), torch.zeros(1, 4, 5, 5)
    row, found = cost.layers(net, pixels)["0"], count(net, pixels)
    assert [row.of(r) for r in RESOURCES] == [found.macs, found.params, layer.weight.numel()]
    assert (row.outs, row.passes) == (layer.out_channels, layer.groups == 4)


def test_frozen_layers_have_no_params():
    """Their MACs count; their weights are nothing that pruning may zero, and their biases are frozen one by one."""
    model = small()
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    model[4].weight.requires_grad_(False)
    rows, found = cost.layers(model, PIXELS), count(model, PIXELS)
    assert {name: [row.of(r) for r in RESOURCES] for name, row in rows.items()} == {
        "0": [72, 0, 0],
        "1": [0, 2, 0],
        "4": [24, 3, 0],
    }
    assert (found.macs, found.params, found.prunable_nonzero) == (96, 5, 0)
    assert list(cost.prunable(model)) == []


def test_depthwise_is_one_filter_a_channel():
    """Of any convolution; more filters a channel are groups."""
    assert cost.is_depthwise(nn.Conv2d(4, 4, 3, groups=4))
    assert cost.is_depthwise(nn.ConvTranspose2d(4, 4, 3, groups=4))
    others = (nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3), nn.BatchNorm2d(4))
    assert not any(map(cost.is_depthwise, others))


def test_layers_have_their_own_figures():
    """One row a layer."""
    rows = {name: [row.of(r) for r in RESOURCES] for name, row in cost.layers(small(), PIXELS).items()}
    assert rows == {"0": [72, 20, 18], "1": [0, 4, 0], "4": [24, 27, 24]}


def test_every_call_of_a_layer_counts():
    """Twice the positions; a linear layer has one for each vector it reads."""
    conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    twice = Runs(lambda x: conv(conv(x)))
    twice.conv = conv
    pixels = torch.zeros(1, 2, 4, 4)
    assert cost.layers(twice, pixels)["conv"].of("macs") == count(twice, pixels).macs == 2 * 36 * 16
    linear = nn.Sequential(nn.Linear(4, 8))
    vectors = torch.zeros(1, 5, 7, 4)
    assert cost.layers(linear, vectors)["0"].of("macs") == count(linear, vectors).macs == 35 * 32


def test_products_that_no_counter_knows_are_refused():
    """Attention and recurrence would count as nothing."""
    attention = Runs(lambda x: nn.functional.scaled_dot_product_attention(x, x, x))
    with pytest.raises(CannotCountError, match="attention"):
        count(attention, torch.randn(1, 2, 4, 8))


BILINEAR = nn.Bilinear(4, 4, 3)
VECTORS = {
    "_trilinear": lambda x: BILINEAR(x[0, 0], x[0, 1]),
    "mv": lambda x: x @ x[0, 0, 0],
    "addmv": lambda x: torch.addmv(x[0, 0, 0], x[0, 0], x[0, 0, 0]),
    "addmv_": lambda x: torch.zeros(4).addmv_(x[0, 0], x[0, 0, 0]),
    "addbmm": lambda x: torch.addbmm(x[0, 0], x[0], x[0]),
    "dot": lambda x: torch.dot(x[0, 0, 0], x[0, 0, 1]),
    "vdot": lambda x: torch.vdot(x[0, 0, 0], x[0, 0, 1]),
}


@pytest.mark.parametrize("operator", VECTORS)
def test_products_of_vectors_are_refused(operator):
    """Before fvcore sees them, which would end in an error of its own."""
    with pytest.raises(CannotCountError, match=f"no counter knows the products inside {operator}$"):
        count(Runs(VECTORS[operator]), torch.randn(1, 2, 4, 4))


def test_padding_in_words_is_counted():
    """As many MACs as the same padding in numbers."""
    words, numbers = nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(2, 3, 3, padding=1)
    pixels = torch.zeros(1, 2, 5, 5)
    assert count(words, pixels).macs == count(numbers, pixels).macs == 54 * 25


def test_prunable_weights_by_name():
    """Convolutions of any kind and linear layers; no biases, no batch norms."""
    model = nn.Sequential(small(), nn.ConvTranspose2d(1, 1, 2), nn.Conv1d(1, 1, 1))
    assert list(cost.prunable(model)) == ["0.0.weight", "0.4.weight", "1.weight", "2.weight"]


# -------------------------------------------------------------------------------------------- every network

FAMILIES = {
    "classification": [n for n in _networks.NAMES if not n.startswith("imagenet")],
    "classification, large": [n for n in _networks.NAMES if n.startswith("imagenet")],
    "segmentation": segmentation.NAMES,
    "super resolution": super_resolution.NAMES,
}
EVERY = [(family, name) for family, names in FAMILIES.items() for name in names]


def network(family: str, name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network as it is deployed, and an input as small as it takes."""
    if family == "super resolution":
        return super_resolution.build(name, 2), torch.zeros(1, 3, 24, 24)
    if family == "segmentation":
        model = segmentation.without_auxiliary_heads(segmentation.build(name, 4))
        return model, torch.zeros(1, 3, 64, 64)
    if family == "classification":
        channels, size = (1, 28) if name in {"lenet5", "mlp"} else (3, 32)
        return _networks.build(name, channels, 10, size), torch.zeros(1, channels, size, size)
    return _networks.build(name, 3, 10, 224), torch.zeros(1, 3, 96, 96)


@pytest.mark.parametrize(("family", "name"), EVERY, ids=[name for _, name in EVERY])
def test_the_counters_agree_on_every_network_that_ships(family, name):
    """Two counters and the sum over layers, to the last multiply-accumulate: no number would be there otherwise."""
    model, example = network(family, name)
    found, rows = count(model, example), cost.layers(model, example)
    assert found.macs == sum(row.of("macs") for row in rows.values()) > 0
    assert found.activations > 0


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("counter", ["macs_by_fvcore", "macs_by_torch"])
def test_two_counters_that_disagree_give_no_number(monkeypatch, counter):
    """One MAC more on either side is enough."""
    monkeypatch.setattr(cost, counter, lambda model, example: 97)
    with pytest.raises(CannotCountError, match=r"disagree.* 9[67] MACs.* 9[67]"):
        count(small(), PIXELS)


def test_an_operator_that_one_counter_alone_knows_gives_no_number():
    """fvcore does not see an inner product; to take the other's word would be to guess."""
    said = r"fvcore says 0 MACs, PyTorch 16 \(by operator: nothing; mm 16\)"
    with pytest.raises(CannotCountError, match=said):
        count(Runs(lambda x: torch.inner(x[0, 0], x[0, 0])), torch.ones(1, 1, 2, 4))


@pytest.mark.filterwarnings("ignore:.*(torch.ao|torch.jit|quantized)")
@pytest.mark.parametrize("kind", ["linear", "conv", "norm", "dynamic", "own", "scripted", "traced"])
def test_packed_and_scripted_layers_are_refused(kind):
    """Their weights would vanish from every figure; the refusal names the layer."""
    layer = {
        "linear": lambda: torch.ao.nn.quantized.Linear(8, 3),
        "conv": lambda: torch.ao.nn.quantized.Conv2d(1, 2, 3),
        "norm": lambda: torch.ao.nn.quantized.BatchNorm2d(2),
        "own": Packed,
        "dynamic": lambda: torch.ao.nn.quantized.dynamic.Linear(8, 3),
        "scripted": lambda: torch.jit.script(nn.Linear(8, 3)),
        "traced": lambda: torch.jit.trace(nn.Linear(8, 3), torch.zeros(1, 8)),
    }[kind]()
    with pytest.raises(CannotCountError, match="layer '4'"):
        count(nn.Sequential(*small()[:4], layer), PIXELS)


# ----------------------------------------------------------------------------------------------- side effects


def test_counting_changes_nothing():
    """Every module is back in its own mode, the running statistics and the hooks as they were."""
    model = small()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, PIXELS)
    cost.layers(model, PIXELS)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_modes_come_back_after_an_error():
    """Also where the forward pass fails."""
    model = small()
    with pytest.raises(RuntimeError):
        count(model, torch.ones(1, 2, 4, 4))
    assert all(module.training for module in model.modules())


def test_counts_are_those_of_eval_mode():
    """Dropout is no operator of a network that is in use."""
    found = count(nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1)).train(), PIXELS)
    assert found.uncounted == ()
