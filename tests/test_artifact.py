"""Stored networks compute what they did, wherever they are loaded; what was tampered with is refused, not run."""

from __future__ import annotations

import copy
import errno
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import ROOT, lively
from slimbench import artifact, cost, export, feeding, identity
from slimbench.core import UserError
from slimbench.hardware_profiles import _program
from slimbench.methods import _fusible, _fusible_sites, _surgery
from slimbench.tasks import _files, _networks
from slimbench.tasks._networks.shortcut import PaddedShortcut
from slimbench.tasks.digits import Digits
from slimbench.tasks.imagenet import ImageNet
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

EXACT = 1e-5  # of the largest output: what "computes the same" means in float32
SHAPES = {"resnet8": (1, 8, 8), "mobilenetv2": (3, 16, 16), "vgg16-bn": (3, 32, 32), "lenet5": (1, 16, 16)}


def network(name: str) -> nn.Module:
    """With batch norms that do something."""
    torch.manual_seed(0)
    channels, size, _ = SHAPES[name]
    model = _networks.build(name, channels, 10, size).eval()
    return lively(model)


def pruned() -> nn.Module:
    """A ResNet-8 whose shortcuts are no longer a plain padding."""
    model, example = network("resnet8"), torch.zeros(1, *SHAPES["resnet8"])
    every = _surgery.widths(model, example)
    _surgery.remove(model, every, [{1, 4} if index % 2 == 0 else {0} for index in range(len(every))])
    assert any(isinstance(m, PaddedShortcut) and m.pads is None for m in model.modules())
    return model


def fused() -> nn.Module:
    """A ResNet-8 with fused, scaled and dropped convolutions."""
    model = network("resnet8")
    sites = _fusible_sites.sites(model)
    for layer in _fusible.install(model, sites).values():
        nn.init.uniform_(layer.scale, 0.5, 1.5)
    inner, closing = ([site for site in sites if site.closes_branch == closes] for closes in (False, True))
    _fusible.drop(model, inner[0])
    _fusible.drop(model, closing[-1])
    _fusible.fuse(model)
    assert {_fusible.Scale, _fusible.Nothing} <= {type(m) for m in model.modules()}
    return model.eval()


MADE = {name: (lambda name=name: network(name)) for name in SHAPES} | {"pruned": pruned, "fused": fused}


@pytest.fixture(scope="module", params=MADE)
def stored(request, tmp_path_factory) -> tuple[nn.Module, torch.Tensor, Path]:
    """A network, one input and the folder that it is stored in."""
    model, example = MADE[request.param](), torch.randn(1, *SHAPES.get(request.param, SHAPES["resnet8"]))
    folder = tmp_path_factory.mktemp(request.param) / "artifact"
    artifact.save(model, example, folder)
    return model, example, folder


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The artifact of a small network; tests copy it."""
    folder = tmp_path_factory.mktemp("original") / "artifact"
    artifact.save(tiny(), torch.zeros(1, 1, 6, 6), folder)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "artifact")


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()


def gap(one, two, inputs: torch.Tensor) -> float:
    with torch.inference_mode():
        return export.difference(one(inputs), two(inputs))


# ------------------------------------------------------------------------------------- every kind of network


def test_reloaded_networks_compute_the_same(stored):
    """At batch 1, at batch 32, and for inputs and weights in channels-last order."""
    model, example, folder = stored
    loaded = artifact.load(folder).module(check_guards=False)
    for batch in (1, 32):
        inputs = torch.randn(batch, *example.shape[1:])
        assert gap(loaded, model, inputs) <= EXACT
        assert gap(loaded, model, inputs.to(memory_format=torch.channels_last)) <= EXACT
    loaded.to(memory_format=torch.channels_last)
    assert gap(loaded, model, inputs.to(memory_format=torch.channels_last)) <= EXACT


def test_counts_are_unchanged(stored):
    """The layer list, every tensor under its name, the bytes, and the shapes in the program are the network's."""
    model, example, folder = stored
    manifest, weights = artifact.verify(folder), artifact.load_weights(folder)
    assert manifest["layers"] == artifact.layer_list(model)
    assert manifest["input"] == list(example.shape[1:])
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert sum(t.numel() * t.element_size() for t in weights.values()) == cost.count(model, example).bytes
    held = artifact.load(folder).state_dict
    assert {name: t.shape for name, t in held.items()} == {name: t.shape for name, t in weights.items()}


