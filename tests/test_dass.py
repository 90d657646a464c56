"""DASS: layers with scores, cells and networks of them, the search, the budget on a network of the method's own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from conftest import fakes, lively
from slimbench import artifact, identity, seeding
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Recipe, Settings, Step, UserError
from slimbench.cost import count, prunable
from slimbench.methods.dass import DASS, SparseScores, cells, genotypes, networks, pruning, search, sparse
from slimbench.methods.dass.search import Search, genotype
from slimbench.methods.dense import Dense
from slimbench.tasks._networks import build
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.train import Loop

TASK = fakes.Stripes("resnet8")
SMALL = DASS(channels=4, cells=3, search_channels=2, search_cells=3, search_pretrain=1, search_prune=1)
SMALL_TASKS = {
    "classification": TASK,
    "segmentation": TextureDigits(recipe=replace(TextureDigits.recipe, epochs=1)),
    "super resolution": Photos(recipe=replace(Photos.recipe, epochs=1)),
}


# --------------------------------------------------------------------------------------------------- sparse layers


def four_weights() -> sparse.SparseLinear:
    """A layer (1, 4) -> (1, 1) of weights 1, -2, 3, -4 and scores 0.1, -0.4, 0.2, -0.3."""
    layer = nn.Linear(4, 1, bias=False)
    model = nn.Sequential(layer)
    (made,) = sparse.sparsify(model)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
        made.scores.copy_(torch.tensor([[0.1, -0.4, 0.2, -0.3]]))
    return made


def test_the_gradient_goes_straight_through_the_mask():
    """y = sum of x * w * m: grad_w = x * m, grad_s = x * w * sign(s), for the weights that are cut too."""
    layer = four_weights()
    sparse.set_masks([layer], 0.5)
    assert layer.mask.tolist() == [[False, True, False, True]]
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    y = layer(x)
    assert y.item() == 2 * -2 + 4 * -4
    y.sum().backward()
    assert layer.weight.grad.tolist() == [[0.0, 2.0, 0.0, 4.0]]
    assert layer.scores.grad.tolist() == [[1.0, 2 * -2 * -1.0, 3 * 3.0, 4 * -4 * -1.0]]


def test_scores_that_do_not_learn_cost_no_gradient():
    """In every phase but pruning the mask is a constant."""
    layer = four_weights()
    layer.scores.requires_grad_(False)
    layer(torch.ones(1, 4)).sum().backward()
    assert layer.scores.grad is None


@pytest.mark.parametrize(
    ("total", "keep", "stays"),
    [(10, 0.9, 9), (10, 0.1, 1), (100, 0.01, 1), (324, 0.01, 4), (270, 0.01, 3), (5, 0.01, 1)],
)
def test_all_but_the_share_stays_and_never_none(total, keep, stays):
    """n - int((1 - k) n): the dossier's 4 of 324 and 3 of 270; at least one."""
    assert sparse.kept(total, keep) == stays
    assert [int(mask.sum()) for mask in sparse.masks([torch.randn(total)], keep, "layer")] == [stays]


def test_the_global_ranking_compares_layers_and_spares_one_weight():
    """The small layer would lose all; it keeps its largest."""
    large, small = torch.arange(1.0, 9), torch.tensor([0.1, -0.2])
    found = sparse.masks([large, small], 0.4, "global")
    assert found[0].tolist() == [False] * 4 + [True] * 4
    assert found[1].tolist() == [False, True]


def test_scores_start_as_scaled_magnitudes():
    """sqrt(6 / fan in) * w / max|w|: 4 weights a filter, the largest 4."""
    layer = four_weights()
    sparse.score_by_magnitude([layer])
    expected = math.sqrt(6 / 4) * torch.tensor([[1.0, -2.0, 3.0, -4.0]]) / 4
    torch.testing.assert_close(layer.scores.detach(), expected)


