"""Super resolution: pairs that fit, patches in all eight positions, the literature's scores, networks that export."""

from __future__ import annotations

import copy
import subprocess
import sys
import types
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from conftest import fresh
from slimbench import artifact, cost
from slimbench.core import Budget, MissingDataError, Settings, UserError, unpack
from slimbench.methods import _choice, _surgery
from slimbench.tasks import _basicsr, _image_folders, _images, _luma, _pairs, _published, _restoration, div2k, photos
from slimbench.tasks._networks import super_resolution as networks
from slimbench.tasks._networks.bicubic import Bicubic
from slimbench.tasks._pixels import Pixels
from slimbench.tasks._super_resolution import SuperResolution
from slimbench.tasks.div2k import DIV2K, T91
from slimbench.tasks.photos import Photos
from slimbench.train import Loop
from zoo import relative

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RNG = np.random.RandomState(0)


@pytest.fixture(autouse=True)
def forgets() -> Iterator[None]:
    """No data of other tests, nor of other files' tests in this process."""
    with fresh(div2k._load, div2k._read, photos._splits, _restoration.bounds):
        yield


def noise(height: int, width: int) -> np.ndarray:
    return RNG.randint(0, 256, (height, width, 3)).astype(np.uint8)


def fill(folder: Path, count: int, height: int = 40, width: int = 48) -> Path:
    """A folder of ``count`` images of noise."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(noise(height, width)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def task(root) -> T91:
    """Twelve images, two of them to train on, and a test set of three."""
    fill(root / "T91", 12)
    fill(root / "Set5" / "HR", 3, 41, 39)
    return T91(network="edsr-tiny", patch=8, folders=("T91",), test_sets=("set5",))


class Enlarges(nn.Module):
    """MATLAB's bicubic enlargement by basicsr: the baseline of the literature."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _basicsr.imresize(x[0].contiguous(), self.scale)[None]


# ---------------------------------------------------------------------------------------------------------- basicsr


def test_basicsr_imports_in_a_fresh_process():
    """Also where torchvision no longer has what it asks for."""
    code = "from slimbench.tasks import _basicsr as b; b.architecture('EDSR'), b.architecture('MSRResNet')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_spec_imports_no_torch():
    """Listing and planning start fast."""
    code = "import slimbench.tasks.photos, slimbench.tasks.div2k, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_psnr_by_hand():
    """Red and blue are not mixed up: one level of green, and twenty of blue, over all pixels."""
    black, green, blue = (np.zeros((12, 12, 3), np.uint8) for _ in range(3))
    green[..., 1], blue[..., 2] = 1, 20
    assert _basicsr.psnr(black, green, 0, luma=False) == pytest.approx(10 * np.log10(255**2 * 3))
    assert _basicsr.psnr(black, blue, 0, luma=True) == pytest.approx(20 * np.log10(255 / (20 * 24.966 / 255)), abs=1e-3)


def test_borders_are_cropped():
    """An error in the outer two pixels does not count."""
    image, other = (noise(20, 20) for _ in range(2))
    other[2:-2, 2:-2] = image[2:-2, 2:-2]
    assert _basicsr.psnr(image, other, 2, luma=True) == float("inf")
    assert _basicsr.ssim(image, other, 2, luma=True) == pytest.approx(1)
    assert _basicsr.psnr(image, other, 1, luma=True) < 40


# ------------------------------------------------------------------------------------------------- low resolution


def test_shrink_by_hand():
    """Four zeros, four eighties, halved: weights (-3, -9, 29, 111, 111, 29, -9, -3) / 256."""
    column = torch.tensor([0, 0, 0, 0, 80, 80, 80, 80], dtype=torch.uint8)[:, None, None].expand(8, 2, 1)
    # 80 * -3 / 256 = -0.9 is cut to 0; 80 * (29 - 9 - 3) / 256 = 5.3; the others are 80 minus these
    assert _basicsr.shrink(column, 2)[:, 0, 0].tolist() == [0, 5, 75, 81]
    row = _basicsr.shrink(column.transpose(0, 1), 2)
    assert row[0, :, 0].tolist() == [0, 5, 75, 81]