def test_folded_networks_compute_the_same(stored):
    """No batch norm is left, every convolution is, and one batch of each layout agrees."""
    model, example, folder = stored
    folded = _program.load_folded(folder)
    targets = [str(node.target) for node in folded.graph.nodes]
    assert not any("batch_norm.default" in target for target in targets)
    assert targets.count("aten.conv2d.default") == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    inputs = torch.randn(4, *example.shape[1:])
    assert gap(folded, model, inputs) <= EXACT
    folded.to(memory_format=torch.channels_last)
    assert gap(folded, model, inputs.to(memory_format=torch.channels_last)) <= EXACT


# ----------------------------------------------------------------------------------------------------- folding


class Shared(nn.Module):
    """One convolution is read by a batch norm and by a sum; one batch norm follows no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.after = nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        return self.after(torch.relu(self.norm(y) + y))


def folded_gap(model: nn.Module) -> tuple[float, int]:
    """The difference that folding makes, and the number of batch norms that are left."""
    for name, buffer in model.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 2.0)
    exported = artifact.program(model.eval(), torch.zeros(1, 1, 6, 6)).module(check_guards=False)
    folded = _program.fold(exported)
    left = sum("batch_norm" in str(node.target) and node.op == "call_function" for node in folded.graph.nodes)
    return gap(folded, model, torch.randn(3, 1, 6, 6)), left


def test_folding_without_gain_and_with_a_bias():
    """A batch norm without parameters after a convolution with a bias, stride and groups folds too."""
    layers = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride=2, groups=2)
    difference, left = folded_gap(nn.Sequential(*layers, nn.BatchNorm2d(4, affine=False, eps=0.1)))
    assert difference <= EXACT
    assert left == 0


@pytest.mark.parametrize(
    ("conv", "left"),
    [
        (nn.Conv2d(1, 4, 3, padding="same"), 0),
        (nn.ConvTranspose2d(1, 4, 3, stride=2, output_padding=1, dilation=2, bias=False), 0),
        (nn.ConvTranspose2d(2, 4, 3, groups=2), 1),
    ],
)
def test_every_kind_of_convolution_folds(conv, left):
    """Padded by name and transposed too; a transposed one in groups stays as it is."""
    before = nn.Identity() if conv.in_channels == 1 else nn.Conv2d(1, conv.in_channels, 1)
    difference, found = folded_gap(nn.Sequential(before, conv, nn.BatchNorm2d(4)))
    assert difference <= EXACT
    assert found == left


def test_what_cannot_fold_stays():
    """A convolution with a second reader keeps its values; after an activation there is nothing to fold into."""
    difference, left = folded_gap(Shared())
    assert difference <= EXACT
    assert left == 2


def test_folding_one_of_two_users_of_a_weight_leaves_the_other():
    """A convolution that is called twice, each time with its own batch norm."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    model = nn.Sequential(conv, nn.BatchNorm2d(1), conv, nn.BatchNorm2d(1))
    assert folded_gap(model) == (pytest.approx(0, abs=EXACT), 0)


# ------------------------------------------------------------------------------------------------------ saving


def test_save_returns_the_hash_of_the_manifest(tmp_path):
    """Which stands for the whole network."""
    returned = artifact.save(tiny(), torch.zeros(1, 1, 6, 6), tmp_path / "a")
    assert returned == artifact.sha256(tmp_path / "a" / "manifest.json")


