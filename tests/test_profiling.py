"""`bench profile`: a network in any form becomes an artifact; what cannot be one is refused in a sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from boards import MACHINE
from slimbench import artifact, export, measure, profiling
from slimbench.cli import main
from slimbench.core import Measurement, UserError
from slimbench.environment import environment
from slimbench.hardware_profiles import edge_remote
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.edge_remote import EdgeRemote
from slimbench.hardware_profiles.openvino import OpenVINO

MODULE = """
from torch import nn
def thin():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def five():
    return 5
width = 8
def fails():
    raise ValueError("no such width")
def asks(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def breaks():
    return nn.Linear(7, 2)
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """One network in every form, and files that are none."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "own_nets_for_profiles.py").write_text(MODULE)
    for name in ("bad.onnx", "bad.pt2"):
        (folder / name).write_text("no network")
    (folder / "empty").mkdir()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    artifact.save(model, torch.zeros(1, 3, 8, 8), folder / "stored")
    export.to_onnx(artifact.load(folder / "stored"), [3, 8, 8], folder / "net.onnx")
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=dynamic), folder / "net.pt2"
    )
    shutil.copytree(folder / "stored", folder / "altered")
    with (folder / "altered/program.pt2").open("ab") as file:
        file.write(b"0")
    return folder


FORMS = ("stored", "net.onnx", "net.pt2", "own_nets_for_profiles:thin")


def bench(given, monkeypatch, *args):
    """`bench profile` in the folder of files, quick, in no store."""
    monkeypatch.chdir(given)
    monkeypatch.syspath_prepend(str(given))
    return CliRunner().invoke(main, ["profile", "--store", "no_store", *args])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", FORMS)
def test_every_form_becomes_an_artifact(given, monkeypatch, tmp_path, what):
    """With the size that it says, or the one that is said for it."""
    monkeypatch.chdir(given)
    monkeypatch.syspath_prepend(str(given))
    shape = (3, 6, 10) if ":" in what else None
    folder = profiling.network(what, shape, "no_store", tmp_path / "work")
    assert artifact.verify(folder)["input"] == [3, *((6, 10) if shape else (8, 8))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", FORMS)
def test_another_size_is_another_artifact(given, monkeypatch, tmp_path, what):
    """And the stored one stays as it is."""
    monkeypatch.chdir(given)
    monkeypatch.syspath_prepend(str(given))
    folder = profiling.network(what, (3, 8, 8), "no_store", tmp_path / "work")
    assert folder == tmp_path / "work"
    assert artifact.verify(folder)["input"] == [3, 8, 8]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", ["asks", "thin"])
def test_a_function_is_called_as_for_compress(given, monkeypatch, tmp_path, function):
    """With the numbers of channels and classes, or with nothing where it takes nothing."""
    outputs = []

    def measured(function, profile, folder, *rest, **more):
        outputs.append(artifact.load(folder).module()(torch.zeros(2, 3, 8, 8)).shape[1])
        return TAKEN

    monkeypatch.setattr(profiling, "apart", measured)
    result = bench(given, monkeypatch, f"own_nets_for_profiles:{function}", "--input", "3,8,8", "--classes", "7")
    assert (result.exit_code, outputs) == (0, [7 if function == "asks" else 4]), result.output


BAD = {
    "no file": (["absent.onnx"], "absent.onnx does not exist"),
    "no program": (["absent.pt2"], "absent.pt2 does not exist"),
    "no onnx": (["bad.onnx", "--profile", "openvino"], "bad.onnx is no valid ONNX file ("),
    "no pt2": (["bad.pt2"], "bad.pt2 is no torch.export program of one input ("),
    "onnx on cpu": (
        ["net.onnx", "--profile", "cpu"],
        "The profile cpu takes no ONNX files: give net.onnx as .pt2, or one of edge_container, edge_remote, onnx_cpu, ",
    ),
    "altered": (["altered"], "altered/program.pt2 does not match its checksum"),
    "no artifact": (["empty"], "empty is no artifact: it has no manifest.json"),
    "nothing": (
        ["resnet"],
        "'resnet' is no network: give a file.onnx, a file.pt2, an artifact's folder, module:function",
    ),
    "no module": (["own_nets_for_profiles:thick"], "thick' cannot be imported ("),
    "no module to call": (["own_nets_for_profiles:thick", "--classes", "5"], "thick' cannot be imported ("),
    "no channels": (["own_nets_for_profiles:asks", "--classes", "5"], "say it with --input C,H,W"),
    "no classes": (["own_nets_for_profiles:asks", "--input", "3,8,8", "--classes", "0"], "0 is not in the range x>=1"),
    "no network": (["own_nets_for_profiles:five", "--input", "3,8,8"], "five returned a int"),
    "arguments": (
        ["own_nets_for_profiles:asks", "--input", "3,8,8"],
        "asks needs arguments: say --classes N, and it is called with (channels, classes).",
    ),
    "fails": (
        ["own_nets_for_profiles:fails", "--input", "3,8,8"],
        "fails' cannot be built (ValueError: no such width in /",
    ),
    "no function": (["own_nets_for_profiles:width", "--input", "3,8,8"], "width is a int: it must be a function that"),
    "no size": (["own_nets_for_profiles:thin"], "does not say the size of its input: say it with --input C,H,W"),
    "wrong size": (
        ["own_nets_for_profiles:breaks", "--input", "3,8,8"],
        "cannot be exported for inputs (N, 3, 8, 8): ",
    ),
    "two sizes": (["stored", "--input", "3,8"], "Cannot read --input '3,8'"),
    "word": (["stored", "--input", "a,b,c"], "Cannot read --input 'a,b,c'"),
    "zero": (["stored", "--input", "3,0,8"], "Cannot read --input '3,0,8'"),
    "profile": (["stored", "--profile", "cpuu"], "Unknown hardware profile 'cpuu' (did you mean 'cpu'?)"),
    "field": (["stored", "--profile", "cpu(batch=0)"], "batch=0 is impossible"),
    "unavailable": (
        ["stored", "--profile", "cpu(threads=999)"],
        "The profile cpu(threads=999) is unavailable: 999 threads",
    ),
    "against": (["stored", "--against", "absent.pt2"], "absent.pt2 does not exist"),
    "level": (["stored", "--level", "slow"], "'slow' is not one of"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", BAD)
def test_bad_input_is_one_sentence(given, monkeypatch, which):
    """And exit status 2, before anything is timed."""
    monkeypatch.setattr(profiling, "apart", lambda *a, **k: pytest.fail("it was measured"))
    monkeypatch.setattr(OpenVINO, "unavailable", lambda self: None)
    args, words = BAD[which]
    result = bench(given, monkeypatch, *args)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


def test_an_onnx_file_of_an_open_size_needs_one(given, tmp_path):
    """Which is then taken."""
    import onnx

    model = onnx.load(given / "net.onnx")
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(UserError, match="leaves its size open: say it with --input"):
        profiling.network(str(tmp_path / "open.onnx"), None, "no_store", tmp_path / "a")
    folder = profiling.network(str(tmp_path / "open.onnx"), (3, 4, 4), "no_store", tmp_path / "b")
    assert artifact.verify(folder)["input"] == [3, 4, 4]


TAKEN = Measurement(
    2.0, 2.5, 3.0, 0.1, 4.0, 2.0, 1.9, 2.1, 0.05, "quick", None, 32, 1, 30, 5_000_000, 9_000_000, 0.0, (0.0, 0.0),
    (None, None), (32, 3, 8, 8), artifact_bytes=1_000_000, dense_artifact_bytes=2_000_000,
)  # fmt: skip


def measured(**more):
    from dataclasses import replace

    return replace(TAKEN, **more)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(1.06, 1.2, "faster"), (1.05, 1.2, "no difference"), (0.8, 0.94, "slower"), (0.8, 0.95, "no difference")],
)
def test_verdicts(low, high, said):
    """The interval must clear the noise of 5 %."""
    assert profiling.verdict(measured(ratio_low=low, ratio_high=high)) == said


def test_the_table_has_a_column_a_profile(given, monkeypatch):
    """With units, and with what too few samples are worth."""
    answers = iter([TAKEN, measured(samples=300_000, processes=5, energy_mj=7.5)])
    monkeypatch.setattr(profiling, "apart", lambda *a, **k: next(answers))
    result = bench(given, monkeypatch, "stored", "--against", "stored", "--profile", "cpu", "--profile", "cpu(batch=1)")
    assert result.exit_code == 0
    lines = {line[:20].strip(): line[20:].split("  ") for line in result.stdout.splitlines()}
    shown = {name: [cell.strip() for cell in cells if cell.strip()] for name, cells in lines.items()}
    assert shown["p90"] == ["2.500 ms (indicative)", "2.500 ms"]
    assert shown["throughput"] == ["16,000 images/s"] * 2
    assert shown["energy a pass"] == ["7.50 mJ"]
    assert shown["samples"] == ["30 in 1 process", "300000 in 5 processes"]
    assert shown["measured speed-up"] == ["2.00x [1.90, 2.10]"] * 2
    assert shown["verdict"] == ["faster"] * 2


def test_alone_it_has_no_speed_up(given, monkeypatch):
    """A network against itself is no news; JSON says what the table does."""
    monkeypatch.setattr(profiling, "apart", lambda *a, **k: measured(disturbed="a planted load"))
    text = bench(given, monkeypatch, "stored").stdout
    assert "speed-up" not in text
    assert "a planted load" in text
    (line,) = bench(given, monkeypatch, "stored", "--json").stdout.splitlines()
    body = json.loads(line)
    assert (body["network"], body["against"], body["refused"]) == ("stored", "", "")
    assert body["measurement"]["images_per_s"] == 16_000.0
    assert body["measurement"]["indicative"] == ["p90_ms", "p99_ms"]
    assert body["profile"] == {"is": "cpu", "batch": 32, "samples": 200, "threads": 1, "version": CPU.version}


def test_json_tells_of_the_machine_that_was_timed(given, monkeypatch):
    """A board's processor and versions, as its record would; ours alone where ours was timed."""
    monkeypatch.setattr(profiling, "apart", lambda *a, **k: TAKEN)
    monkeypatch.setattr(edge_remote, "told", lambda board, python: MACHINE)
    profile = "edge_remote(host='board')"
    board, here = (
        json.loads(bench(given, monkeypatch, "stored", "--json", *more).stdout)["environment"]
        for more in (("--profile", profile), ())
    )
    assert here == environment()
    assert board == measure.environment_of(EdgeRemote(host="board"))
    assert (board["cpu"], board["versions"]["onnxruntime"]) == ("Board 3, Chip 7", "1.20.0")


def test_a_refused_full_measurement_is_exit_status_1(given, monkeypatch):
    """Its reason stands in the table."""
    monkeypatch.setattr(profiling, "apart", lambda *a, **k: measured(level="full", disturbed="a planted load"))
    result = bench(given, monkeypatch, "stored", "--level", "full")
    assert result.exit_code == 1
    assert "refused" in result.stdout


def test_what_goes_wrong_while_measuring_is_one_sentence(given, monkeypatch):
    """The first line of whatever was raised there."""

    def fails(*args, **kwargs):
        raise RuntimeError("the device is gone\nand so on")

    monkeypatch.setattr(profiling, "apart", fails)
    result = bench(given, monkeypatch, "stored")
    assert result.exit_code == 2
    assert result.stderr == "bench: stored cannot be measured by cpu: the device is gone\n"


def test_a_record_is_found_by_its_id(given, monkeypatch, tmp_path):
    """The beginning of it is enough; a cell without a network says so."""
    from slimbench.core import Record
    from slimbench.store import Store

    store = Store(tmp_path / "store")
    store.put(Record("aa11", "a cell", {}, "ok", artifact="some"))
    store.put(Record("bb22", "another", {}, "failed", "it broke"))
    shutil.copytree(given / "stored", store.artifact("aa11"))
    assert profiling.network("aa", None, str(store.root), tmp_path / "work") == store.artifact("aa11")
    with pytest.raises(UserError, match=r"The cell bb22 has no network \(failed: it broke\)"):
        profiling.network("bb22", None, str(store.root), tmp_path / "work")


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_is_measured_by_onnx_runtime(given, monkeypatch):
    """Which is what it gets where no profile is named, also beside a stored network."""
    result = bench(given, monkeypatch, "net.onnx", "--against", "stored", "--json")
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    assert (body["profile"]["is"], body["against"]) == ("onnx_cpu", "stored")
    assert body["measurement"]["artifact_bytes"] == (given / "net.onnx").stat().st_size
    assert bench(given, monkeypatch, "stored", "--against", "net.onnx", "--json").exit_code == 0


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_of_one_batch(given, monkeypatch, tmp_path):
    """It is refused with another, before anything is timed."""
    import onnx

    model = onnx.load(given / "net.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    result = bench(given, monkeypatch, str(tmp_path / "four.onnx"))
    assert result.exit_code == 2
    assert result.stderr == "bench: The ONNX file takes batches of 4 alone: profile it with batch=4.\n"


def test_it_measures(given, monkeypatch):
    """End to end, in processes of their own."""
    result = bench(given, monkeypatch, "stored", "--profile", "cpu(batch=2)", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["measurement"]["input_shape"] == [2, 3, 8, 8]
