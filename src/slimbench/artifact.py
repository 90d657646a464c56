"""A network goes in; a folder that any machine can load and time comes out, without pickles.

    program.pt2          torch.export program: eval mode, batch dynamic, batch norm unfolded
    weights.safetensors  its parameters and buffers under the original names; auxiliary heads' too, for training on
    manifest.json        layer list, input shape, sha256 of both files

The sha256 of the manifest stands for the whole network in records and measurement ids. Archives with anything but raw
tensors and JSON are refused. The JSON itself is parsed by torch, which evaluates its shape expressions: take artifacts
from stores that you trust, and check the sha256 that a record names.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slimbench.core import UserError
from slimbench.files import whole_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from slimbench.core import Record
    from slimbench.store import Store

PROGRAM, ONNX = "program.pt2", "network.onnx"
_FILES = (PROGRAM, "weights.safetensors")
# every entry that a program of ours has; torch's loader unpickles some others
_ENTRIES = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id))"
)


def save(
    model: nn.Module,
    example: Tensor,
    folder: Path,
    *,
    trained: nn.Module | None = None,
    dynamic_size: bool = False,
    replacing: Callable[[], None] = lambda: None,
) -> str:
    """Store ``model`` whole or not at all and return the sha256 of its manifest.

    Args:
        example: one input, (1, C, H, W).
        trained: the network with what only training needs, whose weights are stored; None: ``model``.
        dynamic_size: whether height and width vary as well as the batch.
        replacing: called when all is written, before it takes the place of what was there.

    """
    import safetensors.torch

    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # each tensor fills its storage
    with whole_folder(folder) as part:
        # by way of memory: on a full disk torch's own writer ends the process
        buffer = io.BytesIO()
        torch.export.save(program(model, example, dynamic_size=dynamic_size), buffer)
        (part / "program.pt2").write_bytes(buffer.getvalue())
        weights = (trained or model).state_dict()
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in weights.items()}
        (part / "weights.safetensors").write_bytes(safetensors.torch.save(tensors))
        manifest = {
            "input": list(example.shape[1:]),
            "layers": layer_list(model),
            "sha256": {name: sha256(part / name) for name in _FILES},
        }
        write_whole(part / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        checksum = sha256(part / "manifest.json")
        replacing()
    return checksum


def save_onnx(file: Path, shape: Sequence[int], folder: Path) -> None:
    """A folder that runtimes of ONNX files load as they do an artifact; ``shape``: (C, H, W) of its input."""
    with whole_folder(folder) as part:
        shutil.copyfile(file, part / ONNX)
        manifest = {"input": list(shape), "layers": [], "sha256": {ONNX: sha256(part / ONNX)}}
        write_whole(part / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def program(model: nn.Module, example: Tensor, *, dynamic_size: bool = False) -> torch.export.ExportedProgram:
    """The network as a ``torch.export`` program. An example of batch 2: a batch of 1 would be baked in."""
    dynamic: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if dynamic_size:
        # a network of the user's own may be bound to one size: that shall not cost it its training
        dynamic |= {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    inputs = example.expand(2, *example.shape[1:]).contiguous()
    with torch.no_grad():
        exported = torch.export.export(model, (inputs,), dynamic_shapes=(dynamic,))
    exported._example_inputs = None  # would be stored as a pickle
    for node in exported.graph.nodes:  # where and by which objects it was traced would make equal networks differ
        for name in ("from_node", "stack_trace"):
            node.meta.pop(name, None)
    return exported


def load(folder: Path) -> torch.export.ExportedProgram:
    """The stored program, checked. Raises: UserError where a file is missing, altered or pickled."""
    verify(folder)
    refuse_pickles(folder / "program.pt2")
    return torch.export.load(folder / "program.pt2")


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The stored parameters and buffers by name, checked. Raises: UserError."""
    from safetensors.torch import load_file

    verify(folder)
    return load_file(folder / "weights.safetensors")


def of_record(store: Store, record: Record) -> Path:
    """The folder of a cell's network. Raises: UserError where it never had one, or where the store has it no more."""
    if not record.artifact:
        raise UserError(f"The cell {record.id} has no network ({record.status}: {record.reason}).")
    store.bring(record.id)
    folder = store.artifact(record.id)
    if not folder.is_dir():
        raise UserError(
            f"The network of {record.id} is not in {store.place}, which may hold records alone: "
            f"the command that `bench show {record.id}` prints makes it again."
        )
    return folder


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, once the files agree with it. Raises: UserError naming the file."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        for name in (ONNX,) if ONNX in manifest["sha256"] else _FILES:
            if sha256(folder / name) != manifest["sha256"][name]:
                raise UserError(f"{folder / name} does not match its checksum: delete {folder} and run its cell again.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The artifact {folder} is missing or damaged ({error}): delete it and run its cell again."
        ) from error
    return manifest


def refuse_other(folder: Path, checksum: str) -> None:
    """Raises: UserError where a network is not the one of this checksum, which its record names."""
    if sha256(folder / "manifest.json") != checksum:
        raise UserError(f"{folder} is not the network that its record names: delete it and run its cell again.")


def files(folder: Path) -> list[Path]:
    """Those that a network consists of, as far as they are there: what else lies in its folder is none of it."""
    names = ("manifest.json", ONNX, *_FILES)
    return [file for name in sorted(names) if (file := folder / name).is_file()]


def refuse_pickles(path: Path) -> None:
    """Refuse an archive that holds anything but raw tensors and JSON: unpickling executes code. Raises: UserError."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not _ENTRIES.fullmatch(entry.filename) or _is_pickled(entry.filename, archive.read(entry)):
                raise UserError(f"{path} holds pickled data ({entry.filename}): refused, because it could run code.")


def layer_list(model: nn.Module) -> list[dict[str, Any]]:
    """Every leaf layer: its name, kind and the shape of its weight."""
    return [
        {"name": name, "kind": type(m).__name__, "weight": list(m.weight.shape) if _has_weight(m) else None}
        for name, m in model.named_modules()
        if not any(m.children())
    ]


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_weight(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor)


def _is_pickled(name: str, content: bytes) -> bool:
    if name.endswith("_config.json"):
        listed = json.loads(content)["config"].values()
        return any(t["use_pickle"] or not t["path_name"].startswith(("weight_", "tensor_")) for t in listed)
    return name.endswith(".pt") and bool(content)