def test_what_is_stored_is_in_eval_mode(tmp_path):
    """Whatever mode the network is in; it stays in that mode, and trainable."""
    model = tiny().train()
    artifact.save(model, torch.zeros(1, 1, 6, 6), tmp_path / "a")
    assert all(module.training for module in model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert gap(artifact.load(tmp_path / "a").module(check_guards=False), model.eval(), torch.randn(3, 1, 6, 6)) <= EXACT


def test_the_layer_list_by_hand(folder):
    """Leaf layers with their names, kinds and the shapes of their weights."""
    assert artifact.verify(folder)["layers"] == [
        {"name": "0", "kind": "Conv2d", "weight": [2, 1, 3, 3]},
        {"name": "1", "kind": "BatchNorm2d", "weight": [2]},
        {"name": "2", "kind": "ReLU", "weight": None},
    ]


def test_size_is_fixed_unless_asked(tmp_path):
    """Height and width vary where the task needs it."""
    inputs = torch.randn(3, 1, 9, 7)
    model = tiny()
    free = artifact.program(model, torch.zeros(1, 1, 6, 6), dynamic_size=True).module()
    assert gap(free, model, inputs) <= EXACT
    with pytest.raises((AssertionError, RuntimeError)):
        artifact.program(model, torch.zeros(1, 1, 6, 6)).module()(inputs)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_killed_while_saving(folder, monkeypatch, error):
    """No half-written folder is left, and an older artifact stays as it was."""

    def dies(tensors):
        raise error

    monkeypatch.setattr("safetensors.torch.save", dies)  # when the program has been written
    before = artifact.verify(folder)
    for target in (folder, folder.with_name("new")):
        with pytest.raises(error):
            artifact.save(tiny(), torch.zeros(1, 1, 6, 6), target)
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]
    assert artifact.verify(folder) == before


def test_a_full_disk_while_saving_is_said_in_words(folder, monkeypatch):
    """Not the end of the process, and nothing is left."""
    from slimbench.files import StoreFullError

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreFullError, match="is full"):
        artifact.save(tiny(), torch.zeros(1, 1, 6, 6), folder.with_name("new"))
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]


# -------------------------------------------------------------------------------------------------- tampering


