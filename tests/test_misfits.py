"""Plug-ins of a user's own: what cannot be used is refused when it is loaded; a suite joins those that ship."""

from __future__ import annotations

import json

import pytest

from commands import refused
from slimbench.store import Store

PLAIN = """
from dataclasses import dataclass
from typing import ClassVar
from slimbench import Arm, Budget, Card, Suite
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.tasks.digits import Digits

@dataclass(frozen=True)
class Plain:
    name: ClassVar[str] = "plain"
    card: ClassVar[Card] = Card(title="Plain", fidelity={"all tasks": "control"})

    def unsupported(self, task, budget):
        return None

    def compress(self, model, task, budget, trainer):
        return model

suite = Suite("plain-suite", "Plain", (Digits(),), Dense(), (Arm((Plain(), L1Channels()), (Budget(0.5),)),))
"""
MISFITS = {
    "no dataclass": (
        "@dataclass(frozen=True)\n",
        "",
        "Plain in bad.py is no frozen dataclass: put @dataclass(frozen=True)",
    ),
    "not frozen": ("(frozen=True)", "", "Plain in bad.py is no frozen dataclass: put @dataclass(frozen=True) on it."),
    "no compress": ("def compress", "def squash", "Plain in bad.py is no method: it lacks compress."),
    "no name": ('name: ClassVar[str] = "plain"', "nom = 1", "Plain in bad.py is no method: it lacks name."),
    "arguments": (
        "model, task, budget, trainer",
        "model, task",
        "write def compress(self, model, task, budget, trainer).",
    ),
    "fidelity": (
        '"control"',
        '"faithful"',
        "Plain in bad.py has the fidelity 'faithful', which is unknown: say authors'",
    ),
    "a name of words": ('"plain"', '"my method!"', "has the name 'my method!', which nobody can type: use letters,"),
    "no card": ("Card(title=", "dict(title=", "has a card that is no slimbench.Card"),
    "a taken suite": ('"plain-suite"', '"quick"', "Two suites are called 'quick': rename the one in "),
    "a suite of words": ('"plain-suite"', '"plain suite"', "The suite 'plain suite' in bad.py cannot be typed"),
    "no suite": (
        "suite = Suite(",
        "suite = dict(a=3) or Suite(",
        "bad.py has a suite that is a dict: write suite = Suite(",
    ),
    "no tuple": (
        "(Digits(),)",
        "(Digits())",
        "The suite 'plain-suite' in bad.py cannot be planned: make its tasks, arms,",
    ),
    "no arm": ("(Arm(", "((", "The suite 'plain-suite' in bad.py cannot be planned: make its tasks, arms,"),
}


@pytest.mark.parametrize("which", MISFITS)
def test_a_plug_in_that_cannot_be_used_is_refused(tmp_path, inside, plugged, which):
    """When it is loaded, whatever is asked for; a suite, when suites are looked for."""
    there, instead, words = MISFITS[which]
    assert there in PLAIN
    (tmp_path / "bad.py").write_text(PLAIN.replace(there, instead, 1).replace(" Plain()," * (instead == "nom = 1"), ""))
    refused(inside("plan", "quick", "--task", "digits", "--plugin", "bad.py"), words)


def test_a_helper_that_compresses_other_things_is_no_method(tmp_path, inside, plugged):
    """One word of three, and a name, make no plug-in."""
    codec = 'class Codec:\n    name = "zip"\n\n    def compress(self, data):\n        return data\n'
    (tmp_path / "good.py").write_text(PLAIN + codec)
    assert inside("plan", "plain-suite", "--plugin", "good.py").exit_code == 0


def test_a_suite_of_the_users_own(tmp_path, inside, plugged):
    """Listed, planned and reported by its name; a method that it has does not join it once more."""
    (tmp_path / "good.py").write_text(PLAIN)
    planned = inside("plan", "plain-suite", "--json", "--plugin", "good.py")
    cells = [row["cell"].split()[1] for row in json.loads(planned.stdout)["cells"]]
    assert cells[:3] == ["dense", "plain", "l1_channels"]  # then what other plug-ins have
    assert cells.count("plain") == 1
    listed = json.loads(inside("list", "suites", "--json", "--plugin", "good.py").stdout)["suites"]
    assert listed[-1] == {"name": "plain-suite", "title": "Plain", "tasks": "digits/resnet20", "seeds": 1}
    Store("store")
    reported = inside("report", "plain-suite", "--plugin", "good.py", "--store", "store")
    assert reported.stdout == "No records yet: `bench run --all` makes some.\n"


def test_two_plugins_of_one_name_are_refused(tmp_path, inside):
    """The second would silently be the first."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("")
    refused(inside("list", "--plugin", "a/mine.py", "--plugin", "b/mine.py"), "Two plug-ins")


def test_a_plugin_that_exits_is_refused(tmp_path, inside):
    """It does not take the command with it."""
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    refused(inside("list", "--plugin", "quits.py"), "cannot be imported")
