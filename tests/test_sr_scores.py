"""Super resolution: pairs that fit, patches in all eight positions, the literature's scores."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from images import fill, noise
from slimbench.core import Settings, unpack
from slimbench.tasks import _basicsr, _image_folders, _luma, _pairs, _restoration, div2k, photos
from slimbench.tasks.div2k import T91
from slimbench.tasks.photos import Photos
from slimbench.train import Loop

LOADERS = (div2k._load, div2k._read, photos._splits, _restoration.bounds)


class Enlarges(nn.Module):
    """MATLAB's bicubic enlargement by basicsr: the baseline of the literature."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _basicsr.imresize(x[0].contiguous(), self.scale)[None]


# -------------------------------------------------------------------------------------------------------------- basicsr


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
    image, other = (noise(20, 20, seed) for seed in range(2))
    other[2:-2, 2:-2] = image[2:-2, 2:-2]
    assert _basicsr.psnr(image, other, 2, luma=True) == float("inf")
    assert _basicsr.ssim(image, other, 2, luma=True) == pytest.approx(1)
    assert _basicsr.psnr(image, other, 1, luma=True) < 40


# ------------------------------------------------------------------------------------------------------- low resolution


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


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shrink_equals_the_distributed_files(real_data, scale):
    """Set5 at a half, a third and a quarter, bit for bit."""
    folder = real_data / "super_resolution" / "Set5"
    for path in _image_folders.images(folder / "HR"):
        made = _pairs._shrunk(_pairs.crop(_pairs.decode(path), scale), scale)
        assert np.array_equal(made, _pairs.decode(folder / f"LR_bicubic_x{scale}" / path.name)), path.name


# -------------------------------------------------------------------------------------------------------------- patches


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


# --------------------------------------------------------------------------------------------------------------- scores


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


# -------------------------------------------------------------------------------------------------------------- texture


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
    assert _restoration.bounds(task) == _restoration.bounds(replace(task, network="vdsr"))


# ------------------------------------------------------------------------------------------------- what is to be beaten


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


@pytest.mark.parametrize(("scale", "psnr"), [(2, 29.80), (3, 27.96), (4, 26.95)])
def test_bicubic_on_photos(scale, psnr):
    """What a network has to beat."""
    task = Photos(scale=scale)
    task.check()
    assert task.evaluate(Enlarges(scale), "test")["psnr_y photos"].value == pytest.approx(psnr, abs=0.01)


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
