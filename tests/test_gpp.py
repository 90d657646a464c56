"""GPP pushes and prunes: losses and utilities are their formulas, the trace is F^T, what is of no use goes first."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes, lively
from slimbench import discover
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Metric, Scores, Settings, UserError
from slimbench.cost import count, layers
from slimbench.methods import _surgery
from slimbench.methods.dense import Dense
from slimbench.methods.gpp import GPP, GPPGrown, discriminants, features, grow, prune, push, trace
from slimbench.methods.gpp.discriminants import Scatters
from slimbench.methods.gpp.push import CholeskyError, Push
from slimbench.methods.gpp.rounds import Rounds, why_not
from slimbench.tasks import _networks
from slimbench.tasks._networks import inception
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.train import Loop

STRIPES = fakes.Stripes("resnet14")


def loop(task, epochs=0.0):
    return Loop(task, 0, Settings(), epochs)


# ------------------------------------------------------------------------------------------------------ discriminants


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


# ---------------------------------------------------------------------------------------------------------- the push


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
    full = torch.cat([spread, torch.zeros(1, 3, dtype=torch.float64)])
    full = torch.cat([full[:2], 1e-9 * torch.ones(1, 3, dtype=torch.float64)])  # the class that makes the mean zero
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


# --------------------------------------------------------------------------------------------------- samples, batches


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


# --------------------------------------------------------------------------------------------------------- the trace


class Linear(nn.Module):
    """Strides, padding, a concatenation, a sum, batch norm and average pooling; (N, 2, 6, 6) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Conv2d(5, 4, 3, 2)
        self.d, self.norm, self.linear = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = self.c(x)
        return self.linear((x + self.norm(self.d(x))).mean((2, 3)))


def test_the_trace_of_a_linear_network_is_the_transpose():
    """F explicitly, column by column, from every layer's input to the features."""
    torch.manual_seed(0)
    model, x = lively(Linear()).double().eval(), torch.randn(1, 2, 6, 6, dtype=torch.float64)

    def rest(layer, value):
        """The features, as a function of a layer's input."""
        handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: (value,))
        with features.reading(model, "linear") as read, torch.no_grad():
            model(x)
        handle.remove()
        return read.values.flatten()

    with features.reading(model, "linear") as read, torch.no_grad():
        model(x)
    z = read.values.flatten()
    kept = torch.tensor([True, False, True, True])
    found = trace.trace(model, ["c", "d"], "linear", x, kept)
    # d reads what the sum reads too: its whole tensor is traced, so F is of c alone and of d with both branches
    size = (1, 5, 6, 6)
    origin = rest("c", torch.zeros(size, dtype=torch.float64))
    basis = torch.eye(180, dtype=torch.float64).reshape(180, *size)
    Ft = torch.stack([rest("c", one) - origin for one in basis])  # (inputs, features)
    expected = (Ft @ (z * kept)).reshape(size)
    torch.testing.assert_close(found["c"][0], expected)
    torch.testing.assert_close(found["linear"][0].flatten(), z * kept)


class Small(nn.Module):
    """One operator before the decision; (N, 1, 4, 4) -> (N, 1)."""

    def __init__(self, operator) -> None:
        super().__init__()
        self.conv, self.operator, self.linear = nn.Conv2d(1, 1, 1, bias=False), operator, nn.Linear(16, 1, bias=False)
        self.conv.weight.data.fill_(1.0)

    def forward(self, x):
        return self.linear(self.operator(self.conv(x)).flatten(1))


def traced(operator, x, size=16):
    model = Small(operator)
    model.linear = nn.Linear(size, 1)
    return trace.trace(model, ["conv"], "linear", x, torch.ones(size, dtype=torch.bool))["conv"][0]


def test_max_pooling_goes_back_by_its_switches():
    """The largest of each window has its response, the others nothing."""
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.where((x == 5) | (x == 7) | (x == 13) | (x == 15), x, 0.0)
    assert traced(lambda y: F.max_pool2d(y, 2), x, 4).tolist() == expected.tolist()


def twice_less(y):
    return 2 * F.relu(y) - 3 * F.relu(-y) - 1


@pytest.mark.parametrize("relu", [F.relu, nn.ReLU(), torch.relu, torch.Tensor.relu, nn.ReLU(inplace=True), torch.relu_])
def test_a_rectifier_lets_pass_what_is_positive_coming_back(relu):
    """Whatever its input was: a gradient would stop at negative inputs, and go on where what comes back is negative."""
    x = torch.tensor([2.0, -1.0, 3.0, -4.0]).reshape(1, 1, 2, 2)
    # features relu(y) + c; what comes back is the features themselves
    found = traced(lambda y: relu(y) + torch.tensor([[1.0, 5.0], [-7.0, -2.0]]), x, 4)
    assert found.flatten().tolist() == [3.0, 5.0, 0.0, 0.0]


