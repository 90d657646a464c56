"""DCSS: gates are the authors' arithmetic, on any network, for nothing; the search finds what is of no use."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes
from slimbench import discover, identity, seeding
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Recipe, Settings, Step, UserError
from slimbench.cost import count, layers, prunable
from slimbench.methods import _gates, _surgery
from slimbench.methods._gate_search import Search
from slimbench.methods.dcss import DCSS, _carried
from slimbench.methods.dense import Dense
from slimbench.tasks import _networks
from slimbench.tasks._networks import segmentation
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.train import Loop, OverspentError
from zoo import network, relative

NETWORKS = (
    *(f"{name} 3 16" for name in ("resnet20", "resnet20-b", "resnet56", "preresnet20", "mobilenetv2", "edsr-tiny")),
    *("vgg16-bn 3 32", "vgg16-relu-bn-fc 3 32", "lenet5 1 28", "imagenet-preresnet18 3 64", "imagenet-resnet18 3 64"),
    *("imagenet-resnet50 3 64", "imagenet-preresnet50 3 64", "imagenet-mobilenetv2 3 64"),
    *("fcn-resnet14", "pspnet-resnet14", "deeplabv3-resnet14", "deeplabv3-resnet50", "fast-scnn", "bisenetv2"),
    *("unet-8", "unet-deconv-8"),
    *(f"{name} x{scale}" for name in ("edsr-tiny", "edsr-baseline", "msrresnet", "rlfn") for scale in (2, 3, 4)),
    "vdsr x2",
)
NORMED = tuple(name for name in NETWORKS if " x" not in name and not name.startswith(("lenet", "edsr")))


class Gated:
    """A network, its widths and its gates."""

    def __init__(self, text: str, *, training: bool = False) -> None:
        self.model, self.example = network(text)
        self.every = _surgery.widths(self.model, self.example)
        self.gates = _gates.Gates(self.every, 8)
        self.places = _gates.channels(self.model, self.every)
        self.masks = _gates.Masks(self.places)
        self.masks.fill(self.gates.masks(self.gates.probabilities(1.0)).detach())
        copied = copy.deepcopy(self.model).train(training)
        self.network = _gates.gated(copied, self.example, self.places, self.masks)

    def one_hot(self) -> torch.Tensor:
        """One candidate of each width, at random."""
        p = torch.zeros_like(self.gates.alpha)
        for gate, real in enumerate(self.gates.real):
            p[gate, int(torch.randint(int(real.sum()), ()))] = 1.0
        return p

    def slim(self, p: torch.Tensor) -> nn.Module:
        """The network with those widths, and the same weights."""
        kept = [int(c) for c in self.gates.expected(p)]
        removed = [set(range(c, width.channels)) for c, width in zip(kept, self.every, strict=True)]
        return segmentation.without_auxiliary_heads(_surgery.remove(copy.deepcopy(self.model), self.every, removed))


# ------------------------------------------------------------------------------------------------------------ gates


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (16, [2, 4, 6, 8, 10, 12, 14, 16]),
        (32, [4, 8, 12, 16, 20, 24, 28, 32]),
        (256, [32, 64, 96, 128, 160, 192, 224, 256]),
        (20, [3, 6, 9, 12, 14, 16, 18, 20]),
        (3, [1, 2, 3]),
    ],
)
def test_candidates_follow_the_segment_rule(channels, expected):
    """The dossier's figures; fewer channels than candidates are candidates each."""
    assert _gates.candidates(channels, 8) == expected


def test_uniform_gates_give_the_authors_mask():
    """16 channels: 1, 1, .875, .875, ..., .125, .125."""
    gated = Gated("lenet5 1 28")
    gates = _gates.Gates([replace(gated.every[1], channels=16)], 8)
    mask = gates.masks(gates.probabilities(1.0)).detach()
    assert mask.tolist() == pytest.approx([1 - pair / 8 for pair in range(8) for _ in range(2)])


