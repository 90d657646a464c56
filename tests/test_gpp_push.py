"""GPP pushes: utilities and losses are their formulas, batches have as many of each class."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes, loop
from slimbench.core import Budget
from slimbench.methods.gpp import GPP, discriminants, features, push
from slimbench.methods.gpp.discriminants import Scatters
from slimbench.methods.gpp.push import CholeskyError, Push
from slimbench.methods.gpp.rounds import Rounds
from slimbench.tasks import _networks
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

STRIPES = fakes.Stripes("resnet14")


# -------------------------------------------------------------------------------------------------------- discriminants


def test_utility_is_the_formula_on_diagonal_data():
    """Two classes of two samples, three neurons: by hand."""
    x = torch.tensor([[1.0, 0.0, 5.0], [3.0, 2.0, 5.0], [5.0, 0.0, 5.0], [7.0, 2.0, 5.0]])
    found = Scatters.of([(x[:2], torch.tensor([0, 0])), (x[2:], torch.tensor([1, 1]))])
    # means (2, 1) and (6, 1), of all (4, 1): sigma_b^2 = 4, 0; sigma_w^2 = 1, 1; the third has no variance
    assert found.within.flatten().tolist() == pytest.approx([1, 1, 0, 1, 1, 0, 0, 0, 0])
    assert found.between.flatten().tolist() == pytest.approx([4, 0, 0, 0, 0, 0, 0, 0, 0])
    assert found.utilities().tolist() == pytest.approx([4, 0, 0])
    assert found.sizes.tolist() == [2, 2]


def test_copies_of_a_neuron_and_constant_ones_are_worth_nothing():
    """The first of two equal columns counts; a constant whose square rounds is constant still."""
    torch.manual_seed(0)
    one, labels = torch.randn(60, 1), torch.arange(60) % 3
    one = one + labels[:, None]
    x = torch.cat([one, torch.full((60, 1), 0.1), one, 2 * one], 1)
    v = Scatters.of([(x, labels)]).utilities()
    assert v[0] > 0
    assert v[1:3].tolist() == [0, 0]
    assert v[3] == pytest.approx(float(v[0])), "of another scale is no copy"


def test_a_neuron_that_is_constant_in_each_class_is_worth_most():
    """Without variance in classes, and with some between them."""
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    x = torch.stack([labels + torch.randn(30), 0.1 * labels + 0.3], 1)
    v = Scatters.of([(x, labels)]).utilities()
    assert v[1] > 1e6 * v[0] > 0
    assert v.isfinite().all()


def test_scatters_are_those_of_the_samples_whatever_the_parts():
    """Against the definition; a later part may bring a class that the first lacks."""
    torch.manual_seed(0)
    x, labels = torch.randn(40, 5, dtype=torch.float64), torch.tensor([0] * 10 + [2] * 10 + [0, 1] * 10)
    found = Scatters.of([(x[:20], labels[:20]), (x[20:], labels[20:])])
    means = torch.stack([x[labels == c].mean(0) for c in range(3)])
    within = torch.cov((x - means[labels]).T, correction=0)
    torch.testing.assert_close(found.within, within)
    torch.testing.assert_close(found.between + found.within, torch.cov(x.T, correction=0))


def test_what_is_logged_is_its_definition():
    """Power of the best, the effective number of neurons, and correlation over neurons that vary."""
    v = torch.tensor([3.0, 1.0, 0.0, 0.0])
    assert float(discriminants.power(v, 1)) == 3
    assert float(discriminants.power(v, 9)) == 1
    assert float(discriminants.effective(v)) == pytest.approx(16 / 10)
    assert float(discriminants.effective(torch.ones(7))) == pytest.approx(7)
    S = torch.tensor([[4.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert float(discriminants.correlation(S)) == pytest.approx(0.5)
    assert float(discriminants.correlation(torch.zeros(2, 2))) == 0


# ------------------------------------------------------------------------------------------------------------- the push


def test_losses_are_what_a_pencil_finds():
    """Two and three neurons."""
    d = torch.tensor([3.0, 1.0, 0.0])
    assert float(push.separation(d, 2)) == pytest.approx(-(math.log(4) + math.log(2)) / 2)
    assert float(push.separation(d, 9)) == pytest.approx(-(math.log(4) + math.log(2)) / 3)
    assert float(push.off_diagonal(torch.tensor([[3.0, 1.0], [2.0, 4.0]]))) == pytest.approx(5 / 25)
    assert float(push.off_diagonal(torch.zeros(2, 2))) == 0
    assert float(push.compactness(torch.tensor([5.0, 0.0, 0.0, 0.0]))) == pytest.approx(0)
    assert float(push.compactness(torch.ones(4))) == pytest.approx(1)
    assert float(push.compactness(torch.tensor([3.0, 4.0]))) == pytest.approx((7 / 5 - 1) / (2**0.5 - 1))


@pytest.mark.parametrize("shape", [(3, 5), (4, 2), (3, 2)], ids=["few classes", "few neurons", "as many"])
def test_eigenpairs_solve_the_generalised_problem(shape):
    """S_b e = v S_w e, largest first, rank min(C - 1, M), with finite gradients."""
    torch.manual_seed(0)
    spread = torch.randn(shape, dtype=torch.float64)
    spread = (spread - spread.mean(0)).requires_grad_()
    root = torch.randn(shape[1], shape[1], dtype=torch.float64)
    within = root @ root.T + torch.eye(shape[1])
    v, e = push.eigen(within, spread)
    assert len(v) == min(shape[0] - 1, shape[1])
    assert v.tolist() == sorted(v.tolist(), reverse=True)
    torch.testing.assert_close(e @ (spread.T @ spread), v[:, None] * (e @ within))
    (push.alignment(v, e) + push.separation(v, len(v))).backward()
    assert spread.grad.isfinite().all()


def test_classes_that_never_came_leave_eigenvalues_as_they_are():
    """Their rows of zeros would make eigenvalues equal, and gradients undefined."""
    spread = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [-2.0, 1.0]])
    v, _ = push.eigen(torch.eye(2), spread.requires_grad_())
    expected, _ = push.eigen(torch.eye(2), spread[[0, 3]])
    torch.testing.assert_close(v, expected)


def test_alignment_is_zero_on_axes_and_one_on_the_diagonal():
    """Weighted by eigenvalue."""
    axes, diagonal = torch.eye(4)[:1], torch.ones(1, 4)
    assert float(push.alignment(torch.tensor([2.0]), axes)) == pytest.approx(0)
    assert float(push.alignment(torch.tensor([2.0]), diagonal)) == pytest.approx(1)
    assert float(push.alignment(torch.tensor([3.0, 1.0]), torch.cat([axes, diagonal]))) == pytest.approx(0.25)


def test_both_separations_agree_where_discriminants_are_aligned():
    """With diagonal scatters the eigenvalues are the d_j, and so are their gradients."""
    spread = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    within = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)).requires_grad_()
    full = torch.cat([spread[:2], 1e-9 * torch.ones(1, 3, dtype=torch.float64)])  # the class that makes the mean zero
    v, _ = push.eigen(within, full)
    d = discriminants.utilities(within, spread.T @ spread)
    torch.testing.assert_close(v, d[:2], rtol=1e-6, atol=1e-6)
    by_eigen = torch.autograd.grad(push.separation(v, 2), (spread, within))
    by_axes = torch.autograd.grad(push.separation(d, 2), (spread, within))
    for one, two in zip(by_eigen, by_axes, strict=True):
        cosine = F.cosine_similarity(one.flatten(), two.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-6)


def started(method, x, classes) -> Push:
    """A push whose averages are of these samples."""
    made = Push(method, STRIPES, Scatters.of([(x, classes)]))
    made.weight = 1.0
    return made


SAMPLES = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 2.0], [7.0, 0.0]]), torch.tensor([0, 0, 1, 1])


def test_the_term_is_its_parts_weighted():
    """Averages of the same samples are the samples' own."""
    method = GPP(separation=2.0, covariance=3.0, compactness=5.0, top=1.0, shrinkage=0.0)
    term = started(method, *SAMPLES).term(*SAMPLES)
    found = Scatters.of([SAMPLES])
    d = discriminants.utilities(found.within, found.between)  # (4, 0), S_w = I, off-diagonal ((1 - 1) / 2) = 0
    assert d.tolist() == pytest.approx([4, 0])
    expected = 2 * -math.log(5) + 3 * 0 + 5 * 0
    assert float(term) == pytest.approx(expected, abs=1e-5)
    assert float(started(replace(method, push="none"), *SAMPLES).term(*SAMPLES)) == 0


