"""What classification tasks share: the spec. What they compute lies in ``_images``, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Batch, Metric, Outputs, Published, Recipe, Scores, Split

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from slimbench.tasks._images import Images

TOP1, TOP5 = Metric("top1", "%"), Metric("top5", "%")


@dataclass(frozen=True)
class Classification:
    """Images in memory, a network, a cross-entropy.

    A task adds its name, its shape and ``load``. Validation is a fixed part of the official training set, the same
    for every seed; the official test set is the test split.
    """

    network: str = "resnet20"
    recipe: Recipe = Recipe()
    weights: str = ""  # name of published weights to start from; "": trained here

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = (TOP1,)
    any_size: ClassVar[bool] = False
    heavy: ClassVar[tuple[str, ...]] = ()
    channels: ClassVar[int] = 3
    size_px: ClassVar[int] = 32
    n_classes: ClassVar[int] = 10
    mean: ClassVar[tuple[float, ...]] = (0.5,)
    std: ClassVar[tuple[float, ...]] = (0.5,)
    pad: ClassVar[int] = 4  # pixels that the shifted crop may move by
    flip: ClassVar[bool] = False
    content: ClassVar[str] = ""  # digest of the data

    def load(self, split: Split) -> Images:
        """The split's images and labels, verified. Raises: UserError where files are missing or altered."""
        raise TypeError(f"{type(self).__name__} must say where its images come from")

    def check(self) -> None:
        """Load every split once, and look at the published weights."""
        for split in ("train", "val", "test"):
            self.load(split)
        if self.weights:
            self.load_published(self.build())

    def data_checksum(self) -> str:
        """The declared digest; ``load`` verifies it."""
        return self.content

    def published(self) -> Published | None:
        """None: this task knows no published weights."""
        from slimbench.tasks import _published

        return _published.find(self.name, self.network, self.weights)

    def build(self) -> nn.Module:
        """The dense network with fresh weights."""
        from slimbench.tasks import _networks

        return _networks.build(self.network, self.channels, self.n_classes, self.size_px)

    def load_published(self, model: nn.Module) -> None:
        """Put the published weights into ``model``."""
        from slimbench.tasks import _published

        _published.load(self.published(), model)

    def initialise(self, model: nn.Module) -> None:
        """Draw fresh weights in place."""
        from slimbench.tasks import _networks

        _networks.initialise(model)

    def example(self) -> Tensor:
        """One input of the right shape, (1, C, H, W)."""
        from slimbench.tasks import _images

        return _images.example(self.channels, self.size_px)

    def size(self, split: Split) -> int:
        """Number of images."""
        return len(self.load(split).labels)

    def batch(self, split: Split, indices: Tensor, rng: Generator | None) -> Batch:
        """Normalised images (N, C, H, W), channels last, and labels (N,); augmented by draws from ``rng``."""
        from slimbench.tasks import _images

        return _images.batch(self, self.load(split).to(indices.device), indices, rng)

    def loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Cross-entropy, label-smoothed as the recipe declares."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, label_smoothing=self.recipe.label_smoothing)

    def distance(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence of the softened logits, mean over images: Hinton et al. 2015."""
        from slimbench.tasks import _images

        return _images.divergence(outputs, taught, temperature)

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network itself: nothing in it is for training only."""
        return model

    def classes(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The label: one window, the whole image, (N, 1, 1)."""
        return targets[:, None, None]

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, Scores]:
        """Top-1, and top-5 where the task lists it, in %: correct / images."""
        from slimbench.tasks import _images

        ranks = {"top1": 1, "top5": 5}
        return _images.evaluate(self, model, split, {m.name: ranks[m.name] for m in self.metrics})