@pytest.mark.parametrize("noise", [False, True])
def test_masks_never_rise_and_sum_to_the_expected_width(noise):
    """m_1 = 1 >= m_2 >= ... and sum m_k = E[c], for any gates, each width by itself."""
    gated = Gated("preresnet20 3 16")
    torch.nn.init.normal_(gated.gates.alpha, std=3.0)
    p = gated.gates.probabilities(0.7, noise=noise).detach()
    parts = gated.gates.masks(p).split([width.channels for width in gated.every])
    for mask, expected in zip(parts, gated.gates.expected(p), strict=True):
        assert float(mask[0]) == pytest.approx(1.0)
        assert bool((mask.diff() <= 1e-12).all())
        assert float(mask.sum()) == pytest.approx(float(expected))


def test_noise_is_gumbels():
    """g = -log(-log u): mean 0.5772, variance pi^2 / 6."""
    gated = Gated("lenet5 1 28")
    gates = _gates.Gates(list(gated.every) * 20, 8)
    torch.manual_seed(0)
    drawn = torch.stack([gates.probabilities(1.0, noise=True).detach().log() for _ in range(50)])
    spread = drawn.diff(dim=2)[:, gates.real.all(1)]  # of two independent ones: mean 0, variance pi^2 / 3
    assert float(spread.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(spread.var()) == pytest.approx(torch.pi**2 / 3, rel=0.05)


# --------------------------------------------------------------------------------------------------- gated networks


@pytest.mark.parametrize("training", [False, True], ids=["traced in eval", "traced in training"])
@pytest.mark.parametrize("text", NETWORKS)
def test_one_hot_gates_are_the_slim_network(text, training):
    """Outputs, MACs, params and prunable weights of the network with those widths, on every network of the zoo."""
    if training and text in {"imagenet-resnet50 3 64", "deeplabv3-resnet50"}:
        pytest.skip("large, and traced once already")
    gated = Gated(text, training=training)
    p = gated.one_hot()
    masks = gated.gates.masks(p)
    slim = gated.slim(p)
    gated.masks.fill(masks)
    with torch.no_grad():
        got, expected = gated.network.eval()(gated.example), slim(gated.example)
    got = got[0] if isinstance(got, tuple) else got
    assert relative(got, expected) < 1e-10

    rows = layers(gated.model, gated.example)
    cost = count(slim, gated.example)
    weights = sum(weight.numel() for weight in prunable(slim).values())
    for resource, counted in (("macs", cost.macs), ("params", cost.params), ("prunable_nonzero", weights)):
        assert float(_gates.Expectation(rows, gated.places, resource)(masks)) == counted


def test_the_record_says_what_the_gates_step_really_keeps():
    """Of the search's own network, with gates that learn: option A's shortcuts make it a little more."""
    task = fakes.Stripes("resnet14")
    found = search(task)
    trainer = Loop(task, 0, Settings(), 1.0)
    noted = found.kept_bytes(task.build(), trainer)
    inputs = task.batch("train", torch.arange(8), None)[0]
    found.masks.fill(found.gates.masks(found.gates.probabilities(1.0)))
    more, fewer = (_gates.held_bytes(found.network.eval(), part) for part in (inputs, inputs[:4]))
    assert noted["gates"] == (more - fewer) // 4
    assert noted["plain"] == noted["weights"] < noted["gates"] < 1.1 * noted["plain"]


def test_pooling_before_batch_norm_is_looked_through():
    """ImageNet's pre-activation stem: masked behind its norm alone."""
    gated = Gated("imagenet-preresnet18 3 64", training=True)
    assert not hasattr(gated.network.stem._modules["0"], "parametrizations")
    assert hasattr(gated.network.blocks._modules["0"].norms._modules["0"], "parametrizations")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_soft_gates_are_the_authors_gated_network(training):
    """Masks after batch norm and before the ReLU, sums masked again, as in their pre-activation ResNet."""
    gated = Gated("preresnet20 3 16", training=training)
    torch.nn.init.normal_(gated.gates.alpha, std=2.0)
    p = gated.gates.probabilities(1.0)
    masks = gated.gates.masks(p).detach()
    gated.masks.fill(masks)
    parts = masks.split([width.channels for width in gated.every])
    by_layer = {m.layer: part for width, part in zip(gated.every, parts, strict=True) for m in width.makers}
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = authors_forward(gated.model.train(training), x, by_layer)
    torch.testing.assert_close(gated.network.train(training)(x), expected, rtol=1e-6, atol=1e-6)  # masks are float32


def authors_forward(model: nn.Module, x: torch.Tensor, masks: dict[str, torch.Tensor]) -> torch.Tensor:
    """The dossier's forward pass, written out."""

    def m(name: str) -> torch.Tensor:
        return masks[name][:, None, None]

    x, m_in = model.stem(x), m("stem")
    for index, block in enumerate(model.blocks):
        h = F.relu(block.norms[0](x) * m_in)
        s = x if block.project is None else block.project(h)
        h = F.relu(block.norms[1](block.convs[0](h)) * m(f"blocks.{index}.convs.0"))
        m_st = m(f"blocks.{index}.convs.1")
        x, m_in = (block.convs[1](h) + s) * m_st, m_st
    return model.linear(F.relu(model.norm(x) * m_in).mean((2, 3)))


class Nested(nn.Module):
    """A sum in a sum: (N, 3, H, W) -> (N, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 8, 1) for _ in range(3))
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.last(self.a(x) + (self.b(x) + self.c(x)))


def test_every_sum_masks_what_was_masked():
    """a m + (b m + c m) m: fresh results once, the inner sum again."""
    torch.manual_seed(0)
    model, x = Nested().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    (width,) = _surgery.widths(model, x[:1])
    masks = _gates.Masks(_gates.channels(model, [width]))
    m = torch.linspace(1.0, 0.125, 8, dtype=torch.float64)
    masks.fill(m)
    network = _gates.gated(copy.deepcopy(model), x[:1], masks.places, masks)
    a, b, c = (layer(x) * m[:, None, None] for layer in (model.a, model.b, model.c))
    torch.testing.assert_close(network(x), model.last(a + (b + c) * m[:, None, None]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("text", [*NORMED, "edsr-tiny x2", "rlfn x2", "vdsr x2"])
def test_gates_cost_no_memory(text):
    """What autograd keeps for one more image: within a tenth of plain training, in both kinds of steps."""
    gated = Gated(text, training=True)
    inputs = gated.example.repeat(8, 1, 1, 1)

    def an_image(model: nn.Module) -> int:
        return (_gates.held_bytes(model, inputs) - _gates.held_bytes(model, inputs[:4])) // 4

    plain = an_image(gated.model.train())
    assert plain > 0
    assert an_image(gated.network.train()) <= 1.1 * plain
    gated.masks.fill(gated.gates.masks(gated.gates.probabilities(1.0)))
    assert an_image(gated.network.eval()) <= 1.1 * plain


def test_what_is_held_counts_each_value_once():
    """A convolution keeps its input, a ReLU its output: two of 4 x 8 x 8 float32 values."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False))
    inputs = torch.randn(2, 4, 8, 8)
    assert _gates.held_bytes(model, inputs) == 2 * 4 * 8 * 8 * 4
    multiplied = nn.Sequential(model, Multiply())
    assert _gates.held_bytes(multiplied, inputs) == 2 * 2 * 4 * 8 * 8 * 4


class Multiply(nn.Module):
    """By a parameter: its input is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.by * x


# ----------------------------------------------------------------------------------------------------------- the search

SHORT = Recipe(epochs=6, batch_size=16, lr=0.05)
STRIPES = fakes.Stripes("resnet14", SHORT)


def search(task=STRIPES, method: DCSS | None = None, keep: float = 0.5) -> Search:
    torch.manual_seed(0)
    return Search(method or DCSS(), task, task.build(), Budget(keep))


def a_step(task=STRIPES, index: int = 0, total: int = 10) -> Step:
    inputs, targets = task.batch("train", torch.arange(16), None)
    return Step(index, total, 0.1, inputs, targets, None, lambda: (inputs, targets))


def test_the_cost_pulls_the_widest_candidate_down():
    """d log F / d alpha is positive for the widest and negative for the narrowest prefix of every width."""
    found = search()
    cost = found.expectation(found.gates.masks(found.gates.probabilities(1.0)))
    (gradient,) = torch.autograd.grad(cost.log(), found.gates.alpha)
    assert bool((gradient[:, -1] > 0).all())
    assert bool((gradient[:, 0] < 0).all())


def test_gates_move_and_weights_do_not_in_the_gates_step():
    """First order, in eval mode: batch statistics stay as well, and training mode comes back."""
    found = search()
    found.network.train()
    before = {key: value.clone() for key, value in found.network.state_dict().items()}
    found.turn_gates(a_step())
    assert bool((found.gates.alpha != 0).any())
    assert all(torch.equal(before[key], value) for key, value in found.network.state_dict().items())
    assert all(parameter.grad is None for parameter in found.network.parameters())
    assert found.network.training


def test_the_controller_holds_the_cost_and_pulls_by_the_sign_of_the_miss():
    """Within the tolerance the gates' gradient leaves the cost as it is; beyond it points back; or lambda is fixed."""
    found = search()
    found.task_pull = 3.0
    task, cost = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, 0.0])
    for share, sign in ((1.02, 1), (1.005, 0), (0.995, 0), (0.98, -1)):
        found.series = [share]
        gradient = task + found._penalty(task, cost) * cost
        towards = float((gradient * cost).sum() / cost.norm())
        assert towards == pytest.approx(sign * found.method.pull * 3.0, abs=1e-6)
    fixed = search(method=DCSS(penalty=2.0))
    assert fixed._penalty(task, cost) == 2.0
    assert found._penalty(task, 0.0 * cost) == 0.0


