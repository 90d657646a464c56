"""A seed goes in; independent streams of random numbers come out, the same on every run."""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def derive(seed: int, *what: object) -> int:
    """A 63-bit seed for one purpose: streams of different purposes are unrelated, whoever draws first."""
    text = ":".join(str(part) for part in (seed, *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *what: object) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *what))


@contextlib.contextmanager
def seeded(seed: int, *what: object) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch; put back what they were afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    value = derive(seed, *what)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