def test_a_gate_is_a_constant():
    """What comes back is multiplied by it, and nothing goes back through it."""
    x = torch.tensor([1.0, -1.0, 2.0, 0.5]).reshape(1, 1, 2, 2)
    gate = torch.sigmoid(x)
    torch.testing.assert_close(traced(lambda y: y * torch.sigmoid(y), x, 4), x * gate * gate)


def test_what_leads_nowhere_is_not_traced():
    """A layer beside the way to the decision has no map, and its channels are worth nothing."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 1)
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            self.c(self.b(x).relu())
            return self.linear(self.c(self.a(x).relu()).mean((2, 3)))

    found = trace.trace(Beside(), ["c"], "linear", torch.rand(1, 1, 4, 4), torch.ones(4, dtype=torch.bool))
    assert len(found["c"]) == 1, "called twice; only the second call leads to the features"


@pytest.mark.parametrize(
    "name",
    ["resnet20", "mobilenetv2", "inception3", "preresnet20", "vgg16-bn-quarter", "edsr-tiny", "imagenet-resnet18"],
)
def test_tracing_leaves_the_network_as_it_is(name):
    """Outputs are those of a plain forward pass; modes, gradients and weights are as before."""
    torch.manual_seed(0)
    model = lively(_networks.build(name, 3, 10, 32)).train()
    x, layer = torch.rand(2, 3, 32, 32), features.decision(model, torch.zeros(1, 3, 32, 32))
    seen = []
    handle = model.register_forward_hook(lambda _, given, output: seen.append(output.detach()))
    width = model.get_submodule(layer).weight.shape[1]
    maps = trace.trace(model, [layer], layer, x, torch.ones(width, dtype=torch.bool))
    handle.remove()
    assert model.training
    with torch.no_grad():
        torch.testing.assert_close(seen[0], model.eval()(x))
    assert maps[layer][0].shape == (2, width)
    assert all(p.grad is None for p in model.parameters())


# --------------------------------------------------------------------------------------------------------- the cut


def test_worth_is_the_largest_response_over_the_layers_deviation():
    """u = max over the map, t / eta the standard deviation of what is not 0."""
    U = torch.tensor([[[1.0, 0.0]], [[3.0, 5.0]]])
    found = prune._relative(U)
    torch.testing.assert_close(found, torch.tensor([1.0, 5.0]) / 2.0)  # of (1, 3, 5)
    assert prune._relative(torch.zeros(2, 1, 1)).tolist() == [0, 0]


class Planted(nn.Module):
    """(N, 1, 8, 8) -> (N, 4): channel 2 of ``first`` is one that no class is told by."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(F.relu(self.second(F.relu(self.first(x)))).mean((2, 3)))


def test_a_channel_that_tells_no_class_goes_first():
    """It responds most of all, and feeds only a neuron that is as large for each class."""
    torch.manual_seed(0)
    model = Planted()
    with torch.no_grad():
        model.first.bias[2] = 50.0  # a large constant
        model.second.weight[:5, 2] = 0.0
        model.second.weight[5] = 0.0
        model.second.weight[5, 2] = 1.0  # neuron 5 reads it alone
        model.second.weight[:5].abs_()
        model.first.weight.abs_()
    task = fakes.Stripes("resnet8")
    rounds = Rounds(GPP(push_share=0.0, comparable=1.0), model, task, Budget(0.6), loop(task))
    rounds.after = rounds.scatters()
    v = rounds.after.utilities()
    assert v.argmin() == 5
    every = _surgery.widths(model, task.example())
    images = torch.cat([x for x, _ in loop(task).batches("train")])
    scores = prune.worth(model, every, "linear", [images], v > v[5])
    first = next(score for width, score in zip(every, scores, strict=True) if width.name == "first")
    assert first.argmin() == 2
    assert first[2] == 0
    rounds.prune(0)
    assert rounds.model.first.bias.max() < 50


def test_a_threshold_takes_what_lies_below_it():
    """One channel and the best share of each width stay."""
    scores = [torch.tensor([0.05, 0.3, 0.1]), torch.tensor([0.01, 0.02])]
    assert prune.below(scores, 0.2, 0.0) == [{0, 2}, {0}]
    assert prune.below(scores, 9.0, 0.0) == [{0, 2}, {0}]
    assert prune.below([torch.arange(10.0)], 9.0, 0.5) == [{0, 1, 2, 3, 4}]
    assert prune.reached(scores, [{0, 2}, {0}]) == pytest.approx(0.1)
    assert prune.reached(scores, [set(), set()]) == 0


def test_the_best_of_each_width_go_last():
    """A width that is worth little keeps its best tenth while others have something left."""
    model, example = Planted(), torch.zeros(1, 1, 8, 8)
    every = _surgery.widths(model, example)
    scores = [torch.arange(width.channels) + 100.0 * index for index, width in enumerate(every)]
    gone = prune.to_budget(model, example, every, scores, budget=Budget(0.25), floor=0.5)
    assert gone[0] <= {0, 1}
    assert gone[0]
    greedy = prune.to_budget(model, example, every, scores, budget=Budget(0.25), floor=0.0)
    assert greedy[0] == {0, 1, 2}


