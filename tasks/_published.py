"""Weights that others published: where they lie, what they claim, and how to read them without running pickles."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from slimbench.core import Published, UserError
from slimbench.discover import suggestion
from slimbench.environment import data_root

if TYPE_CHECKING:
    from torch import nn

_AKAMASTER = "weights/cls/cifar10_resnet_akamaster/{}"
_VDSR = (
    "weights/sr/vdsr_twtygqyy/vdsr_state_dict.pth",
    "743861c3edb74e94d61c491ea8ec38f478bac7464d1e287e53cd5219589bcb46",
)
_SOURCES = {
    "akamaster": "https://github.com/akamaster/pytorch_resnet_cifar10",
    "twtygqyy": "https://github.com/twtygqyy/pytorch-vdsr",
    "bytedance": "https://arxiv.org/abs/2205.07514",
}

# (task, network, name) -> file below BENCH_DATA, sha256, published figure: test top-1 in %, or Set5's PSNR-Y in dB
_FILES = {
    ("cifar10", "resnet20", "akamaster"): (
        _AKAMASTER.format("resnet20-12fca82f.th"),
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        91.73,
    ),
    ("cifar10", "resnet32", "akamaster"): (
        _AKAMASTER.format("resnet32-d509ac18.th"),
        "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        92.63,
    ),
    ("cifar10", "resnet56", "akamaster"): (
        _AKAMASTER.format("resnet56-4bfd9763.th"),
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        93.39,
    ),
    # one network for all scales
    ("super resolution x2", "vdsr", "twtygqyy"): (*_VDSR, 37.65),
    ("super resolution x3", "vdsr", "twtygqyy"): (*_VDSR, 33.77),
    ("super resolution x4", "vdsr", "twtygqyy"): (*_VDSR, 31.45),
    ("super resolution x2", "rlfn", "bytedance"): (
        "weights/sr/rlfn/rlfn_x2.pth",
        "eafe5d5feeb122022453595c06d79160facdc157ae88deb02a44c50f5eba2d41",
        38.07,
    ),
    ("super resolution x4", "rlfn", "bytedance"): (
        "weights/sr/rlfn/rlfn_x4.pth",
        "8c7edb57dfc89048bafba29d591d4c27d4099964b4a9e22df23d6dc257a637c0",
        32.24,
    ),
}


def find(task: str, network: str, name: str) -> Published | None:
    """What is known of the weights ``name``, or None for "". Raises: UserError where there are none."""
    if not name:
        return None
    known = [f"{t} {n} {w}" for t, n, w in _FILES]
    if (task, network, name) not in _FILES:
        wanted = f"{task} {network} {name}"
        raise UserError(f"No published weights {wanted!r}{suggestion(wanted, known)}; known: {'; '.join(known)}.")
    _, sha256, claimed = _FILES[task, network, name]
    return Published(name, sha256, claimed, _SOURCES[name])


def load(published: Published | None, model: nn.Module) -> None:
    """Put published weights into ``model``. Raises: UserError where the file is missing or altered."""
    import torch

    from slimbench.artifact import sha256

    if published is None:
        raise UserError("This task starts from no published weights.")
    below = next(file for file, digest, _ in _FILES.values() if digest == published.sha256)
    root = data_root()
    path = root / below if root else None
    if path is None or not path.is_file():
        where = f"{root} has no {below}" if root else "BENCH_DATA is not set"
        raise UserError(f"The published weights are missing ({where}): put the file from {published.source} there.")
    if sha256(path) != published.sha256:
        raise UserError(f"The weights file {path} is not the published one (its checksum differs): fetch it again.")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, KeyError) as error:
        raise UserError(f"The weights file {path} cannot be read without running code ({error}).") from error
    state = content.get("state_dict", content)  # a checkpoint of training, or the weights alone
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
