"""GPP traces and prunes: the trace is F^T, what is of no use goes first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes, lively, loop
from slimbench.core import Budget, Metric, Scores
from slimbench.cost import count
from slimbench.methods import _surgery
from slimbench.methods.gpp import GPP, features, prune, trace
from slimbench.methods.gpp.rounds import Rounds, why_not
from slimbench.tasks import _networks
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

STRIPES = fakes.Stripes("resnet14")


# ------------------------------------------------------------------------------------------------------------ the trace


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
    size = (1, 5, 6, 6)
    origin = rest("c", torch.zeros(size, dtype=torch.float64))
    basis = torch.eye(180, dtype=torch.float64).reshape(180, *size)
    Ft = torch.stack([rest("c", one) - origin for one in basis])  # (inputs, features)
    expected = (Ft @ (z * kept)).reshape(size)
    torch.testing.assert_close(found["c"][0], expected)
    # d reads what the sum reads too: that tensor is traced, by both ways; the mean was over 2 x 2 pixels
    gain = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    both = torch.eye(4, dtype=torch.float64) + gain[:, None] * model.d.weight[:, :, 0, 0]
    expected = (both.T @ (z * kept) / 4).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
    torch.testing.assert_close(found["d"][0], expected.detach())
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


@pytest.mark.parametrize("relu", [F.relu, nn.ReLU(), torch.relu, torch.Tensor.relu, nn.ReLU(inplace=True), torch.relu_])
def test_a_rectifier_lets_pass_what_is_positive_coming_back(relu):
    """Whatever its input was: a gradient would stop at negative inputs, and go on where what comes back is negative."""
    x = torch.tensor([2.0, -1.0, 3.0, -4.0]).reshape(1, 1, 2, 2)
    # features relu(y) + c; what comes back is the features themselves
    found = traced(lambda y: relu(y) + torch.tensor([[1.0, 5.0], [-7.0, -2.0]]), x, 4)
    assert found.flatten().tolist() == [3.0, 5.0, 0.0, 0.0]


@pytest.mark.parametrize("activation", [torch.tanh, F.selu, F.celu, F.silu, lambda y: y.clamp_min(0), F.hardswish])
def test_other_activations_go_back_as_relu_does(activation):
    """By no derivative of theirs."""
    x = torch.tensor([2.0, -1.0, 3.0, -4.0]).reshape(1, 1, 2, 2)
    shift = torch.tensor([[1.0, 5.0], [-7.0, -9.0]])
    torch.testing.assert_close(traced(lambda y: activation(y) + shift, x, 4), (activation(x) + shift).clamp(min=0))


def test_a_gate_is_a_constant():
    """What comes back is multiplied by it, and nothing goes back through it."""
    x = torch.tensor([1.0, -1.0, 2.0, 0.5]).reshape(1, 1, 2, 2)
    gate = torch.sigmoid(x)
    torch.testing.assert_close(traced(lambda y: y * torch.sigmoid(y), x, 4), x * gate * gate)


class Beside(nn.Module):
    """A layer that is called twice, once beside the way to the decision; (N, 1, H, W) -> (N, 2)."""

    def __init__(self, activation) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 1)
        self.activation, self.linear = activation, nn.Linear(4, 2)

    def forward(self, x):
        self.c(self.activation(self.b(x)))
        return self.linear(self.c(self.a(x).relu()).mean((2, 3)))


def test_what_leads_nowhere_is_not_traced():
    """A layer beside the way to the decision has no map, and its channels are worth nothing."""

    found = trace.trace(Beside(torch.relu), ["c"], "linear", torch.rand(1, 1, 4, 4), torch.ones(4, dtype=torch.bool))
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


# -------------------------------------------------------------------------------------------------------------- the cut


def test_worth_is_the_largest_response_over_the_layers_deviation():
    """u = max over the map, t / eta the standard deviation of what is not 0."""
    U = torch.tensor([[[1.0, 0.0]], [[3.0, 5.0]]])
    found = prune._relative(U)
    torch.testing.assert_close(found, torch.tensor([1.0, 5.0]) / 2.0)  # of (1, 3, 5)
    assert prune._relative(torch.zeros(2, 1, 1)).tolist() == [0, 0]


def test_the_only_response_lies_above_any_threshold():
    """One neuron that is enough: the deviation of one value is 0, and so is t."""
    assert prune._relative(torch.tensor([0.0, 3.0, 0.0])).tolist() == [0, torch.inf, 0]
    assert prune._relative(torch.tensor([0.0, -3.0])).tolist() == [0, 0]
    model, example = Planted(), torch.zeros(1, 1, 8, 8)
    every = _surgery.widths(model, example)
    scores = [torch.tensor([0.0, torch.inf, 0.0, 0.0]), torch.arange(6.0)]
    assert 1 not in prune.to_budget(model, example, every, scores, budget=Budget(0.1), floors=[0, 0])[0]
    assert 1 not in prune.below(scores, 9.0, [0, 0])[0]


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
    assert prune.below(scores, 0.2, [0, 0]) == [{0, 2}, {0}]
    assert prune.below(scores, 9.0, [0, 0]) == [{0, 2}, {0}]
    assert prune.below([torch.arange(10.0)], 9.0, [5]) == [{0, 1, 2, 3, 4}]
    assert prune.reached(scores, [{0, 2}, {0}]) == pytest.approx(0.1)
    assert prune.reached(scores, [set(), set()]) == 0


def test_the_best_of_each_width_go_last():
    """A width that is worth little keeps its best tenth while others have something left."""
    model, example = Planted(), torch.zeros(1, 1, 8, 8)
    every = _surgery.widths(model, example)
    scores = [torch.arange(width.channels) + 100.0 * index for index, width in enumerate(every)]
    gone = prune.to_budget(model, example, every, scores, budget=Budget(0.25), floors=[2, 3])
    assert gone[0] <= {0, 1}
    assert gone[0]
    greedy = prune.to_budget(model, example, every, scores, budget=Budget(0.25), floors=[0, 0])
    assert greedy[0] == {0, 1, 2}


def test_as_many_neurons_go_last_as_there_are_outputs():
    """Behind a pixel shuffle as well: EDSR's three colours are not to be made of one channel."""
    model, example = Planted(), torch.zeros(1, 1, 8, 8)
    every = _surgery.widths(model, example)
    scores = [torch.arange(1.0, w.channels + 1) for w in every]
    floors = prune.floors(model, every, scores, "linear", 0.3)
    assert {w.name: n for w, n in zip(every, floors, strict=True)} == {"first": 1, "second": 4}
    task = Photos("edsr-tiny")
    model, example = task.build(), task.example()
    every = prune.inner(model, _surgery.widths(model, example))
    scores = [torch.arange(w.channels) + 100.0 * (w.name != "upsample.0") for w in every]
    floors = prune.floors(model, every, scores, features.decision(model, example), 0.1)
    assert {w.name: n for w, n in zip(every, floors, strict=True) if n != 1} == {"upsample.0": 3}
    for counts, left in ((floors, 3), ([1] * len(every), 1)):
        gone = prune.to_budget(model, example, every, scores, budget=Budget(0.3), floors=counts)
        shuffled = next(g for w, g in zip(every, gone, strict=True) if w.name == "upsample.0")
        assert 16 - len(shuffled) == left


