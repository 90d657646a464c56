"""GPP alternates: rounds near the budget, or a threshold rises; what is impossible is refused."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import fakes, lively, loop
from slimbench.compress import compress
from slimbench.core import Budget, Cell, UserError
from slimbench.cost import layers
from slimbench.methods import _surgery
from slimbench.methods.dense import Dense
from slimbench.methods.gpp import GPP, prune
from slimbench.methods.gpp.rounds import Rounds

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

    def watched(scores, eta, floor):
        etas.append(eta)
        sizes.append(sum(map(len, scores)))
        return below(scores, eta, floor)

    monkeypatch.setattr(prune, "below", watched)
    smaller = GPP(eta=0.2, rounds=4, images=32).compress(model, STRIPES, Budget(0.5), loop(STRIPES))
    assert etas == pytest.approx([0.2, 0.4, 0.6])
    left = sum(w.channels for w in prune.inner(smaller, _surgery.widths(smaller, STRIPES.example())))
    assert left == sizes[2], "what stood before the third cut"


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
