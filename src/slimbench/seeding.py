"""A seed goes in; independent streams of random numbers come out, the same on every run."""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import TYPE_CHECKING, Any

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


def global_state() -> dict[str, Any]:
    """The state of the global generators of Python, numpy and torch, as values that need no pickle."""
    version, words, gauss = random.getstate()
    state: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = state
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_global_state(state: dict[str, Any]) -> None:
    """Put back what ``global_state`` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@contextlib.contextmanager
def seeded(seed: int, *what: object) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch; put back what they were afterwards."""
    before = global_state()
    value = derive(seed, *what)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    try:
        yield
    finally:
        restore_global_state(before)
