"""Networks of super resolution: they export at any size, lose channels exactly, and score as published."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from torch import nn

from slimbench import artifact, cost
from slimbench.core import Budget, UserError
from slimbench.methods import _choice, _surgery
from slimbench.tasks import _basicsr, _luma, _published, div2k
from slimbench.tasks._networks import super_resolution as networks
from slimbench.tasks._networks.bicubic import Bicubic
from slimbench.tasks.div2k import T91
from slimbench.tasks.photos import Photos
from zoo import relative

LOADERS = (div2k._load, div2k._read)


# ------------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", networks.NAMES)
def test_networks_export_and_take_other_sizes(name, tmp_path):
    """Stored with dynamic sides, reloaded and run at another height, width and batch: the same output."""
    model = networks.build(name, 2)
    artifact.save(model, torch.rand(1, 3, 24, 24), tmp_path / "a", dynamic_size=True)
    program = artifact.load(tmp_path / "a").module()
    other = torch.rand(3, 3, 17, 21)
    with torch.no_grad():
        expected = model.eval()(other)
        assert expected.shape == (3, 3, 34, 42)
        assert (program(other) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", networks.NAMES)
def test_networks_enlarge_and_are_counted(name, scale):
    """Two counters agree, copies and traces compute the same, and a forward pass changes nothing."""
    model, x = networks.build(name, scale).eval(), torch.rand(1, 3, 16, 18)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        outputs = model(x)
        assert outputs.shape == (1, 3, 16 * scale, 18 * scale)
        assert torch.equal(copy.deepcopy(model)(x), outputs)
        assert torch.equal(torch.fx.symbolic_trace(model)(x), outputs)
    counted = cost.count(model, x)
    assert counted.params == sum(p.numel() for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("edsr-tiny", 2),
        ("edsr-tiny", 3),
        ("edsr-tiny", 4),
        ("msrresnet", 3),
        ("msrresnet", 4),
        ("vdsr", 2),
        ("rlfn", 4),
    ],
)
def test_channels_are_removed_exactly(name, scale):
    """Through shuffles, gates and sums with the image: what is left computes what was masked, at the asked budget."""
    torch.manual_seed(0)
    model = networks.build(name, scale).double().eval()
    example = torch.rand(1, 3, 18, 20, dtype=torch.float64)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.4), how=_choice.How())
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    inputs = torch.rand(2, 3, 20, 18, dtype=torch.float64)
    with torch.no_grad():
        expected, got = masked(inputs), smaller(inputs)
    assert got.shape == (2, 3, 20 * scale, 18 * scale)
    assert relative(got, expected) < 1e-10
    assert cost.count(smaller, example).macs / cost.count(model, example).macs == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize("name", networks.NAMES)
def test_networks_train_in_bf16(name):
    """Every parameter gets a finite gradient; constants move with the network."""
    model = networks.build(name, 2)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.rand(2, 3, 16, 16))
    (outputs.float() - torch.rand(2, 3, 32, 32)).abs().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert copy.deepcopy(model).to("meta")(torch.rand(1, 3, 16, 16, device="meta")).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "scale", "params"),
    [("edsr-baseline", 2, 1_369_859), ("msrresnet", 4, 1_517_571), ("vdsr", 3, 664_704), ("rlfn", 2, 526_856)],
)
def test_networks_have_the_published_sizes(name, scale, params):
    """Of EDSR (1.37 M), MSRResNet (1.52 M), and of the published weights of the others."""
    assert sum(p.numel() for p in networks.build(name, scale).parameters()) == params


@pytest.mark.parametrize("name", networks.NAMES)
def test_fresh_weights_are_drawn_anew(name):
    """Every weight changes, and the output stays within a few times the image."""
    model = networks.build(name, 2)
    before = {key: value.clone() for key, value in model.named_parameters()}
    networks.initialise(model)
    assert not any(torch.equal(before[key], value) for key, value in model.named_parameters() if value.ndim > 1)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 16, 16)).abs().max() < 10


def test_msrresnet_draws_small():
    """A tenth of He's deviation, as basicsr does, with no bias."""
    conv = networks.build("msrresnet", 2).conv_hr
    assert conv.weight.std().item() == pytest.approx(0.1 * (2 / (64 * 9)) ** 0.5, rel=0.02)
    assert not conv.bias.any()


