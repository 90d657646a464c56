"""CIFAR's shards: whole and seen to be the archive's, or not read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slimbench.core import MissingDataError, UserError
from slimbench.tasks.cifar import CIFAR10, CIFAR100


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


def put(folder, images, labels):
    """One shard, and labels of more images."""
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((images * 32, 32, 3), np.uint8)).save(folder / "train_000.webp", lossless=True)
    np.save(folder / "train_labels.npy", np.zeros(labels, np.uint8))


def test_a_missing_shard_is_said_to_be_missing(root):
    """In one sentence with the numbers, not by a checksum or an index."""
    put(root / CIFAR10.shards, 5, 50_000)
    with pytest.raises(UserError, match=r"train images of cifar10 are incomplete: .*cifar10 hold 5 of 50,000: fetch"):
        CIFAR10().load("train")


def test_shards_that_nothing_could_verify_are_not_read(root):
    """A record names the official archive's checksum: of CIFAR-100 there are no digests of pixels."""
    put(root / "classification/cifar100", 5, 5)
    with pytest.raises(MissingDataError, match="has no cifar-100-python"):
        CIFAR100().load("train")
    assert all(digests or not task.shards for task in (CIFAR10, CIFAR100) for digests in task.digests.values())
