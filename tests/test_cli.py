"""The command line: what it says to good and to bad input, and its exit status."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from commands import bench, refused
from conftest import FAKES, HERE
from slimbench import discover, identity
from slimbench.cli import main
from slimbench.core import UserError
from slimbench.store import Store
from slimbench.tasks.cifar import CIFAR10

CONTROLS = ("l1_channels", "random_channels", "uniform_width")
STRIPES = ["--plugin", str(FAKES), "--task", "stripes", "--precision", "fp32"]
HALF = [*STRIPES, "--method", "l1_channels", "--keep", "0.5", "--profile", "cpu", "--seeds", "0"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A store in which one method went well and one failed, and the run that left it."""
    folder = tmp_path_factory.mktemp("ran")
    result = bench("run", *HALF, "--method", "misbehaves", "--jobs", "1", "--json", "--store", "store", cwd=folder)
    return Store(folder / "store"), result


@pytest.fixture
def copied(ran, tmp_path) -> Store:
    """The same store, to spoil."""
    shutil.copytree(ran[0].root, tmp_path / "copied")
    return Store(tmp_path / "copied")


def cell(store: Store, method: str) -> str:
    (found,) = (r.id for r in store.records() if r.cell["method"]["is"] == method)
    return found


def test_a_bug_is_no_cell_that_failed(inside, monkeypatch):
    """Python's own status is 1, and a night goes on after that one; the traceback is shown."""
    from slimbench import listing

    for error in (RuntimeError("a bug"), EOFError("a bug")):
        monkeypatch.setattr(listing, "listing", Mock(side_effect=error))
        result = inside("list")
        assert result.exit_code == 70
        assert result.stderr.startswith("Traceback")
        assert result.stderr.endswith("Error: a bug\n")


# ----------------------------------------------------------------------------------------------------------- bad input