def test_the_temperature_falls_from_ten_to_a_tenth():
    """Exponentially, step by step."""
    from slimbench.methods._gate_search import _temperature

    got = [_temperature(a_step(index=index, total=5)) for index in range(5)]
    assert got == pytest.approx([10.0, 10**0.5, 1.0, 10**-0.5, 0.1])


def run(method: DCSS, task=STRIPES, epochs: float = 6.0, budget: Budget | None = None) -> tuple[nn.Module, Loop]:
    with seeding.seeded(0):
        trainer = Loop(task, 0, Settings(), epochs)
        return method.compress(task.build(), task, budget or Budget(0.5, epochs=0), trainer), trainer


def test_warm_up_leaves_the_gates_alone():
    """No search, no choice: uniform gates leave 9/16 of every width, before the budget's rescaling."""
    _, trainer = run(DCSS(search=1e-6, penalty=1.0))
    assert {tuple(p) for p in trainer.notes["gates"].values()} == {(0.125,) * 8}
    assert {left / dense for dense, left in trainer.notes["widths"].values()} == {9 / 16}


def test_epochs_are_divided_one_to_one_to_four():
    """Passes that train weights; those of the gates, on as many held-out samples, are metered too."""
    task = replace(STRIPES, recipe=replace(SHORT, batch_size=8))
    _, trainer = run(DCSS(hold_out=0.25), task, epochs=27.0)  # 0.75 + 1.5 + 4 = 6.25 passes a unit
    unit, spent = 27.0 / 6.25, trainer.spent
    assert spent.search_epochs == pytest.approx((0.75 + 1.5) * unit, rel=0.05)
    assert spent.compression_epochs == pytest.approx(4 * unit, rel=0.05)


