"""Networks by name, a user's own, and published weights: what cannot be built or loaded is refused in words."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slimbench.core import UserError
from slimbench.tasks import _networks, _published, cifar
from slimbench.tasks._networks.shortcut import PaddedShortcut
from slimbench.tasks.cifar import CIFAR10

if TYPE_CHECKING:
    from pathlib import Path

LOADERS = (cifar._load, cifar._read)


# --------------------------------------------------------------------------------------------------- published weights


def publish(root: Path, monkeypatch, content: bytes) -> CIFAR10:
    """Declare ``content`` to be the published weights of ResNet-20."""
    key = ("cifar10", "resnet20", "akamaster")
    below = _published._FILES[key][0]
    monkeypatch.setitem(_published._FILES, key, (below, hashlib.sha256(content).hexdigest(), 91.73))
    (root / below).parent.mkdir(parents=True)
    (root / below).write_bytes(content)
    return CIFAR10(weights="akamaster")


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_unknown_published_weights_get_a_suggestion():
    """Another name, or a network that none were published for."""
    with pytest.raises(UserError, match="did you mean 'cifar10 resnet20 akamaster'"):
        CIFAR10(weights="akamastr").published()
    with pytest.raises(UserError, match=r"No published weights 'cifar10 vgg16-bn akamaster'.*known"):
        CIFAR10(network="vgg16-bn", weights="akamaster").published()
    assert CIFAR10().published() is None


def test_published_weights_are_loaded(root, monkeypatch):
    """Names lose the prefix of data-parallel training."""
    source = CIFAR10(network="resnet20").build()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    task = publish(root, monkeypatch, saved({"state_dict": state}))
    model = task.build()
    task.load_published(model)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    assert task.published().claimed == 91.73


def test_missing_or_altered_weights_are_refused(root, monkeypatch):
    """The file and its source are named."""
    task = publish(root, monkeypatch, saved({}))
    (path,) = root.rglob("*.th")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=f"{path} is not the published one"):
        task.load_published(task.build())
    path.unlink()
    with pytest.raises(UserError, match=r"weights are missing .*resnet20-12fca82f[.]th.*https://"):
        task.load_published(task.build())
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(UserError, match=r"weights are missing \(BENCH_DATA is not set\)"):
        task.load_published(task.build())


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_weights_that_would_run_code_are_refused(root, monkeypatch):
    """And do not run it, though their checksum is the declared one."""
    task = publish(root, monkeypatch, saved({"state_dict": {"conv1.weight": Payload(root / "it ran")}}))
    with pytest.raises(UserError, match="cannot be read without running code"):
        task.load_published(task.build())
    assert not (root / "it ran").exists()


def test_published_resnet20_classifies(real_data):
    """At least 90 % of a thousand test images: names, normalisation and shortcuts are those of its training."""
    task = CIFAR10(weights="akamaster")
    model = task.build().eval()
    task.load_published(model)
    inputs, labels = task.batch("test", torch.arange(1000), None)
    with torch.inference_mode():
        assert (model(inputs).argmax(1) == labels).float().mean() >= 0.90


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenet2", "Unknown network 'mobilenet2' .did you mean 'mobilenetv2'"),
        ("my_nets", "Unknown network 'my_nets'; one of yours is module:function; known: "),
        ("imagenet-resnet81", "did you mean 'imagenet-resnet18'"),
        ("resnet21", "6n [+] 2 layers .*not 21"),
        ("resnet2", "6n [+] 2 layers .*not 2"),
        ("lenet5", "at least 16 x 16 pixels, not 8 x 8"),
    ],
)
def test_networks_that_cannot_be_built(name, message):
    """The nearest name, or the reason."""
    with pytest.raises(UserError, match=message):
        _networks.build(name, 1, 10, 8)


def test_lenet5_at_its_least():
    """16 x 16 leaves one pixel after the second pooling, 15 x 15 none."""
    with pytest.raises(UserError, match="not 15 x 15"):
        _networks.build("lenet5", 1, 10, 15)
    assert _networks.build("lenet5", 1, 10, 16)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_fresh_weights_are_hes():
    """Deviation sqrt(2 / fan in), no bias; drawing again changes every weight and resets the batch norms."""
    model = _networks.build("vgg16-bn", 3, 10, 32)
    assert model.features[-4].weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not model.classifier.bias.any()
    before, norm = model.features[0].weight.clone(), model.features[1]
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.running_mean)
    _networks.initialise(model)
    assert not (before == model.features[0].weight).any()
    assert norm.weight.all()
    assert not norm.running_mean.any()


@pytest.mark.parametrize("name", ["imagenet-resnet18", "imagenet-mobilenetv2", "resnet18-cifar", "resnet20"])
def test_fresh_weights_are_drawn_as_those_of_the_dense_network(name):
    """From one seed a network is built with the weights that a method, drawing anew, would give it."""
    torch.manual_seed(0)
    built = _networks.build(name, 3, 10, 32)
    torch.manual_seed(1)
    drawn = _networks.build(name, 3, 10, 32)
    _networks.initialise(drawn)
    spreads = zip(built.named_parameters(), drawn.parameters(), strict=True)
    assert all(a.std().item() == pytest.approx(b.std().item(), rel=0.3) for (_, a), b in spreads if a.numel() > 100)


@pytest.fixture
def nets(monkeypatch) -> str:
    """A user's module."""
    module = types.ModuleType("nets_of_a_user")
    module.sized = lambda channels, classes: nn.Conv2d(channels, classes, 1)
    module.fixed = lambda: nn.Conv2d(3, 10, 1)
    module.wrong = lambda channels, classes: "no network"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


