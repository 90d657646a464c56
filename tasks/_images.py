"""Images in memory: uint8 on the device in, augmented and normalised batches and per-image scores out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from slimbench.core import Batch, Scores, Split, UserError, pack
from slimbench.cost import evaluating

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimbench.core import Task
    from slimbench.tasks._classification import Classification

_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W) uint8 and labels (N,) int64; ``to`` keeps a copy on each device."""

    pixels: Tensor
    labels: Tensor
    _copies: dict[torch.device, Images] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device) -> Images:
        """The same images on ``device``."""
        if self.pixels.device == device:
            return self
        if device not in self._copies:
            self._copies[device] = Images(self.pixels.to(device), self.labels.to(device))
        return self._copies[device]

    def part(self, indices: NDArray[np.int64]) -> Images:
        """Some of the images."""
        chosen = torch.from_numpy(indices)
        return Images(self.pixels[chosen], self.labels[chosen])


def images(pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> Images:
    """Images from (N, H, W) or (N, H, W, C) pixels."""
    tensor = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    return Images(tensor, torch.from_numpy(labels.astype(np.int64)))


def split_off(size: int, held: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the rest and of ``held`` samples: fixed for all seeds and, by numpy's promise, for all versions."""
    order = np.random.RandomState(0).permutation(size)
    return np.sort(order[held:]), np.sort(order[:held])


def expect(what: str, digest: str, *arrays: NDArray[np.generic]) -> None:
    """Raises: UserError where the sha256 of the arrays' bytes is another."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    if found.hexdigest() != digest:
        raise UserError(
            f"{what} is not the data that was declared: its checksum is {found.hexdigest()}, the declared one is "
            f"{digest or 'empty'}: fetch it again, or where it is your own, mend `content`."
        )


def example(channels: int, size: int) -> Tensor:
    """One input, (1, channels, size, size), the same every time."""
    return torch.randn(1, channels, size, size, generator=Generator().manual_seed(0))


def batch(task: Classification, source: Images, indices: Tensor, rng: Generator | None) -> Batch:
    """Gather, shift, flip and normalise in one pass over the batch; the result is channels last."""
    pixels = source.pixels[indices]
    if rng is not None:
        pixels = shifted(pixels, rng, task.pad, flip=task.flip)
    m = torch.tensor(task.mean, device=pixels.device)[:, None, None] * 255
    s = torch.tensor(task.std, device=pixels.device)[:, None, None] * 255
    inputs = (pixels.to(memory_format=torch.channels_last).float() - m) / s
    return inputs, source.labels[indices]


def shifted(pixels: Tensor, rng: Generator, pad: int, *, flip: bool) -> Tensor:
    """A crop of the zero-padded image, moved by up to ``pad`` pixels each way, and mirrored every other time."""
    n, _, height, width = pixels.shape
    device = pixels.device
    shift = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=rng).to(device)
    mirrored = (torch.rand(n, 1, generator=rng) < 0.5).to(device) & flip
    columns = torch.arange(width, device=device).expand(n, width)
    columns = shift[1] + torch.where(mirrored, width - 1 - columns, columns)
    rows = shift[0] + torch.arange(height, device=device)
    padded = F.pad(pixels, (pad,) * 4)
    # advanced indices on both sides of a slice: the result is (n, height, width, C), which is channels last
    image = torch.arange(n, device=device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def divergence(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(t / T) || softmax(s / T)) over dimension 1, mean over images (and positions)."""
    learnt, goal = (F.log_softmax(logits / temperature, 1) for logits in (outputs, taught))
    rows, goals = (part.movedim(1, -1).flatten(0, -2) for part in (learnt, goal))
    return temperature**2 * F.kl_div(rows, goals, log_target=True, reduction="batchmean")


def evaluate(task: Task, model: nn.Module, split: Split, ranks: dict[str, int]) -> dict[str, Scores]:
    """For each metric, the share of images whose label is among the ``rank`` highest logits, in %.

    Counted image by image over the whole split: a short last batch weighs what it holds.
    """
    first = next(model.parameters(), torch.empty(0))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    correct: dict[str, list[Tensor]] = {name: [] for name in ranks}
    with evaluating(model), torch.inference_mode():
        for indices in torch.arange(task.size(split), device=first.device).split(_EVALUATION_BATCH):
            inputs, labels = task.batch(split, indices, None)
            logits = model(inputs)
            for name, rank in ranks.items():
                correct[name].append(_within(logits, labels, rank))
    return {name: _share(torch.cat(parts)) for name, parts in correct.items()}


def _within(logits: Tensor, labels: Tensor, rank: int) -> Tensor:
    """1.0 where fewer than ``rank`` logits are higher than the label's (or equal, with a lower index)."""
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the network puts out values that are not finite")
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    higher = (logits > own) | ((logits == own) & before)
    return (higher.sum(1) < rank).float()


def _share(correct: Tensor) -> Scores:
    right, total = float(correct.sum()), float(len(correct))
    return Scores(100 * right / total, right, total, pack(correct.tolist()))