def test_parameters_that_no_layer_draws_are_refused():
    """They would stay as they were trained."""
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="'the network' cannot be drawn anew"):
        networks.initialise(model)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_matlabs(scale):
    """Equal to basicsr's, edges included; a plane stays a plane."""
    x = torch.rand(2, 3, 7, 5)
    expected = torch.stack([_basicsr.imresize(image, scale) for image in x])
    assert torch.allclose(Bicubic(scale)(x), expected, atol=2e-6)
    assert not list(Bicubic(scale).parameters())


def test_vdsr_refines_luma_alone():
    """Colour differences stay those of the enlarged image; luma grows by the residual."""
    model, x = networks.build("vdsr", 2), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        enlarged, outputs = model.enlarge(x), model(x)
        residual = model.output(model.residual_layer(model.relu(model.input(_luma.luma(enlarged)))))
    added = outputs - enlarged
    assert torch.allclose(added[:, 0], added[:, 1], atol=1e-5)
    assert torch.allclose(added[:, 0], added[:, 2], atol=1e-5)
    assert torch.allclose(_luma.luma(outputs) - _luma.luma(enlarged), residual, atol=1e-5)


def test_unknown_networks_get_a_suggestion():
    """The nearest name."""
    with pytest.raises(UserError, match=r"Unknown network 'esdr-small' .did you mean 'edsr-small'"):
        Photos(network="esdr-small").build()


@pytest.mark.parametrize("function", ["sized", "fixed"])
def test_a_users_own_network(monkeypatch, function):
    """With the scale, or without."""
    module = types.ModuleType("sr_nets_of_a_user")
    module.sized = lambda scale: nn.Conv2d(3, scale, 1)
    module.fixed = lambda: nn.Conv2d(3, 3, 1)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert Photos(network=f"{module.__name__}:{function}", scale=3).build().weight.shape == (3, 3, 1, 1)


# ---------------------------------------------------------------------------------------------------- published weights


def test_published_weights_are_found_by_scale():
    """One file of VDSR for three scales; none of RLFN at 3."""
    claims = [T91(network="vdsr", weights="twtygqyy", scale=scale).published().claimed for scale in (2, 3, 4)]
    assert claims == [37.65, 33.77, 31.45]
    assert "2205.07514" in T91(network="rlfn", weights="bytedance").published().source
    with pytest.raises(UserError, match="No published weights 'super resolution x3 rlfn bytedance'"):
        T91(network="rlfn", weights="bytedance", scale=3).published()
    assert T91().published() is None


def test_a_claim_is_set5s():
    """So it must be the headline."""
    with pytest.raises(UserError, match="put set5 first"):
        T91(network="rlfn", weights="bytedance", test_sets=("set14", "set5")).published()
    with pytest.raises(UserError, match="put set5 first"):
        Photos(network="rlfn", weights="bytedance").published()


@pytest.mark.parametrize("key", [key for key in _published._FILES if key[0].startswith("super")])
def test_published_weights_fit(real_data, key):
    """Every name and shape; the file is the declared one."""
    task = T91(network=key[1], weights=key[2], scale=int(key[0][-1]))
    model = task.build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    task.load_published(model)
    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize(
    ("network", "weights", "scale", "psnr", "tolerance"),
    [
        ("rlfn", "bytedance", 2, 38.07, 0.01),
        ("rlfn", "bytedance", 4, 32.24, 0.01),
        ("vdsr", "twtygqyy", 3, 33.77, 0.05),
    ],
)
def test_published_weights_score_as_published(real_data, network, weights, scale, psnr, tolerance):
    """On Set5, PSNR-Y."""
    task = T91(network=network, weights=weights, scale=scale, test_sets=("set5",))
    model = task.build()
    task.load_published(model)
    assert task.evaluate(model, "test")["psnr_y set5"].value == pytest.approx(psnr, abs=tolerance)