@pytest.mark.parametrize("keep", [0.7, 0.3, 0.12])
@pytest.mark.parametrize("resource", ["macs", "params"])
def test_the_slim_network_meets_its_budget(keep, resource):
    """Within one percent, without a lambda tuned by hand."""
    slim, _ = run(DCSS(), budget=Budget(keep, resource))
    dense = count(STRIPES.build(), STRIPES.example()).of(resource)
    assert count(slim, STRIPES.example()).of(resource) / dense == pytest.approx(keep, rel=0.01)


def test_the_controller_brings_the_expected_cost_to_the_target():
    """At the end of a search of a few hundred steps, with gates that have made up their minds."""
    _, trainer = run(DCSS(), task=fakes.Stripes("resnet14", replace(SHORT, batch_size=4)), epochs=100.0)
    assert trainer.notes["expected over target"][-1] == pytest.approx(1.0, abs=0.05)
    assert trainer.notes["expected widths"].keys() == trainer.notes["gates"].keys()
    assert all(0 < share <= 1 for way in trainer.notes["expected widths"].values() for share in way)
    likeliest = [max(p) for p in trainer.notes["gates"].values()]
    assert sum(likeliest) / len(likeliest) > 0.8


def test_a_stronger_fixed_penalty_leaves_less():
    """The paper's mode: lambda given, the share whatever comes."""
    left = [count(run(DCSS(penalty=penalty), epochs=30.0)[0], STRIPES.example()).macs for penalty in (0.01, 10.0)]
    assert left[1] < 0.5 * left[0]


