"""Cells go in; networks for the three families of tasks come out: found ones, and supernets.

Classification: DARTS' networks, for small images and for those of ImageNet's size. Segmentation: cells as encoder with
a plain decoder. Super resolution: cells that never reduce, a pixel shuffle, and bicubic enlargement beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.methods.dass.cells import EDGES, Found, Searched
from slimbench.methods.dass.genotypes import NODES, OPERATIONS, Genotype, parse
from slimbench.tasks._networks.bicubic import Bicubic

if TYPE_CHECKING:
    from slimbench.core import Task

_LARGE = 128  # pixels from which images of a classification task are halved three times first
_BESIDE = 0.1  # of fresh weights of what cells add to the bicubic image: it would drown in them
_STEM = 3  # times the cells' width, in stems for small images


@dataclass(frozen=True)
class Shape:
    """What a network must take and give.

    Attributes:
        channels: of the input. outputs: classes, or colours. side: of the example, the smaller one.
        scale: of super resolution, 1 elsewhere.

    """

    family: Literal["classification", "segmentation", "super resolution"]
    channels: int
    outputs: int
    side: int
    scale: int = 1

    @property
    def reduces(self) -> bool:
        """Whether two of the cells halve the image."""
        return self.family != "super resolution"


def shape_of(task: Task) -> Shape:
    """What a task's networks take and give."""
    example = task.example()
    with torch.inference_mode():
        outputs = task.deploy(task.build()).eval()(example)
    scale = outputs.shape[-1] // example.shape[-1] if task.family == "super resolution" else 1
    return Shape(task.family, example.shape[1], outputs.shape[1], min(example.shape[2:]), scale)  # type: ignore[arg-type]


