"""Ids stay what they are unless somebody means them to move: pinned ids, pinned defaults, locked sources."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from conftest import HERE, ROOT, fakes
from slimbench import discover, identity, locking
from slimbench.core import Budget, Cell, Recipe, Settings, UserError
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.tasks.digits import Digits

PINS = HERE / "pins.json"
DENSE = Cell(Digits(), Dense(), Budget(1.0), 0)
CELL = Cell(Digits(), L1Channels(), Budget(0.5, epochs=8), 0, reference=DENSE)


def pinned() -> dict[str, object]:
    """Every plug-in's defaults, and the ids of a few cells."""
    kinds = ("methods", "tasks", "hardware_profiles")
    classes = [c for kind in kinds for c in discover.found(kind).values() if c.__module__.startswith("slimbench.")]
    defaults = {f"{cls.__module__.split('.')[1]}/{cls.name}": identity.describe(cls()) for cls in classes}
    defaults |= {f"core/{type(v).__name__}": identity.describe(v) for v in (Budget(0.5), Recipe(), Settings())}
    cells = {
        "dense": DENSE,
        "l1": CELL,
        "l1 global": replace(CELL, method=L1Channels(ranking="global")),
        "bf16": replace(CELL, settings=Settings("bf16")),
        "seed 1": replace(CELL, seed=1, reference=replace(DENSE, seed=1)),
        "resnet56": replace(CELL, task=Digits("resnet56"), reference=replace(DENSE, task=Digits("resnet56"))),
    }
    return {"defaults": defaults, "ids": {name: identity.cell_id(cell) for name, cell in cells.items()}}


def test_ids_and_defaults_are_pinned():
    """A changed default keeps its id, so it must not change unseen. On purpose: write tests/pins.json again."""
    assert pinned() == json.loads(PINS.read_text()), "python tests/test_identity.py writes the pins"


def test_ids_are_the_same_in_another_process():
    """No hash seed, no memory address."""
    code = "import sys; sys.path.insert(0, 'tests'); import test_identity as t; print(t.identity.cell_id(t.CELL))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == identity.cell_id(CELL)


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, seed=1),
        replace(CELL, budget=Budget(0.5, epochs=9)),
        replace(CELL, budget=Budget(0.5, "params", epochs=8)),
        replace(CELL, method=L1Channels(round_to=8)),
        replace(CELL, task=Digits(recipe=Recipe(epochs=17))),
        replace(CELL, settings=Settings("bf16")),
        replace(CELL, settings=Settings(threads=2)),
        replace(CELL, settings=Settings(device="cuda")),
        replace(CELL, reference=replace(DENSE, seed=5)),
    ],
)
def test_everything_that_decides_a_result_moves_the_id(other):
    """One field at a time."""
    assert identity.cell_id(other) != identity.cell_id(CELL)


