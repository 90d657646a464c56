"""Networks of segmentation: mmsegmentation's, through one adapter; logits of any image's size, and exact surgery."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch

from slimbench import artifact
from slimbench.core import Budget, UserError
from slimbench.cost import count
from slimbench.methods import _choice, _surgery
from slimbench.tasks._networks import segmentation
from zoo import relative

SMALL = ("fcn-resnet14", "pspnet-resnet14", "deeplabv3-resnet14", "fast-scnn", "bisenetv2", "unet-8", "unet-deconv-8")


def test_mmsegmentation_imports_in_a_fresh_process():
    """Also beside mmcv-lite, which lacks compiled operators; they say so when they are called."""
    code = """
from slimbench.tasks._mmseg import mmseg, base_config
mmseg("models"), mmseg("datasets"), mmseg("evaluation")
assert "SyncBN" not in str(base_config("fast_scnn")) and "pretrained" not in str(base_config("pspnet_r50-d8"))
from mmcv.ops import nms_rotated
import mmcv, torch
if "lite" in (mmcv.__file__ or "") or type(__import__("sys").modules["mmcv._ext"]).__name__ == "_Operators":
    try:
        nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)
    except NotImplementedError as error:
        assert "full mmcv" in str(error)
    else:
        raise SystemExit("an operator that is not there answered")
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(("adapter", "package"), [("_mmseg", "mmsegmentation"), ("_basicsr", "basicsr")])
def test_a_missing_system_library_is_one_sentence(adapter, package):
    """OpenCV without libGL, as on a bare server: what to install, and no traceback of imports."""
    code = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from slimbench.core import UserError
from slimbench.tasks import {adapter} as adapter
try:
    adapter.mmseg("models") if hasattr(adapter, "mmseg") else adapter.basicsr()
except UserError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"{package} cannot be imported (libGL.so.1: cannot open shared object file): on Debian")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", SMALL)
def test_networks_put_out_logits_of_the_images_size(name):
    """Auxiliary heads speak in training alone, and are gone from the deployed network; the original keeps them."""
    model = segmentation.build(name, 5)
    inputs = torch.randn(2, 3, 40, 56)  # no multiple of anything that the networks divide by
    with torch.no_grad():
        outputs = model.train()(inputs)
        assert len(outputs) == 1 + len(model.auxiliary_head) > 1
        assert all(out.shape == (2, 5, 40, 56) for out in outputs)
        deployed = segmentation.without_auxiliary_heads(model.eval())
        assert torch.equal(deployed(inputs), model(inputs))
    assert len(model.auxiliary_head) > 0
    assert not any("auxiliary" in key for key in deployed.state_dict())
    assert segmentation.without_auxiliary_heads(deployed) is deployed


def test_fresh_logits_are_small():
    """As mmsegmentation's heads start: He's variance would start with a loss of tens."""
    torch.manual_seed(0)
    with torch.no_grad():
        logits = segmentation.build("fcn-resnet14", 5).eval()(torch.randn(1, 3, 64, 64))
    assert float(logits.std()) < 3


@pytest.mark.parametrize("name", SMALL)
def test_programs_take_any_size(name, tmp_path):
    """Exported at one size, run at another and another batch: the same outputs."""
    torch.manual_seed(0)
    model = segmentation.without_auxiliary_heads(segmentation.build(name, 5)).eval()
    artifact.save(model, torch.randn(1, 3, 48, 64), tmp_path / "a", dynamic_size=True)
    inputs = torch.randn(3, 3, 72, 40)
    with torch.no_grad():
        assert torch.allclose(artifact.load(tmp_path / "a").module()(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_channels_are_removed_exactly(name):
    """What is left computes what was masked, in training mode too; counts are the ledger's, auxiliary heads apart."""
    torch.manual_seed(0)
    model = segmentation.build(name, 5).double().eval()
    example = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    every = _surgery.widths(model, example)
    scores = [torch.rand(width.channels) for width in every]
    removed = _choice.choose(model, example, every, scores, budget=Budget(0.4), how=_choice.How())
    assert not any("auxiliary" in width.name or "conv_seg" in width.name for width in every)
    masked = _surgery.mask(copy.deepcopy(model), every, removed)
    smaller = _surgery.remove(copy.deepcopy(model), every, removed)
    with torch.no_grad():
        expected, got = masked(example), smaller(example)
        assert relative(got, expected) < 1e-10
    deployed = segmentation.without_auxiliary_heads(smaller)
    dense = count(segmentation.without_auxiliary_heads(model), example)
    assert count(deployed, example).macs / dense.macs == pytest.approx(0.4, rel=0.01)
    with torch.no_grad():  # heads read what is left
        assert len(smaller.train()(torch.cat([example, example]))) == 1 + len(model.auxiliary_head)


def test_an_unknown_network_is_refused():
    """With the nearest name."""
    with pytest.raises(UserError, match="did you mean 'fast-scnn'"):
        segmentation.build("fast-scn", 5)


@pytest.mark.parametrize("name", [n for n in segmentation.NAMES if "resnet18" in n or n == "unet"])
def test_larger_networks_are_those_of_the_configs(name):
    """Widths and heads fit."""
    model = segmentation.without_auxiliary_heads(segmentation.build(name, 3)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
