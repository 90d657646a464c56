"""mmsegmentation: a network's name goes in, and the network that its config describes comes out, without the runner.

mmsegmentation imports the operators that full mmcv compiles, which mmcv-lite lacks and no network here uses: a
stand-in lets the rest import. It is a no-op where the operators are there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from slimbench.core import MissingLibraryError


class _Operators(types.ModuleType):
    """Stands in for ``mmcv._ext``: every operator is there, and says what it needs when it is called."""

    def __getattr__(self, name: str) -> Any:
        """An operator that raises. Python's own attributes are missing, as they are."""
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"the operator {name} needs full mmcv: pip install mmcv in place of mmcv-lite")

        return missing


@functools.cache
def mmseg(name: str) -> Any:
    """The module ``mmseg.<name>``. Raises: MissingLibraryError where it cannot be imported."""
    from slimbench.tasks._torchvision import torchvision

    torchvision()  # mmengine imports it
    with warnings.catch_warnings():  # of deprecations inside mmengine and mmcv
        warnings.simplefilter("ignore")
        try:
            _stand_in_for_operators()
            module = importlib.import_module(f"mmseg.{name}")
            from mmengine.registry import init_default_scope
        except ImportError as error:
            raise MissingLibraryError("mmsegmentation", error) from error
        init_default_scope("mmseg")  # some parts look others up in the scope that is the default
    return module


def _stand_in_for_operators() -> None:
    if importlib.util.find_spec("mmcv._ext") is None and "mmcv._ext" not in sys.modules:
        stand_in = _Operators("mmcv._ext")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)  # mmengine asks for it
        sys.modules["mmcv._ext"] = stand_in


def base_config(name: str) -> Any:
    """The model settings of one of mmsegmentation's shipped configs, with plain batch norm and fresh weights."""
    mmseg("models")
    from mmengine.config import Config

    package = importlib.util.find_spec("mmseg")
    assert package is not None and package.origin is not None
    path = Path(package.origin).parent / ".mim/configs/_base_/models" / f"{name}.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = Config.fromfile(str(path)).model.to_dict()
    return _mended(config)


def _mended(value: Any) -> Any:
    """The same settings without weights to download and without batch norm across processes."""
    if isinstance(value, (list, tuple)):
        return type(value)(_mended(part) for part in value)
    if not isinstance(value, dict):
        return value
    fresh = {key: _mended(part) for key, part in value.items() if key not in {"pretrained", "init_cfg"}}
    return fresh | {"type": "BN"} if fresh.get("type") == "SyncBN" else fresh


def build(settings: dict[str, Any]) -> Any:
    """A backbone or a head from its settings."""
    models = mmseg("models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models.builder.MODELS.build(settings)
