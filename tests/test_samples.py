"""Test samples by stored networks, the dense one beside the compressed one: drawn, or why they are not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from made import record
from slimbench import artifact
from slimbench.core import Scores, UserError
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.reports import samples
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits


def segmenting():
    """(N, 3, H, W) -> (N, 11, H, W)."""
    return nn.Conv2d(3, 11, 1).eval()


def enlarging():
    """(N, 3, h, w) -> (N, 3, 2 h, 2 w)."""
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2)).eval()


@pytest.fixture(params=[(TextureDigits(), segmenting), (Photos(), enlarging)], ids=["segmentation", "super resolution"])
def pair(request, tmp_path):
    """A record of an embedded task, and the folders of its network and of the dense one."""
    task, network = request.param
    scores = {task.metrics[0].name: Scores(50.0, 0.0, 0.0)}
    dense, small = record(Dense(), task=task, quality=scores), record(DCSS(), 0.5, task=task, quality=scores)
    folders = {one.id: tmp_path / one.id for one in (dense, small)}
    sums = {
        name: artifact.save(network(), torch.zeros(1, 3, 16, 16), folder, dynamic_size=True)
        for name, folder in folders.items()
    }
    return replace(small, artifact=sums[small.id], reference_artifact=sums[dense.id]), folders


def test_samples_are_drawn(pair, tmp_path):
    """The same networks, the same bytes."""
    small, folders = pair
    assert samples.can_show(small)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        samples.draw(small, folders, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_what_is_on_them():
    """Dense and compressed predictions under their own names, with what they score on the samples."""
    torch.manual_seed(0)
    task = Photos()
    perfect = nn.Upsample(scale_factor=2)
    drawn = samples._restored(task, {"dense": perfect, "compressed": perfect})
    titles = [axes.get_title() for axes in drawn.axes]
    assert [title.partition(":")[0] for title in titles] == ["bicubic", "dense", "compressed", "original"]
    assert titles[1].partition(":")[2] == titles[2].partition(":")[2]
    assert drawn.axes[3].images[0].get_array().shape == (96, 96, 3)

    class Texture(nn.Module):
        def forward(self, x):
            return torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x[:, :1]).expand(-1, 10, -1, -1)], 1)

    scenes = samples._segmented(TextureDigits(), {"dense": Texture(), "compressed": Texture()})
    assert len(scenes.axes) == 16
    _, labels = TextureDigits().batch("test", torch.tensor([0]), None)
    right = 100 * float((labels == 0).float().mean())
    assert scenes.axes[2].get_title() == f"dense: {right:.1f} % right"
    shown = scenes.axes[1].images[1].get_array()
    assert np.array_equal(shown.mask, labels[0].numpy() == 0)


def test_why_there_are_none(pair, tmp_path):
    """Networks that are elsewhere, other networks, other people's data or weights: a reason each, and no file."""
    small, folders = pair
    file = tmp_path / "none.png"
    camvid = {**small.cell, "task": {**small.cell["task"], "is": "camvid"}}
    manifest = folders[small.reference] / "manifest.json"
    for one, at, why in (
        (small, {}, "not at hand"),
        (small, {small.id: folders[small.id]}, "not at hand"),
        (replace(small, artifact="0" * 64), folders, "not those of the record"),
        (replace(small, published={"claimed": 30.0}), folders, "embedded data"),
        (replace(small, cell=camvid), folders, "embedded data"),
    ):
        with pytest.raises(UserError, match=why):
            samples.draw(one, at, file)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"more": 1}))
    with pytest.raises(UserError, match="not those of the record"):
        samples.draw(small, folders, file)
    assert not file.exists()


def test_tasks_that_have_no_samples_to_show():
    """Classes are no pictures; nor is a network that was not made, or the dense one by itself."""
    assert not samples.can_show(record(DCSS(), 0.5))
    assert not samples.can_show(record(Dense(), task=Photos()))
    assert not samples.can_show(record(DCSS(), 0.5, task=Photos(), cost=None, quality={}))