BAD = {
    "suite": (["run", "smok"], "Unknown suite 'smok' (did you mean 'smoke'?)"),
    "method": (["run", "--method", "l1_chanels"], "Unknown method 'l1_chanels' (did you mean 'l1_channels'?)"),
    "task": (["plan", "--task", "digts"], "Unknown task 'digts' (did you mean 'digits'?)"),
    "profile": (["run", "--all", "--profile", "cpuu"], "Unknown hardware profile 'cpuu' (did you mean 'cpu'?)"),
    "network": (["plan", "--task", "cifar10(weights='akamster')"], "No published weights 'cifar10 resnet20 akamster'"),
    "field": (["run", "--method", "l1_channels(round_too=8)"], "has no field 'round_too' (did you mean 'round_to'?)"),
    "spec": (["run", "--method", "l1_channels("], "Cannot read 'l1_channels('"),
    "spec by position": (["run", "--method", "l1_channels(8)"], "write name or name(field=value"),
    "spec of code": (["run", "--method", "l1_channels(round_to=exit())"], "Cannot read"),
    "no suite": (["run"], "Name a suite (", "or say --all"),
    "no data folder": (["run", "smoke", "--data", "/nonexistent"], "The data folder /nonexistent does not exist"),
    "keep 0": (["run", "smoke", "--keep", "0"], "keep=0 is impossible: the share that is left must lie in (0, 1]"),
    "keep 0 of the dense network": (["plan", "smoke", "--method", "dense", "--keep", "0"], "keep=0 is impossible"),
    "epochs of a run": (["plan", "smoke", "--epochs", "-1"], "epochs=-1 is impossible: give zero or more"),
    "keep -1": (["run", "smoke", "--keep", "-1"], "keep=-1 is impossible"),
    "keep 1.5": (["run", "smoke", "--keep", "1.5"], "keep=1.5 is impossible"),
    "keep nan": (["run", "smoke", "--keep", "nan"], "keep=nan is impossible"),
    "keep half": (["run", "smoke", "--keep", "0.5,half"], "Cannot read --keep '0.5,half': write 0.5, or 0.5,0.25"),
    "device": (["run", "smoke", "--device", "gpu"], "Unknown device 'gpu': use cpu or cuda"),
    "precision": (["run", "smoke", "--precision", "fp8"], "Unknown precision 'fp8': use auto, fp32 or bf16"),
    "threads": (["run", "smoke", "--threads", "0"], "threads=0 is impossible: give one or more"),
    "jobs": (["run", "smoke", "--jobs", "0"], "'--jobs': 0 is not in the range x>=1. See `bench run --help`"),
    "time limit": (["run", "smoke", "--time-limit", "-1"], "-1.0 is not in the range"),
    "a file as a store to plan": (["plan", "smoke", "--store", "file"], "The store file is a file: name a folder with"),
    "no network to plan": (["plan", "--task", "digits(network='rsnet')"], "Unknown network 'rsnet'"),
    "a seed below 0": (["plan", "smoke", "--seeds=-1"], "Cannot read --seeds '-1': write 0,1,2 or n=3, none below 0"),
    "the seed below 0": (["train", "digits", "--seed=-1"], "'--seed': -1 is not in the range x>=0"),
    "seeds": (["run", "smoke", "--seeds", "a,b"], "Cannot read --seeds 'a,b': write 0,1,2 or n=3"),
    "no seeds": (["run", "smoke", "--seeds", "n=0"], "Cannot read --seeds 'n=0'"),
    "epochs": (["train", "digits", "--epochs", "-1"], "epochs=-1 is impossible: give zero or more"),
    "store": (["run", "smoke", "--store", "file"], "file cannot be written", "name another with --store"),
    "no store": (["show", "00"], "There is no store in", "run `bench run` first"),
    "no store to export": (["export", "00", "--format", "onnx"], "There is no store in"),
    "no plug-in": (["list", "--plugin", "absent.py"], "absent.py is not a Python file"),
    "broken plug-in": (["list", "--plugin", "broken.py"], "broken.py cannot be imported (SyntaxError: "),
    "clashing plug-in": (["list", "--plugin", "clash.py"], "Two methods are called 'dense': rename the one in"),
    "no download": (["download", "digits", "--data", "data"], "The task 'digits' needs no download"),
    "no downloader": (
        ["download", "camvid", "--data", "data"],
        "The data of camvid cannot be fetched by SlimBench",
        "`bench check --task camvid --data data` says where",
    ),
    "no default": (["plan", "quick", "--plugin", "needs.py"], "mine needs share: write mine(share=...)"),
    "no value": (["plan", "--method", "mine", "--plugin", "needs.py"], "mine needs share"),
    "no default to list": (
        ["list", "tasks", "--plugin", "needs.py"],
        "my_data needs folder, size: write my_data(folder=...)",
    ),
    "command": (["rum"], "No such command 'rum'", "See `bench --help`"),
    "option": (["run", "--metod", "dense"], "No such option '--metod'", "See `bench run --help`"),
    "argument": (["show"], "Missing argument 'ID'", "See `bench show --help`"),
}
CLASH = """
from dataclasses import dataclass
from slimbench import Card
@dataclass(frozen=True)
class Clash:
    name = "dense"
    card = Card("Clash")
    def compress(self, model, task, budget, trainer): ...
    def unsupported(self, task, budget): ...
"""
NEEDS = """
from dataclasses import dataclass
from typing import ClassVar

from slimbench import Card

@dataclass(frozen=True)
class Mine:
    share: float
    name: ClassVar[str] = "mine"
    card = Card("Mine")
    compress = unsupported = None

@dataclass(frozen=True)
class MyData:
    folder: str
    size: int
    network: str = "resnet8"
    name: ClassVar[str] = "my_data"
    metrics = batch = evaluate = deploy = any_size = heavy = None
"""


@pytest.mark.parametrize("which", BAD)
def test_bad_input_is_one_sentence(tmp_path, which):
    """It says what is wrong and what to do; exit status 2."""
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "clash.py").write_text(CLASH)
    (tmp_path / "needs.py").write_text(NEEDS)
    args, *words = BAD[which]
    refused(bench(*args, cwd=tmp_path), *words)


def test_a_data_folder_of_the_environment_must_exist_too(tmp_path):
    """BENCH_DATA is held to what --data is."""
    refused(bench("run", "smoke", cwd=tmp_path, BENCH_DATA="/nonexistent"), "/nonexistent does not exist")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(inside):
    """Said before anything runs."""
    refused(inside("run", "smoke", "--device", "cuda"), "this machine has no usable CUDA device: use --device cpu")


@pytest.mark.parametrize(
    ("data", "words"),
    [([], "(BENCH_DATA is not set)"), (["--data", "."], "The data of cifar10 are missing (")],
    ids=["unset", "empty"],
)
def test_missing_data_are_named(inside, data, words):
    """With the command that fetches them."""
    result = inside("run", "--task", "cifar10", "--method", "l1_channels", *data)
    refused(result, words, "run `bench download cifar10 --data FOLDER`")