def test_shrink_rounds_after_the_rows():
    """As MATLAB does for uint8: near the float result, not equal to it."""
    image = torch.from_numpy(noise(24, 36))
    for scale in (2, 3, 4):
        small = _basicsr.shrink(image, scale)
        assert small.shape == (24 // scale, 36 // scale, 3)
        smooth = _basicsr.imresize(image.permute(2, 0, 1).float(), 1 / scale).permute(1, 2, 0)
        assert (small[2:-2, 2:-2] - smooth[2:-2, 2:-2].clamp(0, 255)).abs().mean() < 1
    flat = torch.full((8, 8, 3), 77, dtype=torch.uint8)
    assert (_basicsr.shrink(flat, 4) == 77).all()


@pytest.mark.data
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrink_equals_the_distributed_files(real_data, scale):
    """Set5 at a half, a third and a quarter, bit for bit."""
    folder = real_data / "super_resolution" / "Set5"
    for path in _image_folders.images(folder / "HR"):
        made = _pairs._shrunk(_pairs.crop(_pairs.decode(path), scale), scale)
        assert np.array_equal(made, _pairs.decode(folder / f"LR_bicubic_x{scale}" / path.name)), path.name


# ---------------------------------------------------------------------------------------------- pixels and patches


def test_pixels_of_many_sizes():
    """By image, row and column; whole images are views."""
    images = [noise(2, 3), noise(4, 1)]
    pixels = Pixels.of(images)
    assert len(pixels) == 2
    assert pixels.at(torch.tensor([1, 0]), torch.tensor([3, 1]), torch.tensor([0, 2])).tolist() == [
        images[1][3, 0].tolist(),
        images[0][1, 2].tolist(),
    ]
    grid = pixels.at(torch.tensor(0), torch.arange(2)[:, None], torch.arange(3))
    assert torch.equal(grid, torch.from_numpy(images[0]))
    for index, image in enumerate(images):
        assert torch.equal(pixels.image(index), torch.from_numpy(image).permute(2, 0, 1))
        assert pixels.image(index).data_ptr() == pixels.values[int(pixels.offsets[index])].data_ptr()


def test_pixels_without_colour_and_elsewhere():
    """Label maps have one channel; the copy on a device is made once."""
    pixels = Pixels.of([np.array([[1, 2]], np.uint8)])
    assert pixels.image(0).tolist() == [[[1, 2]]]
    assert pixels.to(torch.device("cpu")) is pixels
    assert pixels.to(torch.device("meta")) is pixels.to(torch.device("meta"))


def test_a_pass_covers_the_grid(task):
    """Each index is a square of its own; low and high resolution show the same place."""
    assert task.size("train") == 2 * (20 // 8) * (24 // 8)
    inputs, targets = task.batch("train", torch.arange(task.size("train")), None)
    source = task.load("train")
    for part, shown, side in ((source.lr, inputs, 8), (source.hr, targets, 16)):
        assert shown.is_contiguous(memory_format=torch.channels_last)
        found = (shown * 255).round().to(torch.uint8)
        for i in range(12):
            image, (row, column) = part.image(i // 6), divmod(i % 6, 3)
            assert torch.equal(found[i], image[:, row * side :, column * side :][:, :side, :side])


def test_patches_are_turned_in_eight_ways(task, monkeypatch):
    """Upside down, mirrored, transposed; the corner is drawn from the whole image."""
    image = task.load("train").lr.image(0)
    for turn in range(8):
        transposed, upside_down, mirrored = (turn >> k & 1 for k in range(3))
        draws = torch.tensor([[0.5], [0.999], *[[0.4 if on else 0.6] for on in (transposed, upside_down, mirrored)]])
        monkeypatch.setattr(torch, "rand", lambda *_, draws=draws, **__: draws)
        inputs, targets = task.batch("train", torch.tensor([0]), torch.Generator())
        expected = image[:, 6:14, 16:24]  # of 20 x 24: 13 rows and 17 columns to begin at
        expected = expected.flip(1) if upside_down else expected
        expected = expected.flip(2) if mirrored else expected
        expected = expected.transpose(1, 2) if transposed else expected
        assert torch.equal((inputs[0] * 255).round().to(torch.uint8), expected), turn
        half = F.avg_pool2d(targets, 2)
        assert (half - inputs).abs().mean() < 0.15  # noise at other places differs by 0.2


def test_the_same_draws_give_the_same_batch(task):
    """And others give another; corners stay inside."""
    one, two, other = (
        task.batch("train", torch.arange(12), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    source = task.load("train").lr
    (top, left), turn = _restoration._drawn(source, torch.zeros(2000, dtype=torch.int64), 8, torch.Generator())
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 12, 0, 16)
    assert turn.double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_sample_of_test_is_an_image(task):
    """Three, all of one size, cropped to multiples of two."""
    assert task.size("test") == 3
    inputs, targets = task.batch("test", torch.tensor([2, 0]), None)
    assert (inputs.shape, targets.shape) == ((2, 3, 20, 19), (2, 3, 40, 38))


# ------------------------------------------------------------------------------------------------------------ scores


def test_scores_are_means_over_images(task):
    """The numerator is their sum; PSNR by hand, from the network's own output."""
    scores = task.evaluate(Enlarges(2), "test")
    assert list(scores) == [metric.name for metric in task.metrics] == ["psnr_y set5", "ssim_y set5", "psnr_rgb set5"]
    source, own = task.load("test"), []
    for i in range(3):
        restored = (Enlarges(2)(source.lr.image(i)[None].float() / 255).clamp(0, 1) * 255).round()
        error = restored[0].double() - source.hr.image(i).double()
        own.append(float(10 * torch.log10(255**2 / error.square().mean())))
    found = scores["psnr_rgb set5"]
    assert (found.numerator, found.denominator) == (pytest.approx(sum(own)), 3)
    assert found.value == pytest.approx(sum(own) / 3)
    assert unpack(found.per_sample) == pytest.approx(own)


def test_each_test_set_is_scored_by_itself(root, task):
    """In the order of the field; a folder is a test set as well; validation needs no name."""
    fill(root / "mine", 2, 30, 30)
    alone = task.evaluate(Enlarges(2), "test")
    both = replace(task, test_sets=("mine", "set5"))
    scores = both.evaluate(Enlarges(2), "test")
    assert list(scores)[::3] == ["psnr_y mine", "psnr_y set5"]
    assert [score.denominator for score in scores.values()] == [2] * 3 + [3] * 3
    assert {name: scores[name] for name in alone} == alone
    assert list(task.evaluate(Enlarges(2), "val")) == ["psnr_y", "ssim_y", "psnr_rgb"]


def test_an_exact_image_has_100_db():
    """Infinity would spoil the mean, and JSON."""
    image = noise(20, 20)
    assert _restoration.compare(image, image, 2) == (100, pytest.approx(1), 100)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_no_score(bad):
    """Rather than black, or white."""
    outputs = torch.zeros(1, 3, 4, 4)
    outputs[0, 1, 2, 3] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        _restoration.levels(outputs)


def test_outputs_are_clamped_and_rounded():
    """As basicsr's tensor2img does."""
    outputs = torch.tensor([-0.5, 0.0, 100.6 / 255, 1.5]).expand(1, 3, 1, 4)
    assert _restoration.levels(outputs)[0, :, 0].tolist() == [0, 0, 101, 255]


def test_loss_and_distance_are_mean_absolute():
    """Also at another temperature."""
    a, b = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.0]]]])
    assert Photos().loss(a, b).item() == Photos().distance(a, b, 9.0).item() == 0.75
    model = nn.Identity()
    assert Photos().deploy(model) is model


