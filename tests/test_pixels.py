"""Pixels: images of many sizes in one tensor, by row and column or whole."""

from __future__ import annotations

import numpy as np
import torch

from images import noise
from slimbench.tasks._pixels import Pixels


def test_pixels_of_many_sizes():
    """By image, row and column; whole images are views."""
    images = [noise(*size, seed) for seed, size in enumerate([(2, 3), (4, 1), (1, 1)])]
    pixels = Pixels.of(images)
    assert len(pixels) == 3
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