def test_argmax_takes_candidates():
    """The ablation: before rescaling, each width is one of the candidates."""
    found = search(method=DCSS(discretise="argmax"))
    torch.nn.init.normal_(found.gates.alpha)
    for width in found.every:
        assert found.shares()[width.name] * width.channels in _gates.candidates(width.channels, 8)


def test_coupled_layers_end_equally_wide():
    """A residual stage has one width, and an expansion that of its depthwise convolution."""
    task = Digits("mobilenetv2", Recipe(epochs=1, batch_size=64))
    slim, _ = run(DCSS(), task=task, epochs=1.0)
    for block in slim.layers:
        assert block.conv1.out_channels == block.conv2.in_channels == block.conv2.groups
    assert slim.layers[1].conv3.out_channels == slim.layers[2].conv3.out_channels


def test_the_useless_layer_is_narrowed_most():
    """Two branches of one cost, one of them multiplied by zero: the search takes its channels."""
    task = fakes.Stripes(f"{fakes.__name__}:OneUseless", replace(SHORT, batch_size=8))
    _, trainer = run(DCSS(), task=task, epochs=80.0)
    left = {name: after / before for name, (before, after) in trainer.notes["widths"].items()}
    assert min(left, key=left.get) == "useless.0.0"
    assert left["useless.0.0"] <= 0.25 < 0.75 <= left["useful.0.0"]


def test_distillation_is_the_tasks_recipe():
    """The dense network teaches the slim one where the recipe says so, and not the search."""
    taught = replace(STRIPES, recipe=replace(SHORT, distillation=0.8))
    shares, weights = [], []
    for task in (STRIPES, taught):
        with seeding.seeded(0):
            trainer = Loop(task, 0, Settings(), 6.0, teacher=task.build())
            slim = DCSS().compress(task.build(), task, Budget(0.5), trainer)
        shares.append(trainer.notes["gates"])
        weights.append(slim.linear.weight)
    assert shares[0] == shares[1]
    assert not torch.equal(*weights)


# --------------------------------------------------------------------------------------------------------- other tasks


def test_carried_widths_find_their_namesakes():
    """Behind the prefix under which most names match; layers of the heads have none."""
    model, example = network("fcn-resnet14")
    every = _surgery.widths(model, example)
    theirs = _surgery.widths(*network("resnet14-b 3 16"))
    found = {maker.layer: index / 10 for index, width in enumerate(theirs, 1) for maker in width.makers}
    carried = _carried(every, found)
    assert len(carried) == len(theirs)
    assert carried["backbone.layer1.0.conv1"] == found["layer1.0.conv1"]
    stage = next(w.name for w in every if "backbone.layer2.0.conv2" in {maker.layer for maker in w.makers})
    assert carried[stage] == found["layer2.0.conv2"]
    assert not any("head" in name for name in carried)
    assert _carried(every, {"nothing of the kind": 0.5}) == {}