class Branched(nn.Module):
    """Two branches that the decision reads side by side; it enlarges: (N, 1, 8, 8) -> (N, 4, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(1, 7, 3, padding=1)
        self.up = nn.ConvTranspose2d(12, 4, 2, 2)

    def forward(self, x):
        return self.up(torch.cat([self.one(x).relu(), self.two(x).relu()], 1))


def test_of_several_branches_the_best_neurons_go_last_and_none_of_no_worth():
    """As many in all as there are outputs; what was not enough to be traced is not among them."""
    model, example = Branched(), torch.zeros(1, 1, 8, 8)
    every = sorted(_surgery.widths(model, example), key=lambda width: width.channels)
    assert [width.channels for width in every] == [5, 7]
    scores = [torch.tensor([0.0, 9.0, 3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0, 1.0, 8.0, 7.0, 0.0])]
    assert prune.floors(model, every, scores, "up", 0.1) == [2, 2]
    assert prune.floors(model, every, [scores[0], 0 * scores[1]], "up", 0.1) == [2, 0]


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


def test_a_network_without_a_way_back_is_refused():
    """A sigmoid that is no gate."""

    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.linear = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(torch.sigmoid(self.b(self.a(x).relu())).mean((2, 3)))

    reason = why_not(GPP(), Closed(), STRIPES, Budget(0.5))
    assert reason.startswith("deconvolution finds no way back from the last layer of resnet14, linear")
    maps = trace.trace(Beside(torch.sigmoid), ["c"], "linear", torch.rand(1, 1, 4, 4), torch.ones(4, dtype=torch.bool))
    assert len(maps["c"]) == 1, "the call that reads gates alone has none"


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