def test_altered_data_are_named(inside, tmp_path):
    """A file of the right name with other bytes is not trained on."""
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"cut sho")
    result = inside("run", "--task", "mnist", "--method", "l1_channels", "--data", ".")
    refused(result, "train-images-idx3-ubyte.gz is damaged or altered (its checksum differs): fetch it again")
    assert Store("bench_store").records() == []


WEIGHTS = "weights/cls/cifar10_resnet_akamaster/resnet20-12fca82f.th"


def altered_weights(root: Path) -> None:
    (root / WEIGHTS).parent.mkdir(parents=True)
    (root / WEIGHTS).write_bytes(b"other weights")


def test_altered_weights_are_named(tmp_path, monkeypatch):
    """Nothing is unpickled before the checksum agrees."""
    altered_weights(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    task = CIFAR10(weights="akamaster")
    with pytest.raises(UserError, match=r"resnet20-12fca82f.th is not the published one \(its checksum differs\)"):
        task.load_published(task.build())


def test_a_run_from_altered_weights_is_refused(real_data, inside, tmp_path):
    """Before anything starts from them."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classification").symlink_to(real_data / "classification")
    altered_weights(tmp_path / "data")
    result = inside("run", "--task", "cifar10(weights='akamaster')", "--method", "l1_channels", "--data", "data")
    refused(result, "resnet20-12fca82f.th is not the published one")


NETS = """
from torch import nn

def small(channels, classes):
    body = [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    body += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

def number(channels, classes):
    return channels

def raises(channels, classes):
    raise KeyError("weights.pt")
"""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("absent:net", "The module 'absent' cannot be found"),
        ("sys:exit", "The module 'sys' is no Python source that can be read ("),
        ("math:sin", "The module 'math' is no Python source that can be read ("),
        ("torn:net", "The module 'torn' is no Python source that can be read ("),
        ("nets:absent", "The network 'nets:absent' cannot be imported"),
        ("nets:number", "nets:number returned a int: it must return a torch.nn.Module"),
        ("nets:raises", "The network 'nets:raises' cannot be built (KeyError: 'weights.pt' in /"),
        ("xxxxxx", "Unknown network 'xxxxxx'; one of yours is module:function"),
        ("resnt20", "Unknown network 'resnt20' (did you mean 'resnet20'?)"),
    ],
)
def test_a_network_that_cannot_be_had(inside, tmp_path, model, words):
    """Said before anything is trained."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "torn.py").write_text("def (:\n")
    refused(inside("compress", *STRIPES, "--model", model, "--method", "l1_channels", "--keep", "0.5"), words)
    assert Store("bench_store").records() == []


def test_an_unknown_id(inside, ran):
    """In a store that has others."""
    for command in (["show", "zz"], ["export", "zz", "--format", "pt2"]):
        refused(inside(*command, "--store", ran[0].root), "No record has an id that starts with 'zz'")


def test_a_failed_cell_has_nothing_to_export(inside, ran):
    """Why it failed is said."""
    store, _ = ran
    name = cell(store, "misbehaves")
    refused(inside("export", name, "--format", "pt2", "--store", store.root), "has no network", "a planted error")


@pytest.mark.parametrize("command", ["report", "export"])
def test_output_that_cannot_be_written(inside, ran, command):
    """A folder that does not exist."""
    store, _ = ran
    args = {"report": [], "export": [cell(store, "l1_channels"), "--format", "pt2"]}[command]
    result = inside(command, *args, "--out", "absent/file", "--store", store.root)
    refused(result, "absent/file cannot be written", "name another with --out")


@pytest.mark.parametrize("command", ["report", "plan", "show"])
def test_a_corrupt_record_is_named_and_not_fatal(inside, copied, command):
    """The others are shown, exit status 0."""
    good = cell(copied, "l1_channels")
    bad = copied.measurements()[0] if command == "show" else copied.record(cell(copied, "misbehaves"))
    (copied.root / ("measurements" if command == "show" else "records") / f"{bad.id}.json").write_text("{")
    args = {"report": [], "plan": HALF, "show": [good]}[command]
    result = inside(command, *args, "--store", copied.root)
    assert result.stderr.startswith(f"bench: The record {bad.id}.json is corrupt (")
    assert "l1_channels" in result.stdout
    assert result.exit_code == 0


# ---------------------------------------------------------------------------------------------------------- good input


def test_every_command_explains_itself(inside):
    """And the list of commands names it."""
    listed = inside("--help").stdout
    for name in main.commands:
        result = inside(name, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
        assert f"\n  {name} " in listed


@pytest.mark.parametrize("kind", ["methods", "tasks", "profiles", "suites"])
def test_list_holds_what_is_found(inside, kind):
    """As JSON and for people."""
    known = {"suites": discover.suites, "profiles": lambda: discover.found("hardware_profiles")}
    names = sorted(known.get(kind, lambda: discover.found(kind))())
    assert sorted(row["name"] for row in json.loads(inside("list", kind, "--json").stdout)[kind]) == names
    text = inside("list", kind).stdout
    assert text.startswith(f"{kind}\n")
    assert all(f"\n{name}" in text for name in names)


def test_list_without_a_kind_lists_all(tmp_path):
    """In a process of its own, from any folder."""
    result = bench("list", "--json", cwd=tmp_path)
    assert sorted(json.loads(result.stdout)) == ["methods", "profiles", "suites", "tasks"]
    assert (result.returncode, result.stderr) == (0, "")


def test_plan_before_a_run(inside):
    """Every cell is to do, and nothing is known of how long it takes; no store is made."""
    planned = json.loads(inside("plan", *HALF, "--json").stdout)
    assert [row["status"] for row in planned["cells"]] == ["to do"] * 2
    assert planned["left"] == {"seconds": 0.0, "disk_bytes": 0.0, "unknown": 2}
    assert "2 cells, 0 done, 2 to do; no estimate for 2, unlike any in the store" in inside("plan", *HALF).stdout
    assert not list(Path().iterdir())


def test_plan_after_a_run(inside, ran):
    """What is done is known, and what is left is estimated by it."""
    two = [*HALF[:-1], "0,1", "--store", ran[0].root]
    planned = json.loads(inside("plan", *two, "--json").stdout)
    assert [row["status"] for row in planned["cells"]] == ["ok", "ok", "to do", "to do"]
    assert planned["left"]["seconds"] > 0
    assert planned["left"]["disk_bytes"] > 10_000
    assert planned["left"]["unknown"] == 0
    text = inside("plan", *two).stdout
    assert "4 cells, 2 done, 2 to do: about" in text
    assert "by earlier cells" in text


def test_run_as_json(ran):
    """Every line is an object; each job is started and ends; a failure makes exit status 1."""
    _, result = ran
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0] == {"event": "note", "text": "quick: 3 cells, 0 done, 3 to do"}
    ends = {e["label"]: e["status"] for e in events if e["event"] in {"done", "failed"}}
    assert sorted(ends.values()) == ["failed", "ok", "ok", "ok", "ok"]
    assert ends["stripes/resnet8 misbehaves 0.5 macs seed 0"] == "failed"
    assert {e["label"] for e in events if e["event"] == "started"} == set(ends)
    assert events[-1]["event"] == "done"
    assert events[-1]["label"].endswith("l1_channels 0.5 macs seed 0 on cpu")
    assert (result.returncode, result.stderr) == (1, "")


def test_run_again_has_nothing_to_do_and_shows_the_table(ran):
    """Plain lines where nobody watches."""
    store, _ = ran
    result = bench("run", *HALF, "--store", "store", cwd=store.root.parent)
    lines = result.stdout.splitlines()
    assert lines[0] == "quick: 2 cells, 2 done, 0 to do"
    rows = [line.split()[1] for line in lines if line.startswith("| ")]
    assert rows == 2 * ["method", "dense", "l1_channels"]  # scores, and what they take
    assert "Took" not in result.stdout
    assert f"Records are in {store.root}" in lines[-1]
    assert (result.returncode, result.stderr) == (0, "")


def test_show(inside, ran):
    """All about one record, with its measurement."""
    store, _ = ran
    name = cell(store, "l1_channels")
    text = inside("show", name[:6], "--store", store.root).stdout
    assert text.startswith("stripes/resnet8 l1_channels 0.5 macs seed 0: ok\n")
    assert "p50_ms: " in text
    shown = json.loads(inside("show", name, "--json", "--store", store.root).stdout)
    assert shown["id"] == name
    assert shown["cell"]["budget"]["keep"] == 0.5
    assert [m["cell_id"] for m in shown["measurements"]] == [name]


@pytest.mark.parametrize("kind", ["md", "csv", "latex", "html", "json"])
def test_report(inside, ran, kind):
    """To the terminal and to a file the same bytes, every time."""
    args = ["report", "--format", kind, "--store", ran[0].root]
    first, again = inside(*args), inside(*args)
    assert inside(*args, "--out", "file").stdout == ""
    assert first.stdout == again.stdout == Path("file").read_text()
    assert "misbehaves" in first.stdout
    assert (first.exit_code, first.stderr) == (0, "")


@pytest.mark.parametrize("what", ["profiles", "overall", "papers"])
def test_report_of_everything_else(inside, ran, what):
    """Across tasks, and of papers."""
    result = inside("report", what, "--store", ran[0].root)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "| " in result.stdout


def test_report_of_something_unknown(inside, ran):
    """Suggests what is near."""
    refused(inside("report", "paper", "--store", ran[0].root), "Nothing is called 'paper' (did you mean 'papers'?)")


def test_report_prints_no_table_that_fails_its_audit(inside, ran, monkeypatch):
    """A mean that the records do not give."""
    from slimbench.reports import figures

    real = figures._facts
    monkeypatch.setattr(figures, "_facts", lambda *args: real(*args) | {"macs": 1.0})
    refused(inside("report", "--store", ran[0].root), "fail their audit, and are not printed", "macs is 1.0")


def test_audit_of_a_store_and_of_a_file(inside, ran, tmp_path):
    """Nothing wrong in ours; a wrong delta in somebody's."""
    result = inside("audit", "--store", ran[0].root)
    assert result.exit_code == 0, result.stdout
    assert "nothing wrong" in result.stdout
    table = tmp_path / "theirs.md"
    table.write_text("| Method | Base | Pruned | Δ |\n|-|-|-|-|\n| A | 93.0 | 92.0 | +1.0 |\n")
    result = inside("audit", table)
    assert result.exit_code == 1
    assert "WRONG  table 1, row 1 (A): wrong delta" in result.stdout
    ours = tmp_path / "ours.csv"
    inside("report", "--format", "csv", "--out", ours, "--store", ran[0].root)
    assert "nothing wrong" in inside("audit", ours, "--store", ran[0].root).stdout


def test_report_of_a_suite_leaves_others_out(inside, ran):
    """The store holds stripes alone, the suite digits."""
    assert inside("report", "smoke", "--store", ran[0].root).stdout.startswith("No records yet")


def test_check_of_a_good_store(inside, ran):
    """Everything is found well, exit status 0."""
    result = inside("check", "--plugin", FAKES, "--task", "stripes", "--store", ran[0].root)
    assert "PROBLEM" not in result.stdout
    assert "ok       data of stripes: verified" in result.stdout
    assert "ok       store: 3 records, 2 measurements" in result.stdout
    assert result.exit_code == 0


def test_check_finds_an_altered_network(inside, copied):
    """By its checksum; exit status 1, and the file is named."""
    weights = copied.artifact(cell(copied, "l1_channels")) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    result = inside("check", "--plugin", FAKES, "--task", "stripes", "--store", copied.root)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("PROBLEM"))
    assert f"{weights} does not match its checksum" in line
    assert result.exit_code == 1


def test_check_finds_a_plugin_that_needs_arguments(tmp_path):
    """Suites and lists make each with its defaults."""
    (tmp_path / "needs.py").write_text(NEEDS)
    result = bench("check", "--plugin", "needs.py", cwd=tmp_path)
    for kind, name in (("methods", "mine"), ("tasks", "my_data")):
        assert re.search(rf"PROBLEM  {kind}: \d+ found; not frozen dataclasses with defaults: {name}\n", result.stdout)
    assert (result.returncode, result.stderr) == (1, "")


RAISING = """
from dataclasses import dataclass
from typing import ClassVar

from slimbench.tasks._classification import Classification

@dataclass(frozen=True)
class Raising(Classification):
    network: str = "resnet8"
    name: ClassVar[str] = "raising"
    version: ClassVar[int] = 1
    content: ClassVar[str] = "raising"

    def load(self, split):
        raise KeyError("images")
"""


def test_a_network_that_raises_is_said_when_it_is_planned(inside, tmp_path):
    """The user's own function may raise anything."""
    (tmp_path / "raising_nets.py").write_text("def net(channels, classes):\n    return [][channels]\n")
    planned = inside("plan", "--task", "digits(network='raising_nets:net')", "--method", "dense")
    refused(planned, "The network 'raising_nets:net' cannot be built (IndexError: list index out of range in /")


def test_data_that_raise_are_said_when_they_are_planned(inside, tmp_path, plugged):
    """The user's own task may raise anything; the cells are shown all the same."""
    (tmp_path / "raising_data.py").write_text(RAISING)
    planned = inside("plan", "--plugin", "raising_data.py", "--task", "raising", "--method", "l1_channels")
    assert planned.stdout.endswith("not at hand: The data of raising cannot be loaded (KeyError: 'images').\n")
    assert (planned.exit_code, planned.stderr) == (0, "")
    run = inside("run", "--plugin", "raising_data.py", "--task", "raising", "--method", "l1_channels")
    refused(run, "The data or the network of raising cannot be loaded (KeyError: 'images').")


def test_data_that_are_not_at_hand_are_said_and_planned(inside, tmp_path):
    """A line each, where there is something to do; what is installed needs none."""
    (tmp_path / "empty").mkdir()
    result = inside("plan", "cifar10-reduced", "--seeds", "0", "--method", "l1_channels", "--data", "empty")
    *_, counts, last = result.stdout.splitlines()
    assert (result.exit_code, "to do" in counts) == (0, True)
    assert last.startswith("not at hand: The data of cifar10 are missing (")
    assert "not at hand" not in inside("plan", "smoke", "--task", "digits", "--data", "empty").stdout


def test_a_store_below_the_home_folder_is_found(inside, copied, monkeypatch):
    """Also where the shell leaves the tilde as it is."""
    monkeypatch.setenv("HOME", str(copied.root.parent))
    assert "2 cells, 2 done" in inside("plan", *HALF, "--store=~/copied").stdout
    check = inside("check", "--plugin", FAKES, "--task", "stripes", "--store=~/copied")
    assert f"store: 3 records, 2 measurements in {copied.root}" in check.stdout


def test_check_names_data_that_were_asked_for(inside):
    """Absent data are a problem only where somebody wants them."""
    result = inside("check", "--task", "mnist")
    assert "PROBLEM  data of mnist: The data of mnist are missing" in result.stdout
    assert result.exit_code == 1


def test_your_own_network(tmp_path):
    """module:function from the folder where you stand, in worker processes too."""
    (tmp_path / "nets.py").write_text(NETS)
    args = [*STRIPES, "--model", "nets:small", "--method", "l1_channels", "--keep", "0.5", "--epochs", "1", "--json"]
    result = bench("compress", *args, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    records = Store(tmp_path / "bench_store").records()
    assert sorted(record.status for record in records) == ["ok", "ok"]
    assert {record.cell["task"]["network"] for record in records} == {"nets:small"}
    small = next(record for record in records if record.reference)
    assert small.spent.compression_epochs == pytest.approx(1)
    assert small.cost.macs < 0.6 * small.dense_cost.macs


def test_your_own_method_joins_the_suite(tmp_path):
    """At the suite's operating points, without a fork of the repository; named, it alone is run."""
    plan = ["plan", "smoke", "--task", "digits", "--plugin", str(HERE / "more_fakes.py"), "--json"]
    whole = json.loads(bench(*plan, cwd=tmp_path).stdout)["cells"]
    assert len(whole) > 3
    assert [row["cell"].split(maxsplit=1)[1] for row in whole].count("disturbs 0.5 macs seed 0") == 1
    fifth = json.loads(bench(*plan, "--keep", "0.2", cwd=tmp_path).stdout)["cells"]  # which single weights alone have
    assert [row["cell"].split(maxsplit=1)[1] for row in fifth].count("disturbs 0.2 macs seed 0") == 1
    assert not any("l1_channels" in row["cell"] for row in fifth)
    only = json.loads(bench(*plan, "--method", "disturbs(how='waits')", cwd=tmp_path).stdout)["cells"]
    assert [row["cell"].split()[1] for row in only] == ["dense", "disturbs(how=waits)"]


def test_shares_by_comma_are_shares_by_repetition(inside):
    plan = ["plan", "quick", "--task", "digits", "--method", "l1_channels", "--seeds", "0", "--json"]
    by_comma, repeated = (
        json.loads(inside(*plan, *keeps).stdout)["cells"]
        for keeps in (("--keep", "0.5,0.25"), ("--keep", "0.5", "--keep", "0.25"))
    )
    assert by_comma == repeated
    assert [row["cell"].split(maxsplit=2)[2] for row in by_comma[1:]] == ["0.5 macs seed 0", "0.25 macs seed 0"]


def test_train(inside):
    """A dense network is trained for as long as asked, and stored."""
    result = inside("train", "stripes", *STRIPES[:2], "--precision", "fp32", "--epochs", "1", "--seed", "3")
    assert result.exit_code == 0
    (record,) = Store("bench_store").records()
    assert (record.status, record.label) == ("ok", "stripes/resnet8 dense dense seed 3")
    assert record.spent.compression_epochs == pytest.approx(1)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_export(inside, ran, kind):
    """A file of its own, once it is seen to compute the same."""
    store, _ = ran
    name = cell(store, "l1_channels")
    result = inside("export", name[:8], "--format", kind, "--store", store.root)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert f"{name}.{kind}: outputs differ from the stored network's by" in first
    assert second.startswith("feed it float32 (N, C, H, W), grey, 1 x 8 x 8 pixels; values in [0, 1] as (x - 0.5) / 0")
    assert "; it puts out logits by class" in second
    assert Path(f"{name}.{kind}").stat().st_size > 10_000


def test_export_without_the_plug_in_of_its_task(ran, tmp_path):
    """The file is written; how to feed it is not known, and said so."""
    store, _ = ran
    name = cell(store, "l1_channels")
    result = bench("export", name, "--format", "pt2", "--out", "a.pt2", "--store", str(store.root), cwd=tmp_path)
    assert "cannot be said: its task stripes is not installed here: give its file with --plugin" in result.stdout
    assert (result.returncode, (tmp_path / "a.pt2").is_file()) == (0, True)
    args = ("--plugin", FAKES, "--store", str(store.root))
    result = bench("export", name, "--format", "pt2", "--out", "a.pt2", *args, cwd=tmp_path)
    assert "\nfeed it float32" in result.stdout


@pytest.mark.parametrize(
    ("option", "text", "sentence"),
    [
        ("--task", "digits(recipe=3)", "recipe must be Recipe"),
        ("--task", "digits(recipe={'epochs': 'x'})", "epochs must be float"),
        ("--task", "digits(recipe={'epoch': 3})", "did you mean 'epochs'?"),
        ("--task", "digits(network=5)", "network must be str"),
        ("--method", "l1_channels(ranking='nope')", "is impossible"),
        ("--method", "l1_channels(round_to={1, 2})", "round_to must be int"),
        *(("--method", f"{n}(round_to=0)", "round_to=0 is impossible: give at least 1.") for n in CONTROLS),
        ("--profile", "cpu(threads=four)", "cpu(threads='four') is impossible: threads must be int or 'all'."),
        ("--method", "etpf(ratio=half)", "ratio must be float or None."),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(option, text, sentence, inside):
    """Before anything is planned."""
    command = ("run", "quick", "--measure-only") if option == "--profile" else ("plan", "quick")
    refused(inside(*command, option, text), sentence)


def test_more_threads_than_cores_are_refused(inside):
    """They would wait for each other, for hours."""
    refused(inside("run", "quick", "--threads", "10000"), "cores")


@pytest.mark.parametrize("suite", ["dass-cifar-thinned", "gpp-cifar-reduced", "quick"])
def test_labels_of_methods_can_be_pasted_as_filters(suite):
    """What `bench plan` prints is what `--method` reads, words without quotes too."""
    for arm in discover.suite(suite).arms:
        for method in arm.methods:
            pasted = identity.label(method)
            assert discover.make("methods", pasted) == method


def test_a_bare_name_is_what_the_suite_has(inside):
    """Its network and its small search; with brackets, or where the suite has the defaults, what was typed."""

    def last(task, method):
        planned = inside("plan", "nightly", "--seeds", "0", "--json", "--task", task, "--method", method)
        cells = json.loads(planned.stdout)["cells"]
        assert len(cells) == 2
        return cells[-1]["cell"]

    assert last("digits", "dass").startswith("digits/resnet14 dass(cells=3, ")
    assert last("digits()", "dass()").startswith("digits/resnet20 dass 0.2 ")
    assert last("digits", "l1_channels") == "digits/resnet14 l1_channels 0.5 macs seed 0"
