"""What segmentation tasks share: the spec. What they compute lies in ``_scenes``, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Batch, Metric, Outputs, Published, Recipe, Scores, Split

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from slimbench.tasks._scenes import Scenes

MIOU, PIXEL_ACCURACY = Metric("mIoU", "%"), Metric("pixel_accuracy", "%")


@dataclass(frozen=True)
class Segmentation:
    """Images and label maps in memory, a network of mmsegmentation's, a cross-entropy over pixels.

    A task adds its name, its classes and ``load``. Training sees windows of ``crop`` pixels: drawn at random, scaled,
    mirrored; evaluation sees whole images, and predictions are compared at the size of the label map. Validation is a
    part of the official training set where the official sets leave none.

    Attributes:
        balanced: whether classes are weighed by 1 / ln(1.02 + share of pixels) (Paszke et al., ENet, 2016, eq. 1).

    """

    network: str = "fast-scnn"
    recipe: Recipe = Recipe()
    balanced: bool = False

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[Metric, ...]] = (MIOU, PIXEL_ACCURACY)
    any_size: ClassVar[bool] = True
    heavy: ClassVar[tuple[str, ...]] = ("slimbench.tasks._scenes", "slimbench.tasks._networks.segmentation")
    class_names: ClassVar[tuple[str, ...]]
    size_px: ClassVar[tuple[int, int]]  # height and width of the example: what MACs are counted for
    crop: ClassVar[tuple[int, int]]  # height and width of the windows that training sees
    jitter: ClassVar[tuple[float, float]] = (0.5, 2.0)  # range of the scale, drawn evenly by its logarithm
    flip: ClassVar[bool] = True
    mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)  # ImageNet's, as is usual
    std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    auxiliary_weight: ClassVar[float] = (
        0.4  # of each auxiliary head's loss, as in most of mmsegmentation's configs (BiSeNetV2: 1)
    )

    def load(self, split: Split) -> Scenes:
        """The split's images and label maps. Raises: UserError where files are missing or do not fit."""
        raise TypeError(f"{type(self).__name__} must say where its images come from")

    def data_checksum(self) -> str:
        """A digest of every image and label map."""
        raise TypeError(f"{type(self).__name__} must say what its data are")

    def check(self) -> None:
        """Load every split once, and build the network."""
        for split in ("train", "val", "test"):
            self.load(split)
        self.build()

    def published(self) -> Published | None:
        """None: every network is trained here."""
        return None

    def load_published(self, model: nn.Module) -> None:
        """There are none."""
        raise TypeError(f"{self.name} knows no published weights")

    def build(self) -> nn.Module:
        """The dense network with fresh weights, (N, 3, H, W) -> (N, classes, H, W)."""
        from slimbench.tasks._networks import segmentation

        return segmentation.build(self.network, len(self.class_names))

    def initialise(self, model: nn.Module) -> None:
        """Draw fresh weights in place."""
        from slimbench.tasks._networks import segmentation

        segmentation.initialise(model)

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network without its auxiliary heads."""
        from slimbench.tasks._networks import segmentation

        return segmentation.without_auxiliary_heads(model)

    def example(self) -> Tensor:
        """One input, (1, 3, H, W)."""
        from slimbench.tasks import _scenes

        return _scenes.example(self.size_px)

    def size(self, split: Split) -> int:
        """Number of images."""
        return len(self.load(split).images)

    def batch(self, split: Split, indices: Tensor, rng: Generator | None) -> Batch:
        """Normalised windows (N, 3, h, w) and labels (N, h, w), 255: ignored. Without ``rng``: the centres."""
        from slimbench.tasks import _scenes

        return _scenes.batch(self, self.load(split).to(indices.device), indices, rng)

    def loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over labelled pixels, plus the auxiliary heads'."""
        from slimbench.tasks import _scenes

        return _scenes.loss(self, outputs, targets)

    def distance(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence of the softened logits, mean over pixels."""
        from slimbench.tasks import _images

        return _images.divergence(outputs, taught, temperature)

    def classes(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The most frequent class of each window's labelled pixels, (N, h, w); -1 where none is labelled."""
        from slimbench.tasks import _scenes

        return _scenes.majority(targets, size, len(self.class_names))

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, Scores]:
        """mIoU and pixel accuracy in %, summed over the whole split, ignored pixels left out."""
        from slimbench.tasks import _scenes

        return _scenes.evaluate(self, model, self.load(split))