@pytest.mark.parametrize("name", ["program.pt2", "weights.safetensors"])
@pytest.mark.parametrize("read", [artifact.load, artifact.load_weights, artifact.verify])
def test_an_altered_byte_is_found_and_named(folder, name, read):
    """In either file, whichever is asked for."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} does not match its checksum"):
        read(folder)


@pytest.mark.parametrize("name", ["manifest.json", "program.pt2", "weights.safetensors"])
def test_a_missing_file_is_found(folder, name):
    """The folder is named, and what to do."""
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{folder} is missing or damaged.*{name}.*run its cell again"):
        artifact.load(folder)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"sha256": {}}'])
def test_a_damaged_manifest_is_found(folder, text):
    """Not JSON, or JSON without the checksums."""
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="missing or damaged"):
        artifact.load(folder)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def plant(folder: Path, entries: dict[str, bytes | None]) -> None:
    """Put entries into the program (None: take out) and make the manifest agree."""
    path = folder / "program.pt2"
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | {f"program/data/{name}": data for name, data in entries.items()}).items():
            if data is not None:
                archive.writestr(name, data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["program.pt2"] = artifact.sha256(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def config(path_name: str, *, use_pickle: bool) -> bytes:
    """A payload list of one float32 value."""
    one = [{"as_int": 1}]
    meta = {"dtype": 7, "sizes": one, "strides": one, "storage_offset": {"as_int": 0}, "layout": 7}
    meta |= {"requires_grad": False, "device": {"type": "cpu", "index": None}}
    entry = {"path_name": path_name, "is_param": False, "use_pickle": use_pickle, "tensor_meta": meta}
    return json.dumps({"config": {"x": entry}}).encode()


def test_planting_alone_changes_nothing(folder):
    """The tool of the tests below makes archives that load."""
    plant(folder, {})
    assert (
        gap(artifact.load(folder).module(check_guards=False), artifact.load(folder).module(), torch.ones(2, 1, 6, 6))
        == 0
    )


OPAQUE = {"constants/model_constants_config.json": config("opaque_obj_0", use_pickle=False)}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("sample_inputs/model.pt", {}),
        ("weights/model.pt", {}),
        ("weights/extra.pkl", {}),
        ("weights/weight_0", {"weights/model_weights_config.json": config("weight_0", use_pickle=True)}),
        ("constants/tensor_0", {"constants/model_constants_config.json": config("tensor_0", use_pickle=True)}),
        ("sample_inputs/MODEL.PT", {"sample_inputs/model.pt": None}),
        ("constants/opaque_obj_0", OPAQUE),
    ],
)
def test_a_pickle_is_refused_and_never_run(folder, tmp_path, name, more):
    """Wherever the loader would unpickle it: the payload would make a folder."""
    mark = tmp_path / "it ran"
    raw = pickle.dumps([Payload(mark)])
    raw += b"\0" * (-len(raw) % 4)  # whole float32 values
    plant(folder, more | {name: raw if "opaque" in name else torch_pickle(Payload(mark))})
    try:
        with pytest.raises(UserError, match="pickled data"):
            artifact.load(folder)
    finally:
        assert not mark.exists()


# --------------------------------------------------------------------------------------------------- exporting


def test_export_to_onnx_computes_the_same(tmp_path):
    """A pruned network with a general shortcut map, by onnxruntime, at another batch than those it was checked at."""
    import onnxruntime

    model = pruned()
    artifact.save(model, torch.zeros(1, 1, 8, 8), tmp_path / "artifact")
    assert export.export(tmp_path / "artifact", "onnx", tmp_path / "net.onnx") <= export.TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    inputs = torch.randn(3, 1, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.inference_mode():
        assert export.difference(torch.from_numpy(found), model(inputs)) <= export.TOLERANCE
    assert {path.name for path in tmp_path.iterdir()} == {"artifact", "net.onnx"}


def test_export_to_pt2_is_the_stored_program(folder, tmp_path):
    """Byte for byte."""
    assert export.export(folder, "pt2", tmp_path / "net.pt2") == 0.0
    assert (tmp_path / "net.pt2").read_bytes() == (folder / "program.pt2").read_bytes()


def test_export_refuses_a_file_that_computes_something_else(folder, tmp_path, monkeypatch):
    """More than a ten-thousandth of the largest output, at either batch: nothing is written."""
    honest, target = export.run, tmp_path / "net.pt2"
    for wrong in (1, 5):
        monkeypatch.setattr(
            export, "run", lambda file, kind, x, wrong=wrong: honest(file, kind, x) * (1 + 2e-4 * (len(x) == wrong))
        )
        with pytest.raises(UserError, match="computes something else"):
            export.export(folder, "pt2", target)
        assert not target.exists()


@pytest.mark.parametrize("spoil", [lambda y: y * float("nan"), lambda y: y[None]], ids=["nan", "shape"])
def test_export_refuses_what_cannot_be_compared(folder, tmp_path, monkeypatch, spoil):
    """Values that are no numbers, and an output that broadcasts to the right one."""
    honest = export.run
    monkeypatch.setattr(export, "run", lambda *given: spoil(honest(*given)))
    with pytest.raises(UserError, match=r"computes something else \(difference (nan|inf)\)"):
        export.export(folder, "pt2", tmp_path / "net.pt2")
    assert not (tmp_path / "net.pt2").exists()


def test_export_names_a_target_that_cannot_be_written(folder, tmp_path):
    """A folder that is not there is the user's error, with a way out."""
    with pytest.raises(UserError, match=r"nowhere/net.pt2 cannot be written .*--out"):
        export.export(folder, "pt2", tmp_path / "nowhere" / "net.pt2")


def test_difference_is_relative_to_the_largest_output():
    """0.5 off where the largest is 4."""
    assert export.difference(torch.tensor([1.0, -3.5]), torch.tensor([1.0, -4.0])) == 0.125


def test_equal_networks_make_equal_artifacts(tmp_path):
    """A network that torch.fx has rewritten twice, say; no trace of where it was made is in the file."""
    model = _networks.build("resnet8", 1, 4, 8).eval()
    example = torch.randn(1, 1, 8, 8)
    rewritten = [_fusible_sites.without_shortcuts(copy.deepcopy(model)).eval() for _ in range(2)]
    one, two = (artifact.save(m, example, tmp_path / str(n)) for n, m in enumerate(rewritten))
    assert one == two
    with zipfile.ZipFile(tmp_path / "0/program.pt2") as file:
        text = b"".join(file.read(name) for name in file.namelist() if name.endswith(".json"))
    assert str(ROOT).encode() not in text
    assert b"stack_trace" not in text