@pytest.mark.parametrize(("task", "source"), [(TextureDigits(), Digits("resnet14-b")), (Photos(), Digits("edsr-tiny"))])
def test_widths_are_carried_over_at_the_same_cost(task, source):
    """Searched on classification: at the budget on the task itself, and both trainings are metered."""
    slim, trainer = run(DCSS(source=source), task=task, epochs=0.5)
    dense = count(task.deploy(task.build()), task.example()).macs
    assert count(task.deploy(slim), task.example()).macs / dense == pytest.approx(0.5, rel=0.01)
    assert trainer.spent.search_epochs == 0
    assert 0.1 < trainer.spent_in_all.search_epochs < 0.25
    assert trainer.epochs_left >= -1e-6


def test_another_task_decides_the_id(monkeypatch):
    """Its fields, its version, its data; methods without one keep theirs."""
    dense = Cell(STRIPES, Dense(), Budget(1.0), 0)
    cell = Cell(STRIPES, DCSS(source=Digits()), Budget(0.5), 0, reference=dense)
    ids = {identity.cell_id(cell), identity.cell_id(replace(cell, method=DCSS()))}
    ids.add(identity.cell_id(replace(cell, method=DCSS(source=Digits("resnet14")))))
    for name, value in (("version", Digits.version + 1), ("content", "other images")):
        with monkeypatch.context() as patch:
            patch.setattr(Digits, name, value)
            ids.add(identity.cell_id(cell))
    assert len(ids) == 5


def test_another_task_is_typed_as_text():
    """`--method "dcss(source='digits')"`, with the same refusals as elsewhere."""
    typed = discover.make("methods", "dcss(source=\"digits(network='resnet14-b')\", pull=2)")
    assert typed == DCSS(source=Digits("resnet14-b"), pull=2.0)
    assert identity.label(typed) == "dcss(pull=2.0, source=digits(network=resnet14-b))"
    with pytest.raises(UserError, match="did you mean 'digits'"):
        discover.make("methods", "dcss(source='digit')")
    with pytest.raises(UserError, match="source must be"):
        discover.make("methods", "dcss(source=3)")


def test_a_search_elsewhere_is_resumed(store, monkeypatch):
    """Killed in the search on the other task, and again in training: the same network as straight through."""
    from slimbench import train
    from slimbench.store import Store

    source = fakes.Stripes("resnet8", SHORT)
    dense = Cell(STRIPES, Dense(), Budget(1.0), 0)
    cell = Cell(STRIPES, DCSS(source=source), Budget(0.5), 0, reference=dense)
    compress(dense, store)
    straight = compress(cell, store)
    assert (straight.status, straight.reason) == ("ok", "")
    assert straight.spent.search_epochs > 0
    assert "expected over target" in straight.notes

    other = Store(store.root.parent / "other")
    compress(dense, other)
    save = train.Loop._save
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)
    for last in (6, 6, 6):
        taken = 0

        def dies(self, fit, step, kept, last=last):
            nonlocal taken
            save(self, fit, step, kept)
            taken += 1
            if taken == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(train.Loop, "_save", dies)
            compress(cell, other)
    resumed = compress(cell, other)
    assert resumed.artifact == straight.artifact
    assert resumed.notes == straight.notes
    assert resumed.spent.examples == straight.spent.examples


def test_the_other_tasks_test_split_is_sealed_too(store, monkeypatch):
    """As the cell's own: in the loop, and in the method's field."""
    from slimbench.sealed import SealedError

    with pytest.raises(SealedError, match="sealed"):
        next(iter(Loop(STRIPES, 0, Settings(), 1.0).elsewhere(Digits()).batches("test")))
    dense = Cell(STRIPES, Dense(), Budget(1.0), 0)
    compress(dense, store)
    peeks = lambda self, model, task, budget, trainer: self.source.evaluate(model, "test")  # noqa: E731
    monkeypatch.setattr(DCSS, "compress", peeks)
    with pytest.raises(SealedError, match="sealed"):
        compress(Cell(STRIPES, DCSS(source=fakes.Stripes("resnet8")), Budget(0.5), 0, reference=dense), store)


