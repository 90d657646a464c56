"""GPP grows: copies of modules while validation improves; Inception, and the suites."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from conftest import fakes, loop
from slimbench import discover
from slimbench.core import Budget, Scores, UserError
from slimbench.cost import count
from slimbench.methods.gpp import GPP, GPPGrown, grow, prune
from slimbench.tasks import _networks
from slimbench.tasks._networks import inception
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

STRIPES = fakes.Stripes("resnet14")


def test_inception_has_the_papers_size():
    """About 6.7 M params and 1.51 G MACs at 1000 classes; 28 modules are 88 layers deep."""
    found = count(inception.imagenet(9, 1000), torch.zeros(1, 3, 224, 224))
    assert found.params == 6_697_992
    assert found.macs == 1_514_971_904
    assert [len(stage) for stage in inception.imagenet(28, 10).stages] == [6, 16, 6]
    for model, depth in (
        (inception.imagenet(9, 10), 31),
        (inception.imagenet(28, 10), 88),
        (inception.cifar(3, 3, 10), 13),
    ):
        longest = sum(isinstance(layer, nn.Conv2d) for layer in model.stem.modules())
        longest += 3 * sum(len(stage) for stage in model.stages) + 1
        assert longest == depth


@pytest.mark.parametrize(("modules", "depth"), [(3, 20), (6, 32), (9, 44), (12, 56)])
def test_the_ladder_has_the_macs_of_resnets(modules, depth):
    """To within half a percent."""
    example = torch.zeros(1, 3, 32, 32)
    one, two = (count(_networks.build(n, 3, 10, 32), example).macs for n in (f"inception{modules}", f"resnet{depth}"))
    assert one == pytest.approx(two, rel=0.005)


@pytest.mark.parametrize("name", ["inception4", "inception0", "imagenet-inception8"])
def test_an_inception_that_cannot_be_is_refused(name):
    """In words."""
    with pytest.raises(UserError, match="modules, not"):
        _networks.build(name, 3, 10, 32)


STAGES = [
    (Digits("inception3"), ["stages.0", "stages.1", "stages.2"]),
    (Digits("resnet20"), ["layer1", "layer2", "layer3"]),
    (Digits("vgg16-bn-quarter"), []),
    (TextureDigits(), ["backbone.layer1", "backbone.layer2", "backbone.layer3"]),
    (Photos(), ["body"]),
]


@pytest.mark.parametrize(("task", "names"), STAGES, ids=lambda value: getattr(value, "network", ""))
def test_stages_are_sequences_that_a_copy_can_continue(task, names):
    """Of Inception modules, of blocks; layers alone do not grow."""
    model = _networks.build("vgg16-bn-quarter", 3, 10, 32) if not names else task.build()
    example = torch.zeros(1, 3, 32, 32) if not names else task.example()
    assert list(grow.stages(model, example)) == names


@pytest.mark.parametrize(("groups", "names"), [(1, ["stage"]), (2, [])])
def test_a_copy_reads_more_where_its_convolutions_can(groups, names):
    """Those of several groups read no other number of channels."""

    class Widens(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(8, 4)
            first = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
            self.stage = nn.Sequential(nn.Sequential(first, nn.ReLU(), nn.Conv2d(8, 8, 1)))

        def forward(self, x):
            return self.linear(self.stage(self.stem(x)).mean((2, 3)))

    model, example = Widens(), torch.rand(1, 1, 8, 8)
    found = grow.stages(model, example)
    assert list(found) == names
    assert grow.grown(model, found, example)(example).shape == (1, 4)


def test_a_network_that_is_one_sequence_itself_is_refused():
    """What it ends in is no stage: there is nothing to put a longer one into."""
    residual = _networks.build("resnet20", 3, 10, 32).layer3[-1]
    found = grow.stages(nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), residual), torch.zeros(1, 3, 8, 8))
    assert found == {}


def test_a_network_grows_by_a_module_in_each_stage():
    """What inception6 and resnet26 are; the network that it grew from is as it was."""
    for task, target in ((Digits("inception3"), "inception6"), (Digits("resnet20"), "resnet26")):
        model = task.build()
        longer = grow.grown(model, grow.stages(model, task.example()), task.example())
        other = _networks.build(target, 1, 10, 8)
        assert [(n, p.shape) for n, p in longer.named_parameters()] == [
            (n, p.shape) for n, p in other.named_parameters()
        ]
        assert count(model, task.example()) == count(task.build(), task.example())


@pytest.mark.parametrize(
    ("scores", "grown"), [([50, 60, 70], 2), ([50, 60, 60], 1), ([50, 40, 90], 0)], ids=["rises", "stays", "falls"]
)
def test_growth_goes_on_while_validation_improves(monkeypatch, scores, grown):
    """The budget is a share of the network that was given, whatever it grew to; all epochs are spent, none too many."""
    values = iter(scores)
    monkeypatch.setattr(prune, "score", lambda model, task: Scores(float(next(values)), 1.0, 1.0))
    monkeypatch.setattr(prune, "enough", lambda model, layer, utilities, task, loss: utilities >= 0)
    trainer = loop(STRIPES, 4.0)
    model = STRIPES.build()
    dense = count(model, STRIPES.example())
    smaller = GPPGrown(steps=2, then=GPP()).compress(model, STRIPES, Budget(0.5, epochs=1.0), trainer)
    assert trainer.notes["grown by"] == grown
    assert len(smaller.layer1) == 2 + grown
    assert count(smaller, STRIPES.example()).macs / dense.macs == pytest.approx(0.5, rel=0.01)
    assert trainer.epochs_left == pytest.approx(0, abs=0.7)


def test_what_cannot_grow_is_refused_in_words():
    """No sequence of modules; a recipe without epochs; a budget that only inner channels cannot meet."""
    assert "no sequence of modules" in GPPGrown().unsupported(fakes.Stripes("mlp"), Budget(0.5))
    no_epochs = fakes.Stripes("resnet14", replace(STRIPES.recipe, epochs=0))
    assert "the recipe has none" in GPPGrown().unsupported(no_epochs, Budget(0.5))
    least = float(GPP().unsupported(STRIPES, Budget(1e-6)).rsplit(" ", 1)[1])
    assert GPP().unsupported(STRIPES, Budget(1.02 * least)) is None
    assert "below the least" in GPPGrown().unsupported(STRIPES, Budget(1.02 * least))
    with pytest.raises(UserError, match="steps must be at least 1"):
        GPPGrown(steps=0)


def test_the_paper_suites_name_what_they_compare():
    """Full GPP, CE alone, the same rates by norm and at random, at equal budgets; a ladder of equal MACs."""
    suites = {suite.name: suite for suite in discover.suites().values() if suite.name.startswith("gpp-")}
    assert {"gpp-cifar", "gpp-cifar-reduced", "gpp-ladder", "gpp-mnist", "gpp-imagenet", "gpp-windows"} <= set(suites)
    methods = {(m.push, m.pick) for arm in suites["gpp-cifar"].arms for m in arm.methods if isinstance(m, GPP)}
    assert {
        ("eigen-free", "traced"),
        ("eigen", "traced"),
        ("none", "traced"),
        ("none", "l1"),
        ("none", "random"),
    } <= methods
    networks = [task.network for task in suites["gpp-ladder"].tasks]
    assert networks == [*(f"inception{n}" for n in (3, 6, 9, 12)), *(f"resnet{n}" for n in (20, 32, 44, 56))]