def test_a_network_can_be_made_sparse_and_ordinary_again():
    """Unmasked it computes the same; baked it has zeros, its own classes, and no scores."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Flatten(), nn.Linear(4 * 144, 2)
    )
    x = torch.randn(2, 3, 8, 8)
    expected, kinds = model(x), [type(layer) for layer in model]
    layers = sparse.sparsify(model)
    assert len(layers) == 3
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    sparse.score_by_magnitude(layers)
    sparse.set_masks(layers, 0.25)
    masked = model(x)
    sparse.bake(model)
    torch.testing.assert_close(model(x), masked, rtol=0, atol=0)
    assert [type(layer) for layer in model] == kinds
    assert not [name for name, _ in model.named_parameters() if "scores" in name]
    for weight in prunable(model).values():
        assert int(weight.count_nonzero()) == sparse.kept(weight.numel(), 0.25)


def test_phases_train_what_they_may_alone():
    """Scores and batch norm, then weights, biases and batch norm; decay does not shrink what is frozen."""
    task = fakes.Stripes("resnet8", Recipe(epochs=2, batch_size=16, lr=0.05, weight_decay=0.1))
    loop = Loop(task, 0, Settings(), allowance=10)
    model = task.build()
    layers = sparse.sparsify(model)
    sparse.score_by_magnitude(layers)

    def state() -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    before = state()
    with pruning.learning(model, "scores"):
        loop.fit(model, 1, name="prune", before_step=pruning.Masking(layers, 0.5, "layer").follow)
    middle = state()
    moved = {name for name, value in middle.items() if not torch.equal(value, before[name])}
    assert {name for name in moved if "scores" in name} == {name for name in before if "scores" in name}
    assert {name for name in moved if "scores" not in name} == {n for n in before if ".bn" in n or n.startswith("bn")}
    masks = [layer.mask.clone() for layer in layers]
    with pruning.learning(model, "weights"):
        loop.fit(model, 1, name="fine-tune")
    moved = {name for name, value in state().items() if not torch.equal(value, middle[name])}
    assert moved == {name for name in before if "scores" not in name}
    assert all(torch.equal(layer.mask, mask) for layer, mask in zip(layers, masks, strict=True))
    assert all(p.requires_grad for p in model.parameters())


# --------------------------------------------------------------------------------------------- cells and networks


@pytest.mark.parametrize(
    ("size", "params", "macs"),
    [
        ("tiny", 0.989, 158),
        ("small", 1.714, 275),
        ("medium", 5.379, 970),
        ("large", 10.569, 1739),
        ("darts", 2.118, 340),
    ],
)
def test_the_authors_networks_have_the_sizes_that_were_derived(size, params, macs):
    """Millions, at 3 x 32 x 32 and ten classes."""
    found = count(networks.named(size), torch.zeros(1, 3, 32, 32))
    assert round(found.params / 1e6, 3) == params
    assert round(found.macs / 1e6) == macs


def test_the_peers_have_the_sizes_that_were_derived():
    """MobileNetV2 and ResNet-18 for CIFAR; the thinned one has an eighth of the widths."""
    sizes = {"mobilenetv2": (2.297, 91), "resnet18-cifar": (11.174, 555)}
    for name, (params, macs) in sizes.items():
        found = count(build(name, 3, 10, 32), torch.zeros(1, 3, 32, 32))
        assert (round(found.params / 1e6, 3), round(found.macs / 1e6)) == (params, macs)
    assert build("mobilenetv2-eighth", 3, 10, 32).conv2.out_channels == 160


def test_genotypes_are_read_as_they_are_written():
    """By name and as text."""
    for name in genotypes.NAMED:
        found = genotypes.parse(name)
        assert genotypes.parse(str(found)) == found
    assert genotypes.parse("dass-99").normal[1] == (("dil5", 1), ("skip", 2))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dass-98", "Unknown genotype 'dass-98' .did you mean"),
        ("normal: skip@0 skip@1; reduce: skip@0 skip@1", "give 4 nodes of two"),
        (genotypes.NAMED["darts"].replace("sep3@0", "sep7@0", 1), "sep7@0 is impossible in node 0"),
        (genotypes.NAMED["darts"].replace("sep3@0", "sep3@2", 1), "sep3@2 is impossible in node 0"),
        (genotypes.NAMED["darts"].replace("sep3@0", "sep3", 1), "Cannot read 'sep3' in a cell"),
    ],
)
def test_impossible_genotypes_are_refused_in_words(text, why):
    """As a method is made."""
    with pytest.raises(UserError, match=why):
        DASS(genotype=text)


def test_factorized_reduction_sees_every_pixel():
    """Even pixels in one half of the channels, odd ones in the other; an odd size ends with a zero."""
    layer = cells.FactorizedReduce(1, 2, affine=False).eval()
    nn.init.ones_(layer.even.weight)
    nn.init.ones_(layer.odd.weight)
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    found = layer(x) * math.sqrt(1 + layer.norm.eps)
    torch.testing.assert_close(found[0, 0], torch.tensor([[1.0, 3.0], [7.0, 9.0]]))
    torch.testing.assert_close(found[0, 1], torch.tensor([[5.0, 0.0], [0.0, 0.0]]))


def test_a_mixture_weighs_its_operations():
    """All weight on one is that one; "none" adds nothing."""
    mixed = cells.Mixed(4, 1).eval()
    x = torch.randn(2, 4, 8, 8)
    for index, operation in enumerate(mixed.operations):
        weights = torch.zeros(8)
        weights[index] = 1.0
        torch.testing.assert_close(mixed(x, weights), operation(x))
    assert not mixed(x, torch.eye(8)[0]).any()


def test_dropped_paths_keep_their_mean_and_spare_skips():
    """Over many samples; none in eval mode."""
    skips = "skip@0 skip@1 | skip@0 skip@1 | skip@0 skip@1 |"
    plan = genotypes.parse(f"normal: avg3@0 skip@1 | {skips[:-2]}; reduce: {skips} skip@0 skip@1")
    cell = cells.Found(plan.normal, (4, 4, 4), reduces=False, halved=False)
    x = torch.ones(4000, 4, 2, 2)
    cell.drop = 0.25
    assert torch.equal(cell.train()._edge(1, [x, x]), x)
    made = cell._edge(0, [x, x])[:, 0, 0, 0]
    assert made.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float(made.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(cell.eval()._edge(0, [x, x]), x)


@pytest.mark.parametrize("family", SMALL_TASKS)
def test_networks_of_every_family_take_what_the_task_gives(family, tmp_path):
    """The dense network's output shape, at other sizes too; stored and loaded they compute the same."""
    task = SMALL_TASKS[family]
    shape = networks.shape_of(task)
    made = lively(networks.CellNetwork(shape, 4, 3, genotypes.parse("dass-95"))).eval()
    example = task.example()
    assert made(example).shape == task.deploy(task.build()).eval()(example).shape
    assert any(getattr(cell, "reduces", False) for cell in made.cells) == shape.reduces
    artifact.save(made, example, tmp_path / "a", dynamic_size=task.any_size)
    program = artifact.load(tmp_path / "a").module()
    x = torch.rand(3, shape.channels, *((24, 32) if task.any_size else example.shape[2:]))
    with torch.inference_mode():
        torch.testing.assert_close(program(x), made(x))