def test_every_part_of_the_term_counts():
    """Three neurons whose scatters are not diagonal: S_b's other entries count a tenth."""
    torch.manual_seed(0)
    x, classes = torch.randn(12, 3), torch.arange(12) % 3
    method = GPP(separation=2.0, covariance=3.0, compactness=5.0, top=1.0, shrinkage=0.0)
    S_w, S_b = (S.float() for S in (Scatters.of([(x, classes)]).within, Scatters.of([(x, classes)]).between))
    d = S_b.diagonal() / S_w.diagonal()
    covariance = push.off_diagonal(S_w) + 0.1 * push.off_diagonal(S_b)
    expected = 2 * push.separation(d, 2) + 3 * covariance + 5 * push.compactness(d)
    assert float(started(method, x, classes).term(x, classes)) == pytest.approx(float(expected), rel=1e-4)
    v, e = push.eigen(S_w, (torch.stack([x[classes == c].mean(0) for c in range(3)]) - x.mean(0)) / 3**0.5)
    expected = 2 * push.separation(v, 2) + 3 * covariance + 5 * push.alignment(v, e)
    found = started(replace(method, push="eigen"), x, classes).term(x, classes)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_values_are_averages_and_gradients_the_batchs():
    """0.75 of the old and 0.25 of the batch; a class that is not in it keeps its mean."""
    made = started(GPP(decay=0.75, shrinkage=0.0), *SAMPLES)
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0]], requires_grad=True)
    within, _ = made.update(x, torch.tensor([0, 0]))
    assert within.flatten().tolist() == pytest.approx([0.75 * 1 + 0.25 * 4, 0, 0, 0.75])
    assert made.averages.means.flatten().tolist() == pytest.approx([2, 0.75, 6, 1])
    assert made.averages.shares.tolist() == [0.75 * 0.5 + 0.25, 0.75 * 0.5]
    (gradient,) = torch.autograd.grad(within[0, 0], x)
    assert gradient.flatten().tolist() == pytest.approx([-2, 0, 2, 0]), (
        "that of the batch's own variance, mean of (x - 2)^2"
    )