# ----------------------------------------------------------------------------------------------------------- texture


def test_gradient_strength_by_hand():
    """A ramp of grey, a 255th a column, rises by 219 / 255 of that in luma; half at the edges, which are repeated."""
    ramp = (torch.arange(8.0) / 255).expand(1, 3, 8, 8)
    found = _restoration.strength(ramp, (1, 8))[0, 0] * 255 / _luma.SPAN
    assert found.tolist() == pytest.approx([0.5, *[1] * 6, 0.5], abs=1e-4)
    assert torch.allclose(_restoration.strength(ramp.transpose(2, 3), (8, 1))[0, :, 0] * 255 / _luma.SPAN, found)


def test_texture_bins():
    """A flat image is 0, faint noise 1, a step 2 where it is and 0 elsewhere."""
    bounds = (0.004, 0.03)
    flat = torch.full((1, 3, 16, 16), 0.5)
    faint = 0.5 + 0.03 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(1, 3, 16, 16)
    step = (torch.arange(16) >= 8).float().expand(1, 3, 16, 16)
    assert (_restoration.texture(flat, (4, 4), bounds) == 0).all()
    assert (_restoration.texture(faint, (4, 4), bounds) == 1).all()
    assert _restoration.texture(step, (4, 4), bounds).tolist() == [[[0, 2, 2, 0]] * 4]