def test_imagenet_networks_have_a_stem_of_an_eighth():
    """48 channels, 14 cells: DARTS' mobile setting."""
    shape = networks.Shape("classification", 3, 1000, 224)
    made = networks.CellNetwork(shape, 48, 14, genotypes.parse("dass-99")).eval()
    before, last = made.stem(torch.zeros(1, 3, 224, 224))
    assert (before.shape[1:], last.shape[1:]) == ((48, 56, 56), (48, 28, 28))
    assert made.reduced == (4, 9)


def test_auxiliary_heads_train_and_are_gone_afterwards():
    """They see the last reduction; in eval mode they are not asked."""
    shape = networks.Shape("classification", 3, 10, 32)
    made = networks.CellNetwork(shape, 4, 3, genotypes.parse("dass-99"), auxiliary=True)
    x = torch.randn(2, 3, 32, 32)
    assert [out.shape for out in made.train()(x)] == [(2, 10), (2, 10)]
    assert made.eval()(x).shape == (2, 10)
    bare = networks.without_auxiliary_head(made)
    assert bare.train()(x).shape == (2, 10)
    assert "auxiliary" not in dict(bare.named_children())


# -------------------------------------------------------------------------------------------------------- the search


def test_discretisation_takes_the_best_two_inputs_and_never_none():
    """ "none" is the likeliest everywhere, and out of the question."""
    alpha = torch.zeros(2, cells.EDGES, 8)
    alpha[:, :, 0] = 9.0
    first_of_third_node = 2 + 3
    alpha[0, first_of_third_node + 3, 4] = 12.0  # node 2, input 3: sep3
    alpha[0, first_of_third_node + 1, 7] = 11.0  # node 2, input 1: dil5
    found = genotype(alpha)
    assert found.normal[2] == (("dil5", 1), ("sep3", 3))
    assert all(operation != "none" for node in found.reduce for operation, _ in node)