@pytest.mark.parametrize(("classes", "batch"), [(10, 128), (100, 128), (1000, 256)])
def test_many_classes_do_not_shrink_what_lies_within_them(classes, batch):
    """Of a thousand, most have one sample in a batch, which says nothing of its class's scatter."""
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(classes, 4, generator=rng)
    labels = torch.arange(classes).repeat_interleave(4)
    made = started(GPP(), means[labels] + torch.randn(len(labels), 4, generator=rng), labels)
    for _ in range(100):
        drawn = torch.randint(classes, (batch,), generator=rng)
        made.update(means[drawn] + torch.randn(batch, 4, generator=rng), drawn)
    assert float(made.averages.within.diagonal().mean()) == pytest.approx(1.0, abs=0.12)


def test_a_batch_of_single_samples_leaves_the_scatter_within():
    """And no gradient."""
    made = started(GPP(shrinkage=0.0), *SAMPLES)
    before = made.averages.within.clone()
    x = torch.tensor([[0.0, 0.0], [4.0, 0.0]], requires_grad=True)
    within, _ = made.update(x, torch.tensor([0, 1]))
    torch.testing.assert_close(within, before)
    (gradient,) = torch.autograd.grad(within.sum(), x)
    assert not gradient.any()


def test_a_class_that_comes_late_begins_as_it_is_in_its_batch():
    """A rare class of windows: neither an error, nor a mean that is nine tenths zero."""
    made = started(GPP(), SAMPLES[0], SAMPLES[1] * 2)  # classes 0 and 2
    x = torch.tensor([[8.0, 1.0], [10.0, 3.0], [4.0, 4.0], [1.0, 1.0]])
    assert made.term(x, torch.tensor([1, 1, 3, 0])).isfinite()
    torch.testing.assert_close(made.averages.means[[1, 3]], torch.tensor([[9.0, 2.0], [4.0, 4.0]]))
    assert made.averages.shares.tolist() == pytest.approx([0.475, 0.05, 0.45, 0.025])
    made.term(*SAMPLES)
    torch.testing.assert_close(made.averages.means[[1, 3]], torch.tensor([[0.9 * 9 + 0.1 * 6, 1.9], [4.0, 4.0]]))