@pytest.mark.parametrize("function", ["sized", "fixed"])
def test_a_users_own_network(nets, function):
    """With channels and classes, or without."""
    assert CIFAR10(network=f"{nets}:{function}").build().weight.shape == (10, 3, 1, 1)


@pytest.mark.parametrize(
    ("function", "message"), [("wrong", "returned a str"), ("absent", "cannot be imported .*absent")]
)
def test_a_users_network_that_is_none(nets, function, message):
    """What came instead of a module."""
    with pytest.raises(UserError, match=message):
        _networks.build(f"{nets}:{function}", 3, 10, 32)


RAISING = """
def raises(channels, classes):
    return deeper()

def deeper():
    raise KeyError("weights.pt")

def odd(a, b, c): ...
number = 3
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "The network 'raising_here:raises' cannot be built (KeyError: 'weights.pt' in {file}, line 6): "),
        (
            "odd",
            "missing 1 required positional argument: 'c'): the function must return it when called with (channels, ",
        ),
        ("number", "raising_here:number is a int: it must be a function that returns a torch.nn.Module."),
    ],
)
def test_a_users_function_that_fails(tmp_path, monkeypatch, function, message):
    """What was raised, in which line, and how it is called."""
    file = tmp_path / "raising_here.py"
    file.write_text(RAISING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "raising_here", raising=False)
    with pytest.raises(UserError, match=re.escape(message.format(file=file))):
        _networks.build(f"raising_here:{function}", 3, 10, 32)


def test_a_users_module_that_fails(tmp_path, monkeypatch):
    """While it is imported: in which line."""
    file = tmp_path / "failing_here.py"
    file.write_text("\n\nint('a')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = f"cannot be imported (ValueError: invalid literal for int() with base 10: 'a' in {file}, line 3)"
    with pytest.raises(UserError, match=re.escape(message)):
        _networks.build("failing_here:net", 3, 10, 32)


def test_a_users_module_that_is_missing():
    """Is the user's error."""
    with pytest.raises(UserError, match=r"cannot be imported .*not_there"):
        _networks.build("not_there:network", 3, 10, 32)


@pytest.mark.parametrize("size", [6, 7])
def test_the_shortcut_of_option_a_is_a_padded_slice(size):
    """Every second pixel; eight zero channels on either side of sixteen."""
    x = torch.randn(2, 16, size, size)
    assert torch.equal(PaddedShortcut(16, 32, 2)(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)))


@pytest.mark.parametrize("source", [[2, -1, 0], [-1, 0, 1, 2], [0, 1, 2], [0, 1], [-1, -1], [1, 1, 2, -1, 0]])
def test_the_shortcut_follows_any_map(source):
    """Output channel k copies input channel source[k], or is zero."""
    shortcut, x = PaddedShortcut(3, 6, 2), torch.randn(2, 3, 4, 4)
    shortcut.set_map(source, 3)
    expected = torch.stack([x[:, s, ::2, ::2] if s >= 0 else torch.zeros(2, 2, 2) for s in source], 1)
    assert torch.equal(shortcut(x), expected)
    assert f"source={source}" in repr(shortcut)


def test_torchvision_imports_in_a_fresh_process():
    """Also where its operators were built for other libraries than torch's."""
    code = "from slimbench.tasks._torchvision import torchvision as t; t().models, t().datasets, t().transforms"
    subprocess.run([sys.executable, "-c", code], check=True)