class Smooth(nn.Module):
    """Two operations, weighed by alpha, without kinks, in float64: what finite differences can be trusted on."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.one, self.two = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = self.alpha.softmax(0)
        return share[0] * torch.tanh(self.one(x.flatten(1))) * 3 + share[1] * self.two(x.flatten(1)).sin()


def test_second_order_equals_a_finite_difference(monkeypatch):
    """d/d alpha of L_val(w - xi (dL_train/dw + decay w), alpha), by moving alpha's entries."""
    monkeypatch.setattr(search, "full_precision", lambda outputs: outputs)  # which is float64 here
    found = Search(SMALL, TASK, networks.shape_of(TASK))
    with seeding.seeded(0, "test"):
        found.network = Smooth().double()
    found.alpha = alpha = found.network.alpha
    train, held = (TASK.batch("train", torch.arange(start, start + 16), None) for start in (0, 16))
    train, held = (train[0].double(), train[1]), (held[0].double(), held[1])
    step = Step(0, 10, 0.5, *train, None, lambda: held)
    slope, first = found._unrolled(step, held), found._first_order(held)
    weights = {n: p for n, p in found.network.named_parameters() if p is not alpha}
    decay = found.recipe.weight_decay

    def ahead() -> float:
        grads = torch.autograd.grad(found.loss(None, *train, found.network(train[0])), list(weights.values()))
        moved = {n: (p - step.lr * (g + decay * p)).detach() for (n, p), g in zip(weights.items(), grads, strict=True)}
        out = torch.func.functional_call(found.network, moved, (held[0],))
        return found.loss(None, *held, out).item()

    for entry in range(2):
        sides = []
        for nudge in (1e-5, -2e-5):
            with torch.no_grad():
                alpha[entry] += nudge
            sides.append(ahead())
        with torch.no_grad():
            alpha[entry] += 1e-5
        numeric = (sides[0] - sides[1]) / 2e-5
        assert float(slope[entry]) == pytest.approx(numeric, rel=1e-3)
        assert float(first[entry]) != pytest.approx(numeric, rel=1e-1), "the first order is another gradient"


def test_weights_never_train_alpha(monkeypatch):
    """It moves by its own steps alone: with a rate of zero it stays, whatever weights do."""
    found = Search(replace(SMALL, alpha_lr=0.0), TASK, networks.shape_of(TASK))
    before = found.alpha.detach().clone()
    loop = Loop(TASK, 0, Settings(), allowance=30)
    found.run(Budget(0.3, "prunable_nonzero"), loop, 0.5)
    assert torch.equal(found.alpha, before)
    assert not found.alpha.requires_grad


@pytest.mark.parametrize(("unrolled", "passes"), [(False, 2), (True, 5)])
def test_alpha_learns_from_what_is_held_out_and_with_the_masks(unrolled, passes):
    """In the first and the last phase; scores learn in between, while alpha rests. Every pass is booked."""
    found = Search(replace(SMALL, unrolled=unrolled), TASK, networks.shape_of(TASK))
    seen = []
    turn = found.turn_alpha

    def watched(step: Step) -> None:
        before = found.alpha.detach().clone()
        turn(step)
        seen.append((float(torch.stack([layer.mask.float().mean() for layer in found.layers]).mean()), before))

    found.turn_alpha = watched
    loop = Loop(TASK, 0, Settings(), allowance=30)
    found.run(Budget(0.3, "prunable_nonzero"), loop, 1)
    kept = {round(share, 1) for share, _ in seen}
    assert kept == {1.0, 0.3}
    assert not torch.equal(seen[0][1], found.alpha)
    assert set(loop.notes["share of each operation"]) == {"normal", "reduce"}
    assert loop.spent.search_epochs == pytest.approx(0.5 * (passes * 1 + 1 + passes * 2), abs=0.2)


# ------------------------------------------------------------------------------------------------------- as a method


def a_cell(store, method, budget, task=TASK):
    """The method's record, behind a dense network."""
    dense = Cell(task, Dense(), Budget(1.0), 0)
    if store.record(identity.cell_id(dense)) is None:
        compress(dense, store)
    return compress(Cell(task, method, budget, 0, reference=dense), store)


