"""GPP alternates: rounds near the budget, or a threshold rises; what is impossible is refused."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import fakes, lively, loop
from slimbench import train
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Settings, UserError
from slimbench.cost import layers
from slimbench.methods import _surgery
from slimbench.methods.dense import Dense
from slimbench.methods.gpp import GPP, prune
from slimbench.methods.gpp.rounds import Rounds
from slimbench.train import Loop

STRIPES = fakes.Stripes("resnet14")


def test_rounds_near_the_budget_by_equal_factors_and_spend_all_epochs(store):
    """Two rounds to a quarter: a half, then a quarter; widths and all that is logged are in the record."""
    dense = Cell(STRIPES, Dense(), Budget(1.0), 0)
    compress(dense, store)
    method = GPP(push_share=0.5, rounds=2)
    record = compress(Cell(STRIPES, method, Budget(0.25, epochs=6), 0, reference=dense), store)
    assert (record.status, record.reason) == ("ok", "")
    assert record.spent.compression_epochs == pytest.approx(6, abs=0.6)
    notes = record.notes
    assert len(notes["eta"]) == len(notes["pre-decision neurons"]) == 2
    assert notes["skipped batches"] == [0, 0]
    assert set(notes["discriminants"]) == {f"{when} push {n}" for n in (1, 2) for when in ("before", "after")}
    assert len(notes["utilities after push 1"]) == 64
    assert len(notes["push 1"]["power"]) == 6
    assert all(len(values) <= 50 for values in notes["push 1"].values())
    assert all(left < dense for dense, left in notes["widths"].values())


def test_a_round_leaves_its_factor(monkeypatch):
    """0.25 in two rounds is half of the MACs first."""
    model = STRIPES.build()
    shares = []
    cut = Rounds.prune

    def watched(self, number):
        cut(self, number)
        shares.append(sum(layer.of("macs") for layer in layers(self.model, STRIPES.example()).values()))

    monkeypatch.setattr(Rounds, "prune", watched)
    dense = sum(layer.of("macs") for layer in layers(model, STRIPES.example()).values())
    GPP(rounds=2, images=32).compress(model, STRIPES, Budget(0.25), loop(STRIPES))
    assert [share / dense for share in shares] == pytest.approx([0.5, 0.25], rel=0.02)


def test_the_threshold_rises_until_validation_suffers(monkeypatch):
    """The last network that was comparable is retrained; the budget is not steered at."""
    model = lively(STRIPES.build())
    verdicts = iter([True, True, False, True])
    monkeypatch.setattr(Rounds, "is_comparable", lambda self: next(verdicts))
    etas, sizes = [], []
    below = prune.below

    def watched(scores, eta, floors):
        etas.append(eta)
        sizes.append(sum(map(len, scores)))
        return below(scores, eta, floors)

    monkeypatch.setattr(prune, "below", watched)
    smaller = GPP(eta=0.2, rounds=4, images=32).compress(model, STRIPES, Budget(0.5), loop(STRIPES))
    assert etas == pytest.approx([0.2, 0.4, 0.6])
    left = sum(w.channels for w in prune.inner(smaller, _surgery.widths(smaller, STRIPES.example())))
    assert left == sizes[2], "what stood before the third cut"


@pytest.mark.parametrize("after", ["push 1", "retraining 1", "push 2"])
def test_rounds_that_are_killed_continue_to_the_same_bits(tmp_path, monkeypatch, after):
    """Between the steps of a push as well: networks shrink, and averages are checkpointed, on the way."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    class KilledError(BaseException):
        pass

    def run(folder, say=lambda message: None):
        torch.manual_seed(0)
        trainer = Loop(STRIPES, 0, Settings(), 3.0, folder, say)
        method = GPP(rounds=2, eta=0.3, comparable=1.0, images=64)
        return method.compress(lively(STRIPES.build()), STRIPES, Budget(0.5), trainer), trainer.notes

    def dies(message):
        if message["fit"] == after:  # before the last step's checkpoint
            raise KilledError

    straight, notes = run(tmp_path / "straight")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", dies)
    resumed, found = run(tmp_path / "killed")
    assert found == notes
    assert len(notes["eta"]) == 2
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_images_are_traced_by_pixels(monkeypatch):
    """All maps are held: of large images fewer at once."""
    monkeypatch.setattr("slimbench.methods.gpp.rounds._TRACED_PIXELS", 5 * 64)
    rounds = Rounds(GPP(traced=12), STRIPES.build(), STRIPES, Budget(0.5), loop(STRIPES))
    assert [len(part) for part in rounds._images()] == [5, 5, 2]


def test_first_images_of_few_classes_are_refused():
    """In a folder for each class they are in order."""
    task = fakes.Stripes("resnet8")
    with pytest.raises(UserError, match=r"the first images=2 show \d of 4 classes"):
        Rounds(GPP(images=2), task.build(), task, Budget(0.5), loop(task))


@pytest.mark.parametrize("pick", ["l1", "random"])
def test_controls_take_as_many_of_each_width(pick):
    """Rates are those of the traced order, channels are others."""

    def cut(method):
        torch.manual_seed(0)
        model = lively(STRIPES.build())
        smaller = method.compress(model, STRIPES, Budget(0.5), loop(STRIPES))
        return {w.name: w.channels for w in _surgery.widths(smaller, STRIPES.example())}, smaller

    traced_widths, one = cut(GPP())
    widths, other = cut(GPP(pick=pick))
    assert widths == traced_widths
    assert not torch.equal(one.layer1[0].conv1.weight, other.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    "fields",
    [
        {"separation": -1.0},
        {"covariance": math.nan},
        {"top": 0.0},
        {"clip_norm": math.inf},
        {"eta": 0.0},
        {"rounds": 0},
        {"images": 0},
        {"window": 0},
        {"shrinkage": 1.5},
        {"floor": -0.1},
        {"decay": 1.0},
    ],
    ids=str,
)
def test_impossible_fields_are_refused_in_a_sentence(fields):
    """By name."""
    with pytest.raises(UserError, match=f"gpp: {next(iter(fields))}=.* is impossible"):
        GPP(**fields)