class Judged:
    """Scores a network by how many of its ten inputs reach the decision: 100 from the fourth on."""

    metrics = (Metric("top1", "%"),)

    def evaluate(self, model, split):
        assert split == "val"
        reached = float((model(torch.ones(1, 10)) != 0).sum())
        value = 100.0 if reached >= 4 else 50.0
        return {"top1": Scores(value, value, 100.0)}


@pytest.mark.parametrize(("loss", "enough"), [(0.01, 4), (0.5, 1)])
def test_the_fewest_neurons_that_are_comparable_are_kept(loss, enough):
    """The best ones, by bisection."""
    model = nn.Sequential(nn.Linear(10, 10, bias=False))
    model[0].weight.data = torch.eye(10)
    utilities = torch.tensor([1.0, 9, 2, 8, 3, 7, 4, 6, 5, 0])
    kept = prune.enough(model, "0", utilities, Judged(), loss)
    assert set(kept.nonzero().flatten().tolist()) == set(utilities.topk(enough).indices.tolist())
    assert not model[0]._forward_pre_hooks


def test_comparable_and_better_know_which_way_is_better():
    """Relative to the score; for errors less is better."""
    up, down = Judged(), SimpleNamespace(metrics=(Metric("error", "%", higher_is_better=False),))
    score = {n: Scores(n, n, 1.0) for n in (98.0, 99.0, 100.0)}
    assert prune.comparable(score[99.0], score[100.0], up, 0.01)
    assert not prune.comparable(score[98.0], score[100.0], up, 0.01)
    assert prune.comparable(score[100.0], score[98.0], up, 0.0)
    assert not prune.comparable(score[100.0], score[98.0], down, 0.01)
    assert prune.better(score[100.0], score[98.0], up, 0.02)
    assert not prune.better(score[100.0], score[98.0], up, 0.03)
    assert not prune.better(score[98.0], score[98.0], up, 0.0)
    assert prune.better(score[98.0], score[100.0], down, 0.01)


def test_streams_stay_unless_they_are_asked_for():
    """Inner widths of residual blocks; of plain networks all."""
    model, example = _networks.build("resnet20", 3, 10, 32), torch.zeros(1, 3, 32, 32)
    names = [width.name for width in prune.inner(model, _surgery.widths(model, example))]
    assert names == [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)]
    plain = _networks.build("vgg16-bn-quarter", 3, 10, 32)
    every = _surgery.widths(plain, example)
    assert prune.inner(plain, every) == every
    assert len(every) == 13


NETWORKS = [
    *(Digits(name) for name in ("resnet20", "preresnet20", "inception3", "mobilenetv2", "edsr-tiny", "mlp")),
    TextureDigits(),
    TextureDigits("unet-8"),
    Photos(),
    Photos("msrresnet"),
]


@pytest.mark.parametrize("task", NETWORKS, ids=lambda task: task.network)
def test_the_budget_is_met_on_networks_of_every_family(monkeypatch, task):
    """Without training, and with one score for all: MACs or params are what was asked for, by the count."""
    monkeypatch.setattr(prune, "score", lambda model, task: Scores(1.0, 1.0, 1.0))
    budget = Budget(0.6, "params" if task.network == "mlp" else "macs")
    method = GPP(traced=8, images=32)
    torch.manual_seed(0)
    model = lively(task.build())
    dense = count(task.deploy(model), task.example())
    assert method.unsupported(task, budget) is None
    smaller = method.compress(model, task, budget, loop(task))
    left = count(task.deploy(smaller), task.example())
    assert left.of(budget.resource) / dense.of(budget.resource) == pytest.approx(0.6, rel=0.01)


def test_a_budget_below_what_inner_channels_leave_is_refused_in_words():
    """The least is named; with streams more can go."""
    reason = GPP().unsupported(STRIPES, Budget(0.01))
    assert "below the least that one channel a width leaves, 0.04" in reason
    assert GPP(streams=True).unsupported(STRIPES, Budget(0.01)) is None
    assert "one of them" in GPP().unsupported(STRIPES, Budget(0.5, params_keep=0.5))


def test_a_last_layer_that_reads_something_else_is_refused():
    """Tokens, say."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 1), nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(self.conv(x).flatten(2).transpose(1, 2)).mean(1)

    reason = why_not(GPP(eta=0.1), Tokens(), STRIPES, Budget(0.5))
    assert reason == "the last layer of resnet14, linear, reads neither neurons (N, M) nor maps (N, M, H, W)"


# --------------------------------------------------------------------------------------------------------- the rounds


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


# --------------------------------------------------------------------------------------------------------- growth


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
