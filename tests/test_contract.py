"""Every file in methods/ is held to the same promises by being there, and each promise catches a planted fault."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import pickle
import typing
from dataclasses import replace

import pytest
import torch
from torch import nn

from conftest import ROOT, fakes
from slimbench import artifact, discover, identity, train
from slimbench.compress import allowance, compress
from slimbench.core import Budget, Card, Cell, Record
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.store import Store

if typing.TYPE_CHECKING:
    from pathlib import Path

TASK = fakes.Stripes("resnet14")


def variants() -> list[object]:
    """Each method with every choice that its fields offer; other fields are the quick suite's: small searches."""
    quick = discover.suite("quick")
    small = {type(method): method for arm in quick.arms for method in arm.methods}
    made = []
    for cls in discover.found("methods").values():
        if cls.__module__.startswith("slimbench.methods") and cls is not Dense:
            hints = typing.get_type_hints(cls)
            fields = [f.name for f in dataclasses.fields(cls) if typing.get_origin(hints[f.name]) is typing.Literal]
            choices = [typing.get_args(hints[name]) for name in fields]
            base = small.get(cls, cls())
            made += [replace(base, **dict(zip(fields, values, strict=True))) for values in itertools.product(*choices)]
    return made


METHODS = variants()
EACH = pytest.mark.parametrize("method", METHODS, ids=identity.label)


def budget_of(method: object) -> Budget:
    """An operating point that the method must reach on the task."""
    if method.card.granularity == "none":
        return Budget(1.0, epochs=1)
    if method.card.granularity == "weight":
        return Budget(0.5, "prunable_nonzero", epochs=1)
    return Budget(0.5, epochs=1)


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> tuple[Store, Cell]:
    """A store that holds the dense network of the task."""
    store = Store(tmp_path_factory.mktemp("dense"))
    cell = Cell(TASK, Dense(), Budget(1.0), 0)
    assert compress(cell, store).status == "ok"
    return store, cell


def run(method: object, dense: tuple[Store, Cell], folder: Path, say=lambda message: None) -> tuple[Record, Store]:
    """The method's cell in a store of its own that holds the same dense network."""
    store = Store(folder)
    base, reference = dense
    record = base.record(identity.cell_id(reference))
    store.put(record)
    if not store.artifact(record.id).exists():
        store.artifact(record.id).symlink_to(base.artifact(record.id))
    return compress(Cell(TASK, method, budget_of(method), 0, reference=reference), store, say), store


# ------------------------------------------------------------------------------------------------------- promises


def is_a_frozen_value(method: object) -> None:
    cls = type(method)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert cls() == cls()
    assert hash(method) == hash(replace(method))
    assert pickle.loads(pickle.dumps(method)) == method
    assert cls.__bases__ == (object,), "no class in methods/ has a base"


def has_a_card(method: object) -> None:
    card = method.card
    assert card.title
    assert card.fidelity
    assert card.version >= 1
    assert card.paper, "a method comes from somewhere"
    assert card.section
    assert card.link.startswith("https://")


def says_why_not(method: object) -> None:
    """An impossible share is refused in words, with the least that can be had where that is the reason."""
    tiny = Budget(1e-6, budget_of(method).resource, epochs=1)
    reason = method.unsupported(TASK, tiny)
    if method.card.granularity in {"channel", "layer"}:
        assert reason is not None
        assert "0." in reason


def supports_something(method: object) -> None:
    assert method.unsupported(TASK, budget_of(method)) is None


def meets_the_budget(record: Record) -> None:
    assert (record.status, record.reason) == ("ok", "")


def keeps_its_word_in_the_artifact(record: Record, store: Store) -> None:
    """What is stored computes (N, classes) and is what was recorded."""
    program = artifact.load(store.artifact(record.id)).module()
    assert program(torch.randn(3, 1, 8, 8)).shape == (3, 4)
    assert artifact.sha256(store.artifact(record.id) / "manifest.json") == record.artifact


def spends_what_it_may(record: Record, cell: Cell) -> None:
    spent = record.spent.search_epochs + record.spent.compression_epochs
    assert 0 < spent <= allowance(cell) + 1e-6
    inherits = cell.method.card.starts_from == "dense"
    assert (record.spent.dense_epochs > 0) == inherits


# ---------------------------------------------------------------------------------------------------- over the folder


@EACH
def test_method_is_a_frozen_value_with_a_card(method):
    """A spec can be hashed, compared and sent to a worker, and says where it comes from."""
    is_a_frozen_value(method)
    has_a_card(method)


@EACH
def test_method_says_what_it_can_do_and_why_not(method):
    """Something is supported, the impossible is refused in words."""
    supports_something(method)
    says_why_not(method)


@EACH
def test_method_keeps_its_promises(method, dense, tmp_path, monkeypatch):
    """It meets the budget within its epochs, opens test once, repeats itself, and resumes to the same bits."""
    opened = []
    evaluate = fakes.Stripes.evaluate

    def watched(self, model, split):
        opened.append(split)
        return evaluate(self, model, split)

    monkeypatch.setattr(fakes.Stripes, "evaluate", watched)
    record, store = run(method, dense, tmp_path / "once")
    assert opened.count("test") == 1
    assert opened[-1] == "test"
    meets_the_budget(record)
    keeps_its_word_in_the_artifact(record, store)
    spends_what_it_may(record, Cell(TASK, method, budget_of(method), 0, reference=dense[1]))

    killed(method, dense, tmp_path / "resumed", monkeypatch, after=2)
    killed(method, dense, tmp_path / "resumed", monkeypatch, after=record.spent.steps - 3)
    resumed, _ = run(method, dense, tmp_path / "resumed")
    assert resumed.artifact == record.artifact, "killed and resumed equals straight through, bit for bit"
    assert resumed.quality == record.quality
    assert resumed.notes == record.notes
    assert resumed.spent.examples == record.spent.examples