def test_texture_bins_are_terciles_of_train(task):
    """So that in training windows of one low-resolution pixel each bin holds a third."""
    _, targets = task.batch("train", torch.arange(task.size("train")), None)
    bins = task.classes(targets, (8, 8))
    assert (bins.dtype, bins.shape) == (torch.int64, (12, 8, 8))
    assert torch.bincount(bins.flatten()).tolist() == pytest.approx([256] * 3, abs=2)
    assert _restoration.bounds(task) == _restoration.bounds(replace(task, network="rlfn"))


# ---------------------------------------------------------------------------------------------------------- networks


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


# ----------------------------------------------------------------------------------------------------------- layouts


def test_held_out_images_are_fixed(root):
    """Those of ``split_off``, over all folders in their order."""
    fill(root / "super_resolution" / "T91", 8)
    fill(root / "other", 5)
    fill(root / "Set5", 1)
    task = T91(folders=("T91", str(root / "other")), test_sets=("set5",), patch=8)
    paths = [*_image_folders.images(root / "super_resolution" / "T91"), *_image_folders.images(root / "other")]
    rest, held = _images.split_off(13, 10)
    assert [file.hr for file in task.files("train", root)] == [paths[i] for i in rest]
    assert [file.hr for file in task.files("val", root)] == [paths[i] for i in held]


@pytest.mark.parametrize("below", ["", "super_resolution", "benchmark"])
@pytest.mark.parametrize(("name", "place"), [(n, p) for n, places in _image_folders.TEST_SETS.items() for p in places])
def test_known_test_sets_are_found(root, below, name, place):
    """In each place that they usually lie in."""
    folder = fill(root / below / place, 1, 8, 8)
    assert _image_folders.test_set(name, root) == folder


@pytest.mark.parametrize(
    ("hr", "low", "name"),
    [("HR", "LR_bicubic_x2", "{}.png"), ("HR", "LR_bicubic/X2", "{}x2.png"), ("GTmod12", "LRbicx2", "{}.png")],
)
def test_given_low_resolution_is_used(root, task, hr, low, name):
    """And decides the checksum; a file of it that is missing, or of another size, is named."""
    made = task.data_checksum()
    given = root / "Set5" / low
    given.mkdir(parents=True)
    (root / "Set5" / "HR").rename(root / "Set5" / hr)
    for path in _image_folders.images(root / "Set5" / hr):
        Image.fromarray(noise(20, 19)).save(given / name.format(path.stem))
    div2k._load.cache_clear()
    source = task.load("test")
    first = given / name.format("00")
    assert torch.equal(source.lr.image(0), torch.from_numpy(_pairs.decode(first)).permute(2, 0, 1))
    assert task.data_checksum() != made
    Image.fromarray(noise(20, 20)).save(first)
    div2k._load.cache_clear()
    div2k._read.cache_clear()
    with pytest.raises(UserError, match=f"{first} is not .*00.png at 1/2 of its size"):
        task.load("test")
    first.unlink()
    div2k._load.cache_clear()
    with pytest.raises(UserError, match=rf"{given} has no 00.png or 00x2.png"):
        task.load("test")


