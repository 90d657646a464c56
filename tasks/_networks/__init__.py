"""A network's name goes in; the network, with fresh weights, comes out."""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from typing import TYPE_CHECKING

from torch import nn

from slimbench.core import UserError, first_line
from slimbench.discover import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAMES = (
    "resnet18-cifar", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "resnet20-b", "resnet32-b", "resnet44-b", "resnet56-b", "resnet110-b",
    "plain20", "plain56", "preresnet20", "preresnet32", "preresnet56",
    "vgg16-bn", "vgg16-bn-quarter", "vgg16-bn-fc", "vgg16-relu-bn-fc", "mobilenetv2", "mobilenetv2-eighth",
    "lenet5", "mlp",
    "inception3", "inception6", "inception9", "inception12",
    "edsr-tiny", "edsr-small", "edsr-baseline",
    "imagenet-resnet18", "imagenet-resnet50", "imagenet-preresnet18", "imagenet-preresnet50", "imagenet-mobilenetv2",
    "imagenet-inception9", "imagenet-inception28",
)  # fmt: skip
EDSR = {"edsr-tiny": (4, 16), "edsr-small": (8, 32), "edsr-baseline": (16, 64)}  # blocks, features


def build(name: str, channels: int, classes: int, size: int) -> nn.Module:
    """The network ``name`` for inputs (N, channels, size, size) and logits (N, classes).

    ``module:function`` names a user's own: ``function(channels, classes)`` or ``function()``.
    Raises: UserError for an unknown name.
    """
    if ":" in name:
        return own(name, channels, classes)
    model = _numbered(name, channels, classes) or _named(name, channels, classes, size)
    if model is None and (name.startswith("imagenet-") or name == "resnet18-cifar"):
        from slimbench.tasks._networks import imagenet

        small = name == "resnet18-cifar"
        model = imagenet.resnet18_for_small_images(channels, classes) if small else imagenet.build(name, classes)
    if model is None:
        raise unknown(name, NAMES)
    initialise(model)
    return model


def unknown(name: str, names: Sequence[str]) -> UserError:
    """What to raise where nobody knows a network."""
    known = ", ".join(names)
    return UserError(
        f"Unknown network {name!r}{suggestion(name, names)}; one of yours is module:function; known: {known}."
    )


def _numbered(name: str, channels: int, classes: int) -> nn.Module | None:
    """A network whose name ends in its depth or in its number of modules, or None."""
    from slimbench.tasks._networks import inception, preresnet, resnet

    if found := re.fullmatch(r"resnet(\d+)(-b)?|plain(\d+)", name):
        option: resnet.Option = "plain" if found[3] else "B" if found[2] else "A"
        return resnet.CifarResNet(int(found[1] or found[3]), channels, classes, option)
    if found := re.fullmatch(r"preresnet(\d+)", name):
        return preresnet.cifar(int(found[1]), channels, classes)
    if found := re.fullmatch(r"imagenet-preresnet(18|50)", name):
        return preresnet.imagenet(int(found[1]), classes)
    if found := re.fullmatch(r"inception(\d+)", name):
        return inception.cifar(int(found[1]), channels, classes)
    if found := re.fullmatch(r"imagenet-inception(\d+)", name):
        return inception.imagenet(int(found[1]), classes)
    return None


def _named(name: str, channels: int, classes: int, size: int) -> nn.Module | None:
    """A network that comes in one depth, or None."""
    from slimbench.tasks._networks import lenet, mlp, mobilenet, vgg

    if name in {"vgg16-bn", "vgg16-bn-quarter", "vgg16-bn-fc", "vgg16-relu-bn-fc"}:
        divisor = 4 if "quarter" in name else 1
        return vgg.VGG(channels, classes, hidden="fc" in name, relu_first="relu" in name, divisor=divisor)
    if name in {"mobilenetv2", "mobilenetv2-eighth"}:
        return mobilenet.MobileNetV2(channels, classes, thinned=8 if "eighth" in name else 1)
    if name in EDSR:
        from slimbench.tasks._networks import residual_sr

        return residual_sr.EDSRClassifier(*EDSR[name], channels, classes)
    if name == "lenet5":
        return lenet.LeNet5(channels, classes, size)
    return mlp.MLP(channels, classes, size) if name == "mlp" else None


def initialise(model: nn.Module) -> None:
    """Draw fresh weights in place: He's normal (fan in) for products, every other layer as it resets itself.

    Networks that declare ``he_gain`` have their convolutions' weights times that.

    Raises: ValueError for parameters that no layer can draw anew: they would stay as they were trained.
    """
    for name, module in model.named_modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if not isinstance(module, nn.Linear):
                module.weight.data *= getattr(model, "he_gain", 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"the parameters of {name or 'the network'!r} cannot be drawn anew")


_CALLED_WITH = ("nothing", "(scale), or with nothing", "(channels, classes), or with nothing")  # by how many there are


def own(name: str, *arguments: int) -> nn.Module:
    """A user's network from ``module:function``, which takes all ``arguments`` or none.

    Raises: UserError where it cannot be had.
    """
    function = own_function(name)
    try:
        model = function(*arguments) if inspect.signature(function).parameters else function()
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"The network {name!r} cannot be built ({_told(error)}): the function must return it when called with "
            f"{_CALLED_WITH[len(arguments)]}."
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} returned a {type(model).__name__}: it must return a torch.nn.Module.")
    return model


def own_function(name: str) -> Callable[..., nn.Module]:
    """What ``module:function`` names. Raises: UserError where that cannot be imported, or is no function."""
    module_name, _, function_name = name.partition(":")
    try:
        function: Callable[..., nn.Module] = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            f"The network {name!r} cannot be imported ({_told(error)}): give module:function, from the folder that "
            "holds it."
        ) from error
    if not callable(function):
        raise UserError(f"{name} is a {type(function).__name__}: it must be a function that returns a torch.nn.Module.")
    return function


def needs_arguments(name: str) -> bool:
    """Whether a user's function cannot be called without arguments. Raises: UserError where there is none."""
    try:
        inspect.signature(own_function(name)).bind()
    except (TypeError, ValueError):  # it needs some; it does not say
        return True
    return False


def _told(error: Exception) -> str:
    """What was raised, and where in the user's file, if in there."""
    said = first_line(error)[:200]
    below = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame in below if frame.filename != importlib.__file__ and not frame.filename.startswith("<")]
    lines = [frame.lineno for frame in frames if frame.filename == frames[0].filename]
    return f"{said} in {frames[0].filename}, line {lines[-1]}" if lines else said