def test_shrinkage_mixes_in_the_mean_variance():
    """(1 - r) S_w + r tr(S_w) / M I."""
    made = started(GPP(shrinkage=0.5), *SAMPLES)
    made.averages.within = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    made.method = replace(made.method, decay=1 - 1e-12)
    within, _ = made.update(*SAMPLES)
    torch.testing.assert_close(within, torch.tensor([[2.5, 0.5], [0.5, 1.5]]))


def test_a_cholesky_failure_skips_the_batchs_push_and_is_counted():
    """A dead neuron and no shrinkage: the task's loss alone is left, and its gradient is finite."""
    x, classes = torch.cat([SAMPLES[0], torch.zeros(4, 1)], 1).requires_grad_(), SAMPLES[1]
    made = started(GPP(push="eigen", shrinkage=0.0), x.detach(), classes)
    with pytest.raises(CholeskyError):
        made.term(x, classes)
    made.read.values = x
    logits = torch.zeros(4, 4)
    loss = made.loss(nn.Identity(), x, classes, logits)
    assert made.skipped == 1
    assert float(loss) == pytest.approx(math.log(4))
    shrunk = started(GPP(push="eigen", shrinkage=0.1), x.detach(), classes)
    shrunk.read.values = x
    assert float(shrunk.loss(nn.Identity(), x, classes, logits).detach()) != pytest.approx(math.log(4))
    assert shrunk.skipped == 0


@pytest.mark.parametrize("kind", ["eigen-free", "eigen"])
def test_dead_neurons_leave_gradients_finite(kind):
    """After a ReLU there are always some."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(40, 3), torch.zeros(40, 2)], 1).requires_grad_()
    classes = torch.arange(40) % 4
    made = started(GPP(push=kind), x.detach(), classes)
    made.term(x, classes).backward()
    assert x.grad.isfinite().all()


def test_a_push_continues_from_its_checkpoint():
    """Averages, series and counts; later changes do not reach what was saved."""
    made = started(GPP(), *SAMPLES)
    made.term(*SAMPLES)
    saved = made.state_dict()
    other = started(GPP(), SAMPLES[0] * 2, SAMPLES[1])
    other.load_state_dict(saved)
    assert float(other.term(*SAMPLES)) == float(made.term(*SAMPLES))
    assert other.series == made.series
    assert len(saved["series"]["power"]) == 1


def test_the_push_sets_in_slowly():
    """Over a quarter of the phase."""
    made = started(GPP(warm_up=0.25), *SAMPLES)
    weights = []
    for progress in (0.0, 0.125, 0.25, 0.9):
        made.before_step(SimpleNamespace(progress=progress))
        weights.append(made.weight)
    assert weights == [0.0, 0.5, 1.0, 1.0]


def test_pushing_makes_few_neurons_discriminate():
    """On stripes: against the task's loss alone, d spreads over fewer neurons, and these are stronger."""

    def pushed(kind):
        torch.manual_seed(0)
        model = STRIPES.build()
        trainer = loop(STRIPES, 12.0)
        rounds = Rounds(GPP(push=kind, separation=1.0, compactness=1.0), model, STRIPES, Budget(0.5), trainer)
        rounds.unit, rounds.method = 20.0, replace(rounds.method, push_share=0.5)
        rounds.push(0)
        return rounds.told["discriminants"]["after push 1"]

    plain, found = pushed("none"), pushed("eigen-free")
    assert found["effective"] < 0.8 * plain["effective"]
    assert found["power"] > plain["power"]