def test_epochs_elsewhere_are_of_the_same_allowance():
    """Two loops cannot spend it twice."""
    trainer = Loop(STRIPES, 0, Settings(), 2.0)
    others = trainer.elsewhere(STRIPES), trainer.elsewhere(STRIPES)
    others[0].fit(STRIPES.build(), 2, name="one", phase="search")
    assert trainer.epochs_left == others[1].epochs_left == pytest.approx(0.0)
    with pytest.raises(OverspentError):
        others[1].fit(STRIPES.build(), 2, name="two", phase="search")


# ------------------------------------------------------------------------------------------------------------- refusals


def test_impossible_cells_are_named():
    """Narrower than the smallest candidates; a source without such layers; a network that cannot be traced."""
    assert "the smallest candidates leave, 0.0" in DCSS().unsupported(STRIPES, Budget(0.012))
    assert "0 of 5 widths of edsr-tiny have a namesake" in DCSS(source=Digits("edsr-tiny")).unsupported(
        STRIPES, Budget(0.5)
    )
    assert DCSS(source=Digits("resnet14")).unsupported(STRIPES, Budget(0.5)) is None
    for name, why in (("Untraceable", "cannot be taken"), ("InPlace", "computes something else")):
        own = fakes.Stripes(f"{fakes.__name__}:{name}")
        assert why in DCSS().unsupported(own, Budget(0.5))
        assert why in DCSS(source=own).unsupported(STRIPES, Budget(0.5))
    assert "leaves nothing to gates" in DCSS(hold_out=0.001).unsupported(STRIPES, Budget(0.5))
    assert DCSS().unsupported(STRIPES, Budget(0.5)) is None


@pytest.mark.parametrize("text", NETWORKS)
def test_open_gates_leave_every_network_as_it_is(text):
    """The zoo passes the check that networks of one's own must pass."""
    model, example = network(text)
    assert _gates.why_not(model, example, text) is None


@pytest.mark.parametrize(
    "fields",
    [
        *({"candidates": 1}, {"hold_out": 0.0}, {"hold_out": 1.0}, {"train": 0.0}, {"pull": -1.0}),
        *({"weight_temperature": 0.0}, {"penalty": -5.0}, {"warm_up": float("inf")}, {"discretise": "arg"}),
    ],
)
def test_impossible_searches_are_refused(fields):
    """In one sentence."""
    with pytest.raises(UserError, match="dcss: "):
        DCSS(**fields)


# ----------------------------------------------------------------------------------------------- the authors' networks


@pytest.mark.parametrize(
    ("name", "size", "macs"),
    [
        ("preresnet20", 32, 41.08e6),
        ("preresnet32", 32, 69.39e6),
        ("preresnet56", 32, 126.02e6),
        ("imagenet-preresnet50", 224, 4.089e9),
    ],
)
def test_pre_activation_networks_count_as_in_the_authors_code(name, size, macs):
    """MACs of the gated networks' dense forms, on CIFAR-100 and ImageNet."""
    classes = 1000 if size == 224 else 100
    model = _networks.build(name, 3, classes, size)
    assert count(model, torch.randn(1, 3, size, size)).macs == pytest.approx(macs, rel=2e-4)


def test_the_widths_recorded_in_the_authors_code_cost_what_they_should():
    """ResNet-20 on CIFAR-100: 22.45 M MACs and 0.149 M weights, 54.6 % of the whole."""
    inner = [[10, 7, 11], [31, 19, 32], [39, 61, 41]]
    stages = [12, 25, 43]
    model = _networks.build("preresnet20", 3, 100, 32)
    example = torch.randn(1, 3, 32, 32)
    every = _surgery.widths(model, example)
    wanted = {"stem": 16}
    for stage in range(3):
        for index in range(3):
            wanted[f"blocks.{3 * stage + index}.convs.0"] = inner[stage][index]
    removed = []
    for width in every:
        stage = int(width.name.split(".")[1]) // 3 if "." in width.name else 0
        removed.append(set(range(wanted.get(width.name, stages[stage]), width.channels)))
    cost = count(_surgery.remove(model, every, removed), example)
    assert cost.macs == pytest.approx(22.45e6, rel=3e-4)
    assert cost.prunable_nonzero == pytest.approx(0.149e6, rel=5e-3)