def test_the_budget_is_of_the_networks_own_weights(store):
    """Both costs are recorded, and survive the store; the task's dense network stands beside."""
    record = a_cell(store, replace(SMALL, genotype="dass-99"), Budget(0.2, "prunable_nonzero", epochs=2, tolerance=0.1))
    assert (record.status, record.reason) == ("ok", "")
    assert record == store.record(record.id)
    assert record.unpruned_cost.params == record.cost.params != record.dense_cost.params
    assert record.kept("prunable_nonzero") == pytest.approx(0.2, rel=0.1)
    assert record.cost.prunable_nonzero / record.dense_cost.prunable_nonzero < 0.1
    assert record.notes["genotype"] == str(genotypes.parse("dass-99"))
    assert record.spent.search_epochs == 0


def test_methods_that_make_no_network_are_judged_by_the_dense_one(store):
    """No other cost is recorded."""
    record = a_cell(store, SparseScores(), Budget(0.2, "prunable_nonzero", epochs=2))
    assert (record.status, record.unpruned_cost) == ("ok", None)
    assert record.kept("prunable_nonzero") == record.cost.prunable_nonzero / record.dense_cost.prunable_nonzero


def test_nothing_is_pruned_at_keep_1(store):
    """All epochs are for training."""
    record = a_cell(store, replace(SMALL, genotype="dass-99"), Budget(1.0, "prunable_nonzero", epochs=1))
    assert (record.status, record.reason) == ("ok", "")
    assert "kept" not in record.notes
    assert record.spent.compression_epochs == pytest.approx(3, abs=0.1)


def test_an_auxiliary_head_and_dropped_paths_train_and_leave_nothing(store, monkeypatch):
    """As in the authors' schedule; what is stored has neither."""
    monkeypatch.setattr(fakes.Stripes, "size_px", 32)
    monkeypatch.setattr(fakes, "_stripes", _enlarged(fakes._stripes))
    method = replace(SMALL, genotype="dass-99", auxiliary=0.4, drop_path=0.2)
    assert method.unsupported(Photos(), Budget(0.5, "prunable_nonzero", epochs=1)).startswith("the auxiliary head is")
    record = a_cell(store, method, Budget(0.5, "prunable_nonzero", epochs=1))
    assert (record.status, record.reason) == ("ok", "")
    assert not [name for name in artifact.load_weights(store.artifact(record.id)) if "auxiliary" in name]


def _enlarged(load):
    def loaded(split):
        images = load(split)
        return replace(images, pixels=images.pixels.repeat_interleave(4, 2).repeat_interleave(4, 3))

    return loaded


@pytest.mark.parametrize(
    ("method", "budget", "why"),
    [
        (DASS(), Budget(0.5), "zeroed weights leave macs as they are"),
        (SparseScores(), Budget(0.5, epochs=1), "zeroed weights leave macs as they are"),
        (SparseScores(), Budget(0.5, "prunable_nonzero"), "the budget leaves them no epochs"),
        (SparseScores(), Budget(1e-6, "prunable_nonzero", epochs=1), "below one weight a layer, 0.0"),
        (DASS(hold_out=0.999), Budget(0.5, "prunable_nonzero", epochs=1), "leaves nothing to alpha or weights"),
    ],
)
def test_what_cannot_be_is_said(method, budget, why):
    """In words, before anything is trained."""
    assert why in method.unsupported(TASK, budget)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"cells": 2}, "cells=2 is impossible"),
        ({"pretrain": 0}, "pretrain=0 is impossible"),
        ({"drop_path": 1.0}, "drop_path within"),
        ({"search_batch_size": 0}, "search_batch_size must be at least 1"),
        ({"auxiliary": -1}, "auxiliary=-1 is impossible"),
    ],
)
def test_impossible_fields_are_refused(fields, why):
    """One sentence each."""
    with pytest.raises(UserError, match=why):
        DASS(**fields)
    with pytest.raises(UserError, match="prune=0 is impossible"):
        SparseScores(prune=0)


def test_odd_layers_are_named():
    """A subclass of a convolution may compute something else."""

    class Odd(nn.Conv2d):
        pass

    assert sparse.unlike(nn.Sequential(Odd(1, 1, 1))) == "layer '0' is a Odd, which has no sparse form"
    assert sparse.unlike(build("resnet20", 1, 4, 8)) is None


def test_found_cells_are_drawn(store, tmp_path):
    """Beside the histogram of what layers keep."""
    from slimbench.reports import notes

    record = a_cell(store, replace(SMALL, genotype="dass-95"), Budget(0.3, "prunable_nonzero", epochs=1, tolerance=0.1))
    files = notes.draw(record, tmp_path)
    assert [file.name.partition("-")[2] for file in files] == ["genotype.png", "kept.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
