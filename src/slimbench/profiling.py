"""A network of the user's own goes in, in whatever form; an artifact, and what profiles say of it, come out."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from slimbench import artifact, discover, identity, measure
from slimbench.core import UserError
from slimbench.fresh import apart
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from slimbench.core import HardwareProfile, Level, Measurement

Shape = tuple[int, ...]  # (C, H, W)


@dataclasses.dataclass(frozen=True)
class Taken:
    """What one profile said of a network; ``against`` is empty where it was timed by itself."""

    profile: HardwareProfile
    network: str
    against: str
    measurement: Measurement


def shape_of(text: str | None) -> Shape | None:
    """``C,H,W`` as numbers. Raises: UserError."""
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"Cannot read --input {text!r}: write channels,height,width, as in 3,32,32.")
    return shape


def network(what: str, shape: Shape | None, store: str, work: Path, classes: int | None = None) -> Path:
    """The folder of an artifact, made in ``work`` where ``what`` is none.

    Args:
        what: a file.onnx, a file.pt2 (torch may run its maker's code), an artifact's folder, module:function, or the id
            of a record in ``store``.
        classes: what a function is called with, after the number of channels; None: it is called with nothing.

    Raises: UserError.

    """
    path = Path(what).expanduser()
    if path.suffix in {".onnx", ".pt2"}:
        if not path.is_file():
            raise UserError(f"The file {path} does not exist.")
        return (_of_onnx if path.suffix == ".onnx" else _of_program)(path, shape, work)
    if path.is_dir():
        if not (path / "manifest.json").is_file():
            raise UserError(f"The folder {path} is no artifact: it has no manifest.json.")
        artifact.verify(path)
    elif ":" in what:
        return _exported(_called(what, shape, classes), _needed(shape, what), work)
    else:
        path = _stored(what, store)
    return _at(path, shape, work) if shape else path


def _stored(what: str, store: str) -> Path:
    if not Path(store).is_dir() or "/" in what or "." in what:
        raise UserError(
            f"{what!r} is no network: give a file.onnx, a file.pt2, an artifact's folder, module:function, or the id "
            f"of a record in the store {store}."
        )
    opened = Store(store, create=False)
    folder = artifact.of_record(opened, opened.find(what))
    artifact.verify(folder)
    return folder


def _of_onnx(path: Path, shape: Shape | None, work: Path) -> Path:
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and the checker's own
        raise UserError(f"{path} is no valid ONNX file ({_first_line(error)}).") from error
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in held]
    dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:] if len(inputs) == 1 else []
    if len(dims) != 3:
        raise UserError(f"{path} must have one input, (N, C, H, W); it has {len(inputs)}.")
    if not shape and not all(dims):
        raise UserError(f"{path} leaves its size open: say it with --input C,H,W.")
    artifact.save_onnx(path, shape or dims, work)
    return work


def _of_program(path: Path, shape: Shape | None, work: Path) -> Path:
    import torch

    logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it would show a traceback of what we say in a word
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.export.load(path)
        (name,) = program.graph_signature.user_inputs
        node = next(node for node in program.graph.nodes if node.name == name)
        _, *known = node.meta["val"].shape
        module = program.module(check_guards=False)
    except Exception as error:  # torch's, zipfile's and json's own
        raise UserError(f"{path} is no torch.export program of one input ({_first_line(error)}).") from error
    fixed = tuple(known) if all(isinstance(size, int) for size in known) else None
    return _exported(module, _needed(shape or fixed, str(path)), work, what=str(path))


def _called(what: str, shape: Shape | None, classes: int | None) -> nn.Module:
    from slimbench.tasks import _networks

    if classes is not None:
        _networks.own_function(what)  # said before its size
        return _networks.own(what, _needed(shape, what)[0], classes)
    if _networks.needs_arguments(what):
        raise UserError(f"{what} needs arguments: say --classes N, and it is called with (channels, classes).")
    return _networks.own(what)


def _needed(shape: Shape | None, what: str) -> Shape:
    if shape is None:
        raise UserError(f"{what} does not say the size of its input: say it with --input C,H,W.")
    return shape


def _exported(model: nn.Module, shape: Shape, work: Path, what: str = "The network") -> Path:
    import torch

    try:
        artifact.save(model, torch.zeros(1, *shape), work)
    except Exception as error:  # whatever the network raises
        raise UserError(f"{what} cannot be exported for inputs (N, {_x(shape, ', ')}): {_first_line(error)}") from error
    return work


def _at(folder: Path, shape: Shape, work: Path) -> Path:
    """The same network for inputs of another size."""
    module = artifact.load(folder).module(check_guards=False)
    return _exported(module, shape, work, what=str(folder))


def profiled(
    profiles: Sequence[HardwareProfile], named: tuple[str, Path], against: tuple[str, Path] | None, level: Level
) -> list[Taken]:
    """Measure by each profile, apart from this process and from each other. Raises: UserError."""
    taken = []
    other = against or named
    for profile in profiles:
        label = identity.label(profile)
        if reason := profile.unavailable():
            raise UserError(f"The profile {label} is unavailable: {reason}.")
        for name, folder in dict.fromkeys((named, other)):
            if (folder / artifact.ONNX).is_file() and not getattr(profile, "takes_onnx", False):
                others = ", ".join(taking_onnx())
                raise UserError(f"The profile {label} takes no ONNX files: give {name} as .pt2, or one of {others}.")
        try:
            measurement = apart(measure.timed, profile, named[1], other[1], level, anew=False)
        except RuntimeError as error:
            raise UserError(f"{named[0]} cannot be measured by {label}: {_first_line(error)}") from error
        taken.append(Taken(profile, named[0], against[0] if against else "", measurement))
    return taken


def taking_onnx() -> list[str]:
    """Names of the profiles that take ONNX files."""
    return [name for name, cls in discover.found("hardware_profiles").items() if getattr(cls, "takes_onnx", False)]


def default_profile(*networks: str | None) -> str:
    """What times these where nobody says: PyTorch's, or for ONNX files the one that takes them."""
    return "onnx_cpu" if any(str(text).endswith(".onnx") for text in networks) else "cpu"


def as_json(taken: Taken) -> str:
    """One line: every field, and what follows from them."""
    m = taken.measurement
    body = dataclasses.asdict(m) | {"images_per_s": m.images_per_s, "indicative": m.indicative}
    described = identity.describe(taken.profile) | {"version": taken.profile.version}
    return json.dumps(
        {
            "network": taken.network,
            "against": taken.against,
            "profile": described,
            "refused": measure.refusal(m),
            "measurement": body,
            "environment": measure.environment_of(taken.profile),
        }
    )


def table(taken: Sequence[Taken]) -> str:
    """A row a figure, a column a profile."""
    columns = [_rows(one) for one in taken]
    names = list(dict.fromkeys(name for rows in columns for name in rows))
    body = [[name, *(rows.get(name, "") for rows in columns)] for name in names]
    heads = ["", *(f"{identity.label(one.profile)} {one.measurement.level}" for one in taken)]
    return tabulate(body, heads, disable_numparse=True, colalign=("left", *("right" for _ in taken)))


def _rows(taken: Taken) -> dict[str, str]:
    m = taken.measurement
    few = {name: " (indicative)" if name in m.indicative else "" for name in ("p90_ms", "p99_ms")}
    rows = {
        "input": _x(m.input_shape),
        "p50": f"{m.p50_ms:.3f} ms",
        "p90": f"{m.p90_ms:.3f} ms{few['p90_ms']}",
        "p99": f"{m.p99_ms:.3f} ms{few['p99_ms']}",
        "interquartile range": f"{m.iqr_ms:.3f} ms",
        "throughput": f"{m.images_per_s:,.0f} images/s",
        "peak memory": _megabytes(m.peak_bytes),
        "reserved memory": _megabytes(m.reserved_bytes),
        "file": _megabytes(m.artifact_bytes),
        "energy a pass": "" if m.energy_mj is None else f"{m.energy_mj:.2f} mJ",
        "A/A noise": f"± {100 * m.noise:.1f} %",
        "threads": str(m.threads),
        "samples": f"{m.samples} in {m.processes} process{'es' if m.processes > 1 else ''}",
        "runtime": str(m.device.get("runtime", "")),
        "device": str(m.device.get("name", "")),
    }
    if taken.against:
        rows |= {
            "against: p50": f"{m.dense_p50_ms:.3f} ms",
            "against: peak memory": _megabytes(m.dense_peak_bytes),
            "against: file": _megabytes(m.dense_artifact_bytes),
            "measured speed-up": f"{m.ratio:.2f}x [{m.ratio_low:.2f}, {m.ratio_high:.2f}]",
            "verdict": verdict(m),
        }
    if m.disturbed:
        rows["refused" if measure.refusal(m) else "disturbed"] = m.disturbed
    return {name: text for name, text in rows.items() if text}


def verdict(m: Measurement) -> str:
    """What the interval says, beside the noise."""
    if m.ratio_low > 1 + m.noise:
        return "faster"
    return "slower" if m.ratio_high < 1 - m.noise else "no difference"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.2f} MB"


def _x(shape: Sequence[int], between: str = " x ") -> str:
    return between.join(str(size) for size in shape)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()[:200]