def test_the_checksum_is_of_the_content(root, task):
    """Another folder and another file format, the same pixels: the same. One pixel: another."""
    before = task.data_checksum()
    (root / "super_resolution").mkdir()
    (root / "T91").rename(root / "super_resolution" / "T91")
    first = root / "super_resolution" / "T91" / "00.png"
    pixels = _pairs.decode(first)
    first.unlink()
    Image.fromarray(pixels).save(first.with_suffix(".webp"), lossless=True)
    div2k._load.cache_clear()
    assert task.data_checksum() == before
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(first.with_suffix(".webp"), lossless=True)
    div2k._load.cache_clear()
    div2k._read.cache_clear()
    assert task.data_checksum() != before


@pytest.mark.parametrize("below", ["DIV2K", "super_resolution/DIV2K", ""])
@pytest.mark.parametrize("low", [True, False])
def test_div2k(root, below, low):
    """All of the official training set, the first ten of the validation set, with official low resolution if there."""
    for official, count in (("train", 2), ("valid", 12)):
        folder = fill(root / below / f"DIV2K_{official}_HR", count, 40, 40)
        small = root / below / f"DIV2K_{official}_LR_bicubic" / "X2"
        if low:
            small.mkdir(parents=True)
            for path in _image_folders.images(folder):
                Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(small / f"{path.stem}x2.png")
    fill(root / "Set5", 1, 40, 40)
    task = DIV2K(test_sets=("set5",), patch=10)
    task.check()
    assert {split: len(task.load(split).groups) for split in ("train", "val", "test")} == {
        "train": 2,
        "val": 10,
        "test": 1,
    }
    assert bool((task.load("val").lr.values == 9).all()) is low
    assert (task.size("train"), task.size("val")) == (8, 40)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Photos(scale=5), "scale=5 is impossible: use 2, 3 or 4"),
        (lambda: Photos(patch=0), "patch=0 is impossible"),
        (lambda: T91(test_sets=()), "test_sets=.* is impossible: name at least one"),
        (lambda: T91(test_sets=("set5", "set5")), "none twice"),
        (lambda: T91(folders=()), "folders=.* is impossible"),
        (lambda: T91(folders=("a", "a")), "none twice"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    """One sentence each."""
    with pytest.raises(UserError, match=message):
        make()


def test_lists_are_taken_for_tuples():
    """As they come from the command line."""
    assert hash(T91(test_sets=["set5"], folders=["T91"])) == hash(T91(test_sets=("set5",), folders=("T91",)))


def saved(mode: str, **options: object):
    return lambda path: Image.fromarray(noise(40, 48)).convert(mode).save(path, "PNG", **options)


def deep(path: Path) -> None:
    """A 16-bit colour PNG, which PIL would cut to 8 bits."""
    import cv2

    cv2.imwrite(str(path), RNG.randint(0, 65536, (40, 48, 3)).astype(np.uint16))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (saved("RGBA"), "has an alpha channel"),
        (saved("LA"), "has an alpha channel"),
        (saved("P", transparency=0), "has an alpha channel"),
        (lambda path: Image.fromarray(np.zeros((40, 48), np.uint16)).save(path), "is not 8-bit RGB"),
        (deep, "is not 8-bit RGB .RGB;16B"),
        (saved("1"), "is not 8-bit RGB"),
        (saved("L"), "is not 8-bit RGB .L."),
        (lambda path: path.write_bytes(b"no image"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "cannot be read"),
        (lambda path: Image.fromarray(noise(15, 48)).save(path), "has 48 x 14 pixels, but 16 each way"),
    ],
    ids=[
        "rgba",
        "la",
        "transparent palette",
        "16 bits",
        "16-bit colour",
        "bilevel",
        "grey",
        "no image",
        "cut",
        "small",
    ],
)
def test_images_that_cannot_be_used_are_named(root, task, harm, message):
    """The file and what to do."""
    (path,) = [file.hr for file in task.files("train", root)][:1]
    harm(path)
    with pytest.raises(UserError, match=f"{path} .*{message}"):
        task.load("train")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palettes_become_rgb(tmp_path, mode):
    """Grey is repeated where it is welcome: Set14, which is only tested on, holds such images."""
    path = tmp_path / "image.png"
    saved(mode)(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(_pairs.decode(path, grey=True), expected)
    assert mode == "P" or (expected[..., 0] == expected[..., 2]).all()


def test_images_too_small_to_be_scored_are_named(root, task):
    """SSIM's window has 11 pixels, between borders of two."""
    fill(root / "tiny", 1, 15, 40)
    with pytest.raises(UserError, match="has 40 x 14 pixels, but 16 each way"):
        replace(task, test_sets=("tiny",)).load("test")


def test_what_is_learnt_from_is_not_tested_on(task):
    """A folder in both places."""
    with pytest.raises(UserError, match="would be learnt from and tested on"):
        replace(task, test_sets=("T91",)).load("train")


def test_one_folder_by_two_names_is_refused(root, task):
    """Else an image could be in train and in val, or in test."""
    with pytest.raises(UserError, match="names one folder twice"):
        replace(task, folders=("T91", str(root / "T91"))).load("train")
    (root / "alias").symlink_to(root / "T91")
    with pytest.raises(UserError, match="would be learnt from and tested on"):
        replace(task, test_sets=("alias",)).load("train")


def test_missing_data_are_named(root, task, monkeypatch):
    """Test sets, folders and DIV2K: where they were looked for, and what to do."""
    with pytest.raises(MissingDataError, match=f"'urban100' is missing .{root} has no .*leave it out of test_sets"):
        replace(task, test_sets=("urban100",)).check()
    with pytest.raises(UserError, match=r"'urban10' is neither .*did you mean 'urban100'"):
        replace(task, test_sets=("urban10",)).check()
    with pytest.raises(MissingDataError, match=f"no images in nowhere below {root}"):
        replace(task, folders=("nowhere",)).check()
    with pytest.raises(MissingDataError, match=f"{root} has no DIV2K_train_HR.*bench download div2k"):
        DIV2K(test_sets=("set5",)).check()
    fill(root / "DIV2K_train_HR", 0)
    with pytest.raises(UserError, match="DIV2K_train_HR holds no images"):
        DIV2K(test_sets=("set5",)).check()
    fill(root / "few", 10)
    with pytest.raises(UserError, match="hold 10 images: give more than the 10"):
        replace(task, folders=("few",)).check()
    monkeypatch.delenv("BENCH_DATA")
    for missing in (task, DIV2K(test_sets=(str(root / "few"),)), replace(task, test_sets=(str(root / "few"),))):
        with pytest.raises(MissingDataError, match="BENCH_DATA is not set"):
            missing.check()


def test_t91_has_no_download(tmp_path):
    """The sentence says what to put where."""
    with pytest.raises(UserError, match=f"no official archive: put .* into {tmp_path}"):
        T91().download(tmp_path)


def test_div2k_is_fetched_from_its_authors(tmp_path, monkeypatch):
    """Four archives: both sets, high and low resolution."""
    from slimbench.tasks._torchvision import torchvision

    asked: list[str] = []
    utils = torchvision().datasets.utils
    monkeypatch.setattr(utils, "download_and_extract_archive", lambda url, *_, **__: asked.append(url))
    DIV2K(scale=3).download(tmp_path)
    assert [url.rpartition("/")[2] for url in asked] == [
        f"DIV2K_{official}_{part}.zip" for official in ("train", "valid") for part in ("HR", "LR_bicubic_X3")
    ]


def test_a_task_says_where_its_images_come_from():
    """The base class has none."""
    with pytest.raises(TypeError, match="must say"):
        SuperResolution().load("train")
    with pytest.raises(TypeError, match="must say"):
        div2k.Folders().files("train", None)


# ------------------------------------------------------------------------------------------------- published weights


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


@pytest.mark.data
@pytest.mark.parametrize("key", [key for key in _published._FILES if key[0].startswith("super")])
def test_published_weights_fit(real_data, key):
    """Every name and shape; the file is the declared one."""
    task = T91(network=key[1], weights=key[2], scale=int(key[0][-1]))
    model = task.build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    task.load_published(model)
    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.data
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


# ---------------------------------------------------------------------------------------------------- the real data


@pytest.mark.data
@pytest.mark.parametrize(
    ("scale", "set5", "set14", "lenna"),
    [(2, 33.66, 30.24, 34.71), (3, 30.39, 27.55, 31.68), (4, 28.42, 26.00, 29.84)],
)
def test_bicubic_scores_as_in_the_literature(real_data, scale, set5, set14, lenna):
    """PSNR-Y within 0.02 dB. The Set14 at hand lacks lenna, whose published value is put in."""
    scores = T91(scale=scale, test_sets=("set5", "set14")).evaluate(Enlarges(scale), "test")
    assert scores["psnr_y set5"].value == pytest.approx(set5, abs=0.02)
    others = scores["psnr_y set14"]
    assert others.denominator == 13
    bridge = 20 * np.log10(1 / _luma.SPAN)  # grey: the literature takes its 256 levels for luma's 220
    assert (others.numerator - bridge + lenna) / 14 == pytest.approx(set14, abs=0.02)


@pytest.mark.data
def test_the_real_splits(real_data):
    """171 images to learn from, ten to validate, 5 + 13 + 100 to test."""
    task = T91()
    assert [len(task.load(split).groups) for split in ("train", "val", "test")] == [171, 10, 118]
    assert T91(scale=4).load("train").lr.heights.min() >= T91().patch


# ------------------------------------------------------------------------------------------------------------- photos


@pytest.mark.parametrize(("scale", "psnr"), [(2, 29.80), (3, 27.96), (4, 26.95)])
def test_bicubic_on_photos(scale, psnr):
    """What a network has to beat."""
    task = Photos(scale=scale)
    task.check()
    assert task.evaluate(Enlarges(scale), "test")["psnr_y photos"].value == pytest.approx(psnr, abs=0.01)


def test_photos_are_verified(monkeypatch):
    """Another file is refused; the declared digest is the checksum."""
    assert Photos().data_checksum() == Photos.content
    monkeypatch.setattr(Photos, "content", "0" * 64)
    with pytest.raises(UserError, match="are other ones"):
        Photos().load("train")


def test_a_missing_photo_is_named(monkeypatch):
    """And the package that brings it."""
    monkeypatch.setattr(Photos, "files", {"train": ("skimage/none.png",), "val": (), "test": ()})
    with pytest.raises(UserError, match=r"none.png is missing: install skimage again"):
        Photos().load("train")


def test_photos_that_are_smaller_than_a_patch_are_named():
    """400 pixels are 100 at scale 4."""
    with pytest.raises(UserError, match=r"coffee.png has 600 x 400 pixels, but 404 each way"):
        Photos(scale=4, patch=101).load("train")


@pytest.mark.parametrize("task", [Photos(), T91(), DIV2K()])
def test_examples_feed_networks(task):
    """The same every time, in [0, 1]; the network's output is ``scale`` times as large."""
    example = task.example()
    assert torch.equal(example, task.example())
    assert 0 <= example.min() < example.max() <= 1
    assert task.build()(example).shape[2:] == (example.shape[2] * 2, example.shape[3] * 2)


def test_a_short_training_learns():
    """Half a pass brings the loss well below that of fresh weights."""
    task = replace(Photos(), recipe=replace(Photos().recipe, epochs=0.5))
    torch.manual_seed(0)
    model, indices = task.build(), torch.arange(64) * 16
    inputs, targets = task.batch("train", indices, None)
    with torch.no_grad():
        before = task.loss(model(inputs), targets)
    Loop(task, 0, Settings(), 0.5).fit(model, 0.5, name="dense")
    with torch.no_grad():
        assert task.loss(model(inputs), targets) < 0.4 * before