def reductions(shape: Shape, cells: int) -> tuple[int, ...]:
    """Which cells halve the image and double the width."""
    return (cells // 3, 2 * cells // 3) if shape.reduces else ()


class CellNetwork(nn.Module):
    """A stem, cells, a head: (N, channels, H, W) to what the family puts out.

    While a network with an auxiliary head trains, it puts out a tuple, the auxiliary logits behind.

    Attributes:
        alpha: of a supernet, (2, 14, 8): what each edge of normal and of reduction cells thinks of each operation.

    """

    alpha: nn.Parameter

    def __init__(
        self, shape: Shape, width: int, cells: int, genotype: Genotype | None, *, auxiliary: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.reduced = shape, reductions(shape, cells)
        self.stem, before, last, halved = _stem(shape, width)
        if genotype is None:
            self.alpha = nn.Parameter(torch.empty(2, EDGES, len(OPERATIONS)))
        made: list[nn.Module] = []
        for index in range(cells):
            reduces = index in self.reduced
            width *= 2 if reduces else 1
            widths = (before, last, width)
            if genotype is None:
                made.append(Searched(widths, reduces=reduces, halved=halved))
            else:
                plan = genotype.reduce if reduces else genotype.normal
                made.append(Found(plan, widths, reduces=reduces, halved=halved))
            before, last, halved = last, NODES * width, reduces
            if auxiliary and reduces and index == self.reduced[-1]:
                self.auxiliary: nn.Module = AuxiliaryHead(last, shape.outputs)
        self.cells = nn.ModuleList(made)
        self.head: nn.Module = _HEADS[shape.family](last, shape)
        if shape.family == "super resolution":
            _without_norms(self)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what the edges of a supernet think anew: next to nothing."""
        if hasattr(self, "alpha"):
            nn.init.normal_(self.alpha, std=1e-3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits, or an image."""
        before, last = self.stem(x)
        beside = None
        weights = self.alpha.softmax(-1) if hasattr(self, "alpha") else None
        for index, cell in enumerate(self.cells):
            given = () if weights is None else (weights[int(index in self.reduced)],)
            before, last = last, cell(before, last, *given)
            if self.training and hasattr(self, "auxiliary") and index == self.reduced[-1]:
                beside = self.auxiliary(last)
        outputs = self.head(last, x)
        return outputs if beside is None else (outputs, beside)


def _without_norms(model: nn.Module) -> None:
    """Take batch norm out: the statistics of patches are not those of images (Lim et al., EDSR, 2017)."""
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def draw(network: CellNetwork, task: Task) -> CellNetwork:
    """Fresh weights, as the task draws them; what stands beside the bicubic image starts small."""
    task.initialise(network)
    if isinstance(network.head, Enlarger):
        with torch.no_grad():
            network.head.conv.weight.mul_(_BESIDE)
            nn.init.zeros_(network.head.conv.bias)  # type: ignore[arg-type]
    return network


# -------------------------------------------------------------------------------------------------- stems and heads


class Stem(nn.Module):
    """One convolution; both cell inputs are its output. At stride 2, for segmentation, cells start from half size."""

    def __init__(self, channels: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Twice the same."""
        x = self.norm(self.conv(x))
        return x, x


class LargeStem(nn.Module):
    """DARTS' for ImageNet: a quarter of the size, and an eighth."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.quarter = nn.Sequential(
            nn.Conv2d(channels, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A quarter, an eighth."""
        x = self.quarter(x)
        return x, self.eighth(x)


def _stem(shape: Shape, width: int) -> tuple[nn.Module, int, int, bool]:
    """The stem, channels of both outputs, and whether the second is half of the first."""
    if shape.family == "classification" and shape.side >= _LARGE:
        return LargeStem(shape.channels, width), width, width, True
    stride = 2 if shape.family == "segmentation" else 1
    return Stem(shape.channels, _STEM * width, stride), _STEM * width, _STEM * width, False


class Classifier(nn.Module):
    """Mean over the image, linear layer."""

    def __init__(self, ins: int, shape: Shape) -> None:
        super().__init__()
        self.linear = nn.Linear(ins, shape.outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(N, classes)."""
        return self.linear(x.mean((2, 3)))


class Decoder(nn.Module):
    """A convolution, logits, enlarged to the image."""

    def __init__(self, ins: int, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, ins // NODES, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(ins // NODES)
        self.conv_seg = nn.Conv2d(ins // NODES, shape.outputs, 1)  # as segmentation networks call it: drawn small

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(N, classes, H, W)."""
        x = self.conv_seg(torch.relu(self.norm(self.conv(torch.relu(x)))))
        return F.interpolate(x, image.shape[2:], mode="bilinear", align_corners=False)


class Enlarger(nn.Module):
    """A convolution to scale^2 pixels for each, shuffled, beside the bicubic image."""

    def __init__(self, ins: int, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, shape.outputs * shape.scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(shape.scale)
        self.bicubic = Bicubic(shape.scale)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(N, colours, H * scale, W * scale)."""
        return self.shuffle(self.conv(torch.relu(x))) + self.bicubic(image)


_HEADS = {"classification": Classifier, "segmentation": Decoder, "super resolution": Enlarger}
FAMILIES = tuple(_HEADS)


class AuxiliaryHead(nn.Module):
    """DARTS' for CIFAR: logits from the last reduction's output, (N, ins, 8, 8) -> (N, classes)."""

    def __init__(self, ins: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3, count_include_pad=False),
            nn.Conv2d(ins, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.linear = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes)."""
        return self.linear(self.features(x).flatten(1))


def takes_auxiliary_head(shape: Shape) -> bool:
    """Whether the last reduction's output has the 8 x 8 positions that the auxiliary head is made for."""
    return shape.family == "classification" and 29 <= shape.side <= 32


def without_auxiliary_head(network: CellNetwork) -> CellNetwork:
    """The network as it is used; changed in place."""
    if hasattr(network, "auxiliary"):
        del network.auxiliary
    return network


def drop_paths(network: CellNetwork, share: float) -> None:
    """Drop this share of the samples of every operation but skips, while the network trains."""
    for cell in network.cells:
        if isinstance(cell, Found):
            cell.drop = share


# ---------------------------------------------------------------------------------------------- the authors' networks

_CIFAR = {"tiny": (30, 16, "dass-99"), "small": (36, 20, "dass-99"), "medium": (86, 12, "dass-99")}
SIZES = _CIFAR | {"large": (108, 14, "dass-99"), "darts": (36, 20, "darts")}


def named(size: str, channels: int = 3, classes: int = 10, side: int = 32) -> CellNetwork:
    """One of ``SIZES`` with fresh weights, as a classifier."""
    width, cells, genotype = SIZES[size]
    return CellNetwork(Shape("classification", channels, classes, side), width, cells, parse(genotype))
