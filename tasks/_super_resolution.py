"""What super-resolution tasks share: the spec. What they compute lies in ``_restoration``, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slimbench.core import Batch, Metric, Outputs, Published, Recipe, Scores, Split, UserError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from slimbench.tasks._pairs import Pairs

SCALES = (2, 3, 4)
LEAST_PX = {"rlfn": 15}  # side of the smallest image that a network takes
RECIPE = Recipe(epochs=20, batch_size=16, optimizer="adam", lr=1e-3, fine_tune_lr=2e-4, weight_decay=0.0)


@dataclass(frozen=True)
class SuperResolution:
    """Pairs of images in memory, a network that enlarges, a mean absolute error.

    A task adds its name and ``load``. Inputs are RGB (N, 3, h, w) in [0, 1], targets (N, 3, h * scale, w * scale).
    A sample of train and val is a patch, and there are as many as fit into the images side by side, so that a pass
    sees about as many pixels as there are. A sample of test is a whole image. Scores are of whole images on val too.

    Attributes:
        scale: 2, 3 or 4: how many times wider and higher the output is.
        patch: side of a training patch in low-resolution pixels.

    """

    network: str = "edsr-small"
    scale: int = 2
    recipe: Recipe = RECIPE
    weights: str = ""  # name of published weights to start from; "": trained here
    patch: int = 48

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[str] = "super resolution"
    any_size: ClassVar[bool] = True
    heavy: ClassVar[tuple[str, ...]] = ("slimbench.tasks._restoration", "slimbench.tasks._networks.residual_sr")
    size_px: ClassVar[int] = 48  # side of the example, which MACs are counted on; the same whatever the patch

    def __post_init__(self) -> None:
        """Refuse scales that no network here has, and patches of nothing or smaller than the network takes."""
        if self.scale not in SCALES:
            raise UserError(f"scale={self.scale} is impossible: use 2, 3 or 4.")
        if self.patch < 1:
            raise UserError(f"patch={self.patch} is impossible: give the side of a patch in low-resolution pixels.")
        least = LEAST_PX.get(self.network, 1)
        if self.patch < least:
            raise UserError(f"patch={self.patch} is too small for {self.network}: give at least {least} pixels.")

    @property
    def sets(self) -> tuple[str, ...]:
        """The test sets, each scored by itself; the first is the headline's."""
        return (self.name,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """PSNR-Y, SSIM-Y and RGB PSNR of each test set."""
        return self.metrics_of("test")

    def metrics_of(self, split: Split) -> tuple[Metric, ...]:
        """As ``metrics``; val is one set, which needs no name."""
        suffixes = [f" {name}" for name in self.sets] if split == "test" else [""]
        units = {"psnr_y": "dB", "ssim_y": "", "psnr_rgb": "dB"}
        return tuple(Metric(f"{name}{suffix}", unit) for suffix in suffixes for name, unit in units.items())

    def load(self, split: Split) -> Pairs:
        """The split's images, test sets in their order. Raises: UserError where they are missing or unusable."""
        raise TypeError(f"{type(self).__name__} must say where its images come from")

    def check(self) -> None:
        """Load every split once, and look at the published weights."""
        for split in ("train", "val", "test"):
            self.load(split)
        if self.weights:
            self.load_published(self.build())

    def data_checksum(self) -> str:
        """A digest of the decoded images of all splits, and of low-resolution ones that came with them."""
        import hashlib

        digests = [self.load(split).digest for split in ("train", "val", "test")]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def published(self) -> Published | None:
        """The published weights to start from, whose claim is Set5's.

        Raises: UserError for unknown weights, and where Set5 is not the first test set.
        """
        from slimbench.tasks import _published

        found = _published.find(f"super resolution x{self.scale}", self.network, self.weights)
        if found and self.sets[0] != "set5":
            raise UserError(f"weights={self.weights!r} were scored on Set5: put set5 first in test_sets.")
        return found

    def build(self) -> nn.Module:
        """The dense network with fresh weights."""
        from slimbench.tasks._networks import super_resolution

        return super_resolution.build(self.network, self.scale)

    def load_published(self, model: nn.Module) -> None:
        """Put the published weights into ``model``."""
        from slimbench.tasks import _published

        _published.load(self.published(), model)

    def initialise(self, model: nn.Module) -> None:
        """Draw fresh weights in place."""
        from slimbench.tasks._networks import super_resolution

        super_resolution.initialise(model)

    def example(self) -> Tensor:
        """One input, (1, 3, size_px, size_px) in [0, 1], the same every time."""
        import torch

        return torch.rand(1, 3, self.size_px, self.size_px, generator=torch.Generator().manual_seed(0))

    def size(self, split: Split) -> int:
        """Patches of train and val, images of test."""
        from slimbench.tasks import _restoration

        source = self.load(split)
        return len(source.groups) if split == "test" else _restoration.patches(source.lr, self.patch)

    def batch(self, split: Split, indices: Tensor, rng: Generator | None) -> Batch:
        """Patches, channels last, drawn and turned at random where ``rng`` is given; of test, images of one size."""
        from slimbench.tasks import _restoration

        source = self.load(split)
        if split == "test":
            return _restoration.whole(source, indices)
        return _restoration.batch(source, self.patch, self.scale, indices, rng)

    def loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Mean absolute error."""
        from torch.nn.functional import l1_loss

        return l1_loss(outputs, targets)

    def distance(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """Mean absolute difference; images have no temperature."""
        from torch.nn.functional import l1_loss

        return l1_loss(outputs, taught)

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network itself: nothing in it is for training only."""
        return model

    def classes(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Texture bin of each window of the target: 0 flat, 1 texture, 2 edge; (N, h, w).

        Bounds are the terciles of gradient strength in the training images, over windows of one low-resolution pixel.
        """
        from slimbench.tasks import _restoration

        return _restoration.texture(targets, size, _restoration.bounds(self))

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, Scores]:
        """PSNR-Y (dB), SSIM-Y and RGB PSNR (dB), means over whole images, of each test set by itself."""
        from slimbench.tasks import _restoration

        return _restoration.evaluate(self, model, split)