# --------------------------------------------------------------------------------------- what a file says of itself


@pytest.mark.parametrize("task", [Digits(), TextureDigits(), Photos()], ids=lambda task: task.name)
def test_tasks_say_how_their_networks_are_fed(task):
    """Undone, the scaling gives the task's own 8-bit images, between 0 and 1; what comes out is of the shape said."""
    inputs, _ = task.batch("val", torch.arange(4), None)
    told = feeding.of(task, inputs.shape[1:])
    mean, std = (torch.tensor(told[name])[:, None, None] for name in ("mean", "std"))
    levels = 255 * (inputs * std + mean)
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (levels.round().min(), levels.round().max()) >= (0, 128)
    assert levels.round().max() <= 255
    assert told["range"] == [0, 1]
    assert len(told.get("classes", ())) == len(getattr(task, "class_names", ()))
    words = {"digits": "logits", "texture_digits": "scores by class and pixel", "photos": "RGB"}
    assert words[task.name] in told["output"]


def test_a_task_may_say_itself_how_its_networks_are_fed():
    """One that nothing is known of says nothing of its scaling; what it says itself counts."""
    task = SimpleNamespace(name="mine", network="net", family="sound", any_size=False)
    assert feeding.of(task, (2, 1, 9)).keys() == {"task", "layout", "shape", "any_size"}
    assert feeding.sentence(feeding.of(task, (2, 1, 9))) == "feed it float32 (N, C, H, W), 2 x 1 x 9 pixels"
    assert feeding.sentence(feeding.of(task, (16000,))) == "feed it 16000"
    task.feeding = {"output": "loudness, (N, 1)"}
    assert feeding.sentence(feeding.of(task, (2, 1, 9))).endswith("; it puts out loudness, (N, 1)")


def test_imagenet_says_how_its_images_were_cut(tmp_path):
    """The same pixels by its own words: another way to resize costs accuracy."""
    told = feeding.of(ImageNet(), (3, 224, 224))
    assert "side resized to 256 pixels, bilinear, and the middle 224 x 224" in feeding.sentence(told)
    image = Image.effect_noise((400, 300), 60).convert("RGB")
    image.save(tmp_path / "image.png")
    pixels, _ = _files.batch([(tmp_path / "image.png", 0)], torch.tensor([0]), None, 224, ((0.0,) * 3, (1.0,) * 3))
    cut = np.asarray(image.resize((341, 256), Image.Resampling.BILINEAR))[16:240, 58:282]
    assert np.array_equal(np.rint(255 * pixels[0].numpy()), cut.transpose(2, 0, 1))


def test_how_networks_of_a_changed_task_are_fed_is_not_said():
    """Its numbers may be others today; so for a plug-in that is not loaded, or was edited."""
    stripes = {"is": "stripes", "version": 1}
    user = {"slimbench_plugin_fakes": identity.users_source("slimbench_plugin_fakes")}
    assert feeding.of_record(SimpleNamespace(cell={"task": stripes, "user": user}), (1, 8, 8))["mean"] == [0.5]
    for task, users, words in (
        ({"is": "absent", "version": 1}, {}, "absent is not installed here: give its file with --plugin"),
        ({"is": "digits", "version": 0}, {}, "digits has changed since"),
        (stripes, dict.fromkeys(user, "0"), "stripes has changed since"),
    ):
        with pytest.raises(UserError, match=words):
            feeding.of_record(SimpleNamespace(cell={"task": task, "user": users}), (1, 8, 8))


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_what_a_file_says_of_itself_is_read_back(folder, tmp_path, kind):
    """By its own runtime; a file that has nothing to say has nothing in it."""
    export.export(folder, kind, tmp_path / f"net.{kind}", about={"mean": "[0.5]", "output": "logits"})
    export.export(folder, kind, tmp_path / f"bare.{kind}")
    for name, told in (("net", {"mean": "[0.5]", "output": "logits"}), ("bare", {})):
        file = tmp_path / f"{name}.{kind}"
        if kind == "onnx":
            assert onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map == told
        else:
            extra = {export.ABOUT: ""}
            torch.export.load(file, extra_files=extra)
            assert json.loads(extra[export.ABOUT] or "{}") == told
