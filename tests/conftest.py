"""What every test stands on: one thread, drawn weights, none of the caller's folders, a fake task, an empty store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner

from slimbench import artifact, discover, identity
from slimbench.cli import main
from slimbench.core import Record, Settings, Task
from slimbench.hardware_profiles import _onnx
from slimbench.store import Store
from slimbench.train import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROOT = HERE.parent
FAKES = HERE / "fakes.py"
DATA = os.environ.pop("BENCH_DATA", "") or (str(ROOT.parent / "shared" / "data"))
for name in ("BENCH_STORE", "BENCH_BOARD", "BENCH_SSH", "BENCH_CACHE"):
    os.environ.pop(name, None)
os.environ["BENCH_LOCKS"] = tempfile.mkdtemp(prefix="locks-")  # tests wait for no run here, and none for them

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; the tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
discover.load_plugin(str(FAKES))
fakes = sys.modules["slimbench_plugin_fakes"]


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """The network, with batch norms that do something."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def loop(task: Task, epochs: float = 0.0) -> Loop:
    """A trainer of seed 0 on the CPU, without checkpoints."""
    return Loop(task, 0, Settings(), epochs)


@pytest.fixture(autouse=True)
def forgets(request: pytest.FixtureRequest) -> Iterator[None]:
    """The module's ``LOADERS``, cached functions, remember nothing of earlier tests, nor later ones of this."""
    loaders = getattr(request.module, "LOADERS", ())
    for loader in loaders:
        loader.cache_clear()
    yield
    for loader in loaders:
        loader.cache_clear()


@pytest.fixture(autouse=True)
def _drawn() -> None:
    """What a test draws is the same whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def task(root: Path) -> Task:
    """Super resolution of twelve images, two of them to train on, and a test set of three."""
    from images import fill
    from slimbench.tasks.div2k import T91

    fill(root / "T91", 12)
    fill(root / "Set5" / "HR", 3, 41, 39)
    return T91(network="edsr-tiny", patch=8, folders=("T91",), test_sets=("set5",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which one runner made the module's ``CELLS``, a suite."""
    from runs import go

    store = Store(tmp_path_factory.mktemp("finished") / "store")
    go(request.module.CELLS, store)
    return store


@pytest.fixture
def dense(finished: Store, tmp_path: Path) -> Store:
    """A copy of the finished store that holds the dense networks alone."""
    shutil.copytree(finished.root, tmp_path / "dense")
    store = Store(tmp_path / "dense")
    for record in store.records():
        if record.reference:
            (store.root / "records" / f"{record.id}.json").unlink()
            store.log(record.id).unlink()
    return store


@pytest.fixture(scope="module")
def straight(finished: Store, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of the slow cell, trained in one go."""
    from runs import go, timeless
    from slow import SLOW, STEPS, steps_of

    folder = tmp_path_factory.mktemp("straight")
    shutil.copytree(finished.root, folder / "store")
    store = Store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_MARKS", str(folder))
        go(SLOW, store)
    assert steps_of(folder) == STEPS
    return next(record for record in timeless(store).values() if "trains_slowly" in record.label)


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data and weights; skips where it is absent."""
    if not Path(DATA).is_dir():
        pytest.skip("needs the real data: set BENCH_DATA to the folder that holds them")
    monkeypatch.setenv("BENCH_DATA", DATA)
    return Path(DATA)


def pytest_unconfigure() -> None:
    """Leave no folder behind."""
    shutil.rmtree(os.environ["BENCH_LOCKS"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip where there is no GPU; long tests go first; what takes the real data says so by its mark."""
    items.sort(key=lambda item: "long" not in item.keywords)
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, Path]:
    """A small network and a smaller one."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    for name, depth in (("dense", 14), ("compressed", 8)):
        task = fakes.Stripes(f"resnet{depth}")
        artifact.save(task.build(), task.example(), folder / name)
    return {name: folder / name for name in ("dense", "compressed")}


@pytest.fixture(scope="module")
def packed(stored, tmp_path_factory) -> tuple[Path, dict]:
    """The folder that goes to a board, and its request, for as few rounds as can be."""
    folder = tmp_path_factory.mktemp("packed")
    request = _onnx.package(stored["compressed"], stored["dense"], folder, "quick", threads=1, batch=4)
    request |= {"rounds": 5, "warm_s": [0, 0.05], "sessions": 2}
    (folder / "request.json").write_text(json.dumps(request))
    return folder, request


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """The command in this process, in an empty folder; what it sets for its own process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("BENCH_DATA", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture
def plugged(monkeypatch):
    """Forgets the plug-ins that a test loads."""
    monkeypatch.setattr(discover, "_plugins", [*discover._plugins])
    before = {*sys.modules}
    yield
    discover.found.cache_clear()
    for name in {*sys.modules} - before:
        if name.startswith(identity.PLUGIN_PREFIX):
            del sys.modules[name]