class Killed(BaseException):
    pass


def killed(method: object, dense, folder: Path, monkeypatch, *, after: int) -> None:
    """Run the cell, or what is left of it, with a checkpoint every step, until it has taken ``after`` steps in all."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)
    save = train.Loop._save

    def dies(self, fit, step, kept):
        save(self, fit, step, kept)
        if self.spent.steps >= after:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.Loop, "_save", dies)
        run(method, dense, folder)


# ------------------------------------------------------------------------------------------------------ planted faults


def test_the_contract_catches_a_method_that_is_no_value():
    """A mutable class, or one with a base."""

    @dataclasses.dataclass
    class Mutable:
        name: typing.ClassVar[str] = "mutable"
        card: typing.ClassVar[Card] = fakes.CARD

    with pytest.raises(AssertionError):
        is_a_frozen_value(Mutable())
    with pytest.raises(AssertionError):
        has_a_card(Mutable())


def test_the_contract_catches_a_method_that_misses_its_budget(dense, tmp_path):
    """Dense results under a method's name."""
    card = replace(fakes.CARD, granularity="channel")
    silent = type("Silent", (fakes.Misbehaves,), {"card": card, "name": "silent"})
    record, _ = run(silent("misses_the_budget"), dense, tmp_path / "s")
    with pytest.raises(AssertionError):
        meets_the_budget(record)
    assert "kept 1.0000" in record.reason


def test_the_contract_catches_a_method_that_repeats_nothing(dense, tmp_path):
    """Random numbers from outside the seeded generators."""
    one, two = (run(fakes.Misbehaves("draws_unseeded"), dense, tmp_path / n)[0] for n in ("a", "b"))
    assert one.artifact != two.artifact


@pytest.mark.parametrize("how", ["peeks", "peeks_at_batches", "peeks_at_labels"])
def test_the_contract_catches_a_method_that_looks_at_test(how, dense, tmp_path):
    """By scores, by batches or by labels."""
    from slimbench.sealed import SealedError

    with pytest.raises(SealedError, match="test split is sealed"):
        run(fakes.Misbehaves(how), dense, tmp_path / "s")


def test_the_contract_catches_a_method_that_overspends(dense, tmp_path):
    """One epoch more than the budget's."""
    with pytest.raises(train.OverspentError, match="more than the 1 epochs"):
        run(fakes.Misbehaves("overspends"), dense, tmp_path / "s")


# ----------------------------------------------------------------------------------------------- shape of the house


def test_the_engine_knows_no_plug_in():
    """No file of src/slimbench names a method, task or network."""
    names = [n for n in discover.found("methods") if n != "dense"] + [*discover.found("tasks")]
    for path in (ROOT / "src/slimbench").glob("*.py"):
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not strings & set(names), path.name


HOOKS = {"before_step", "after_step"}


def steps(source: str, hooks: set[str]) -> list[str]:
    """Where source calls ``step`` or ``backward`` outside the functions of these names."""
    tree = ast.parse(source)
    inside = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name in hooks for n in ast.walk(f)}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return [n.func.attr for n in calls if n.func.attr in {"backward", "step"} and n not in inside]


def hooks(source: str) -> set[str]:
    """The functions that source hands to ``fit`` to be called around its steps."""
    given = [k.value for k in ast.walk(ast.parse(source)) if isinstance(k, ast.keyword) and k.arg in HOOKS]
    return {value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "") for value in given}


def test_methods_have_no_training_loop_of_their_own():
    """Only src/slimbench/train.py steps weights; an optimiser of a method's own steps in the loop's hooks alone."""
    sources = {path.name: path.read_text() for path in (ROOT / "methods").rglob("*.py")}
    every = set().union(*map(hooks, sources.values()))
    assert every
    for name, source in sources.items():
        assert steps(source, every) == [], name
    planted = "def loop():\n    adam.step()\ndef hook(step):\n    adam.step()\nfit(after_step=hook)\n"
    assert steps(planted, hooks(planted)) == ["step"]


def test_docker_folder_is_no_package():
    """With an __init__.py it would hide the docker SDK."""
    assert not (ROOT / "docker/__init__.py").exists()
    import docker

    assert hasattr(docker, "from_env")


# ------------------------------------------------------------------------------------------------- users' own networks


class Remembers(nn.Module):
    """What a counter would miss."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.memory, self.linear = nn.Conv2d(1, 8, 3), nn.LSTM(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x).flatten(2).permute(2, 0, 1)
        return self.linear(self.memory(x)[0].mean(0))


UNFIT = {
    "remembers": ("no counter knows the products inside", Remembers),
    "branches": ("data-dependent", fakes.Untraceable),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_counted_or_exported_is_not_trained_first(tmp_path, monkeypatch, name):
    """It fails all the same at the end of hours."""
    words, build = UNFIT[name]
    monkeypatch.setattr(fakes.Stripes, "build", lambda _: build())
    told = []
    with pytest.raises(Exception, match=words):
        compress(Cell(TASK, Dense(), Budget(1.0), 0), Store(tmp_path), told.append)
    assert told == []


def test_a_layer_that_surgery_does_not_know_is_unsupported(dense, tmp_path, monkeypatch):
    """And no failure."""

    def build(_):
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        )

    monkeypatch.setattr(fakes.Stripes, "build", build)
    record, _ = run(L1Channels(), dense, tmp_path)
    assert (record.status, record.reason) == ("unsupported", "surgery does not know the layer '1' (GroupNorm)")