def test_versions_data_and_weights_move_the_id(monkeypatch):
    """Of the engine, the method, the task; the data's checksum; the published weights."""
    before = identity.cell_id(CELL)
    for target, name, value in (
        (identity, "ENGINE_VERSION", 99),
        (L1Channels, "card", replace(L1Channels.card, version=99)),
        (Digits, "version", 99),
        (Digits, "content", "other data"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert identity.cell_id(CELL) != before, name
    from slimbench.tasks.cifar import CIFAR10

    ours, theirs = (replace(CELL, task=CIFAR10(weights=name)) for name in ("", "akamaster"))
    assert identity.cell_id(ours) != identity.cell_id(theirs)


def test_an_edit_of_a_users_file_moves_its_ids(tmp_path, monkeypatch):
    """Of a plug-in's method and of a network's module; a comment does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = []
    for text in ("SIZE = 1\n", "SIZE = 1  # small\n", "SIZE = 2\n"):
        (tmp_path / "my_nets.py").write_text(text)
        identity.users_source.cache_clear()
        ids.append(identity.cell_id(replace(DENSE, task=Digits("my_nets:thin"))))
    assert ids[0] == ids[1] != ids[2]
    cell = replace(CELL, method=fakes.Fake())
    before = identity.cell_id(cell)
    monkeypatch.setattr(identity, "users_source", lambda module: "another source")
    assert identity.cell_id(cell) != before


def test_a_new_field_whose_default_does_nothing_moves_no_id():
    """Defaults stay out of the hash; other values do not."""

    @dataclass(frozen=True)
    class Now:
        a: int = 1
        name: ClassVar[str] = "m"

    @dataclass(frozen=True)
    class Later:
        a: int = 1
        b: float = 0.0
        name: ClassVar[str] = "m"

    assert identity.describe(Now(2), defaults=False) == identity.describe(Later(2), defaults=False)
    assert identity.describe(Later(2, 1), defaults=False) == {"is": "m", "a": 2, "b": 1.0}


def test_one_and_one_point_zero_are_one_number():
    """What was typed does not matter, where the field is a float."""
    assert identity.describe(Budget(1, epochs=3)) == identity.describe(Budget(1.0, epochs=3.0))


def test_labels_read_as_typed():
    """Name, and what differs from the defaults."""
    assert identity.label(L1Channels()) == "l1_channels"
    assert identity.label(L1Channels("global", 8)) == "l1_channels(ranking=global, round_to=8)"
    assert identity.cell_label(CELL) == "digits/resnet20 l1_channels 0.5 macs seed 0"
    assert identity.cell_label(DENSE) == "digits/resnet20 dense dense seed 0"


def test_what_cannot_be_hashed_is_refused():
    """An object has no content to go by."""
    with pytest.raises(TypeError, match="cannot be part of a spec"):
        identity.describe({"a": object()})


def test_impossible_shares_are_refused():
    """Zero, more than all, and nothing at all."""
    for keep in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="must lie in"):
            Budget(keep)


def test_two_machines_have_two_measurement_ids():
    """So their latencies never share a column."""
    from slimbench.hardware_profiles.cpu import CPU

    ids = {identity.measurement_id("a", "b", CPU(), "quick", {"cpu": name}) for name in ("one", "other")}
    ids |= {identity.measurement_id("a", "b", CPU(), "full", {"cpu": "one"})}
    ids |= {identity.measurement_id("a", "b", CPU(threads=2), "quick", {"cpu": "one"})}
    ids |= {identity.measurement_id("c", "b", CPU(), "quick", {"cpu": "one"})}
    assert len(ids) == 5


def test_as_many_threads_as_there_are_is_a_number(monkeypatch):
    """A process that may use one core of two makes another measurement; where the number was given it is the same."""
    from slimbench.hardware_profiles import _host
    from slimbench.hardware_profiles.cpu import CPU
    from slimbench.hardware_profiles.openvino import OpenVINO

    def ids(cores: int, *profiles: _host.Host) -> list[str]:
        monkeypatch.setattr(_host, "physical_cores", lambda: cores)
        return [identity.measurement_id("a", "b", profile, "full", {"cores": 2}) for profile in profiles]

    for kind in (CPU, OpenVINO):
        assert len({*ids(1, kind(threads="all")), *ids(2, kind(threads="all"))}) == 2
        assert ids(1, kind(), kind(threads=2)) == ids(2, kind(), kind(threads=2))
    known = {"artifact": "a", "reference": "b", "level": "full", "machine": {"cores": 2}}
    of_two = identity.digest(known | {"profile": {"is": "cpu", "threads": 2, "version": CPU.version}})
    assert ids(1, CPU(threads=2)) == [of_two], "ids of before stay"


# -------------------------------------------------------------------------------------------------------- the lock


def test_nothing_changed_without_a_word():
    """Source and version agree with slimbench.lock, for every method, task and the training loop."""
    assert locking.problems() == []
    assert {"methods/resconv.py", "tasks/digits.py", "src/slimbench/train.py"} <= set(locking.read())


def test_comments_docstrings_and_layout_are_no_change():
    """Numbers are."""
    one = 'def f(x):\n    """Doc."""\n    return x + 1  # why\n'
    assert identity.source_hash(one) == identity.source_hash("def f(x):\n\n    return (x + 1)\n")
    assert identity.source_hash(one) != identity.source_hash("def f(x):\n    return x + 2\n")


def test_a_changed_source_needs_a_word(monkeypatch, tmp_path):
    """A planted change is found; it is accepted with a raised version, or with a reason why results stay."""
    name = "methods/l1_channels.py"
    real = locking.sources()
    lock = tmp_path / "slimbench.lock"
    lock.write_text(locking.LOCK.read_text())
    monkeypatch.setattr(locking, "LOCK", lock)
    changed = real | {name: real[name] | {"source": "0" * 16}}
    monkeypatch.setattr(locking, "sources", lambda: changed)
    assert any(name in problem for problem in locking.problems())
    with pytest.raises(UserError, match="raise its version"):
        locking.write((), "")
    with pytest.raises(UserError, match="needs --because"):
        locking.write((name,), "")
    locking.write((name,), "a renamed variable")
    assert locking.problems() == []
    assert locking.read()[name]["unchanged"] == "a renamed variable"
    changed[name] = {"version": real[name]["version"] + 1, "source": "1" * 16}
    locking.write((), "")
    assert locking.problems() == []


def test_fakes_are_not_locked():
    """A user's plug-in is the user's to keep."""
    assert fakes.Stripes in discover.found("tasks").values()
    assert not any("fakes" in name for name in locking.sources())


if __name__ == "__main__":
    PINS.write_text(json.dumps(pinned(), indent=1, sort_keys=True) + "\n")