# ----------------------------------------------------------------------------------------------------- samples, batches


def test_batches_have_as_many_of_each_class():
    """A rare class comes again; every order is as long as the part, of which nothing else comes."""
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 30)
    part = torch.arange(0, 90)
    order = features.balanced(labels, part, torch.Generator().manual_seed(0))
    assert len(order) == 90
    for batch in labels[order].split(9):
        assert batch.bincount(minlength=3).tolist() == [3, 3, 3]
    assert len(order[labels[order] == 0].unique()) == 30
    assert len(order[labels[order] == 1].unique()) == 10
    odd = features.balanced(labels, torch.arange(1, 90, 2), torch.Generator().manual_seed(0))
    assert (odd % 2 == 1).all()
    again = features.balanced(labels, part, torch.Generator().manual_seed(1))
    assert again.tolist() != order.tolist()


def test_labels_of_images_are_the_tasks():
    """None where windows have labels."""
    labels = features.labels_of_images(STRIPES, loop(STRIPES))
    assert labels.tolist() == STRIPES.load("train").labels.tolist()
    assert features.labels_of_images(Photos(), loop(Photos())) is None


def test_windows_are_averaged_where_their_labels_are():
    """5 pixels in 2 windows: 2 and 3; unlabelled windows are left out."""
    maps = torch.arange(5.0).reshape(1, 1, 1, 5)
    assert features.averaged(maps, 1, 2).flatten().tolist() == [0.5, 3.0]
    task = SimpleNamespace(classes=lambda targets, size: targets)
    found, classes = features.samples(task, torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[0, -1], [1, 0]]]), 4)
    assert found.flatten().tolist() == [0, 2, 3]
    assert classes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("side", "cells"), [(4, 4), (8, 8), (16, 8), (64, 16)])
def test_maps_are_cut_into_eight_windows_a_side_at_least(side, cells):
    """As far as they have pixels; large maps into windows of 4 x 4."""
    sizes = []

    def classes(targets, size):
        sizes.append(size)
        return torch.zeros(1, *size, dtype=torch.long)

    features.samples(SimpleNamespace(classes=classes), torch.rand(1, 2, side, side), torch.zeros(1), 4)
    assert sizes == [(cells, cells)]


def test_a_label_of_the_image_averages_its_map():
    """As global pooling would."""
    found, classes = features.samples(STRIPES, torch.arange(8.0).reshape(1, 2, 2, 2), torch.tensor([3]), 4)
    assert found.tolist() == [[1.5, 5.5]]
    assert classes.tolist() == [3]


@pytest.mark.parametrize(
    ("model", "example", "layer"),
    [
        (_networks.build("resnet20", 3, 10, 32), (3, 32, 32), "linear"),
        (_networks.build("mlp", 1, 10, 8), (1, 8, 8), "fc3"),
        (TextureDigits().build(), (3, 64, 64), "decode_head.conv_seg"),
        (Photos().build(), (3, 24, 24), "conv_last"),
    ],
    ids=["resnet", "mlp", "segmentation", "super resolution"],
)
def test_the_decision_is_the_last_layer(model, example, layer):
    """Not an auxiliary head."""
    assert features.decision(model, torch.zeros(1, *example)) == layer
