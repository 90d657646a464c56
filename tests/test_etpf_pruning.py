"""ETPF prunes: what functions are told is what layers read; what goes is what the authors' counts say, exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import naive
from conftest import fakes, lively
from slimbench import discover
from slimbench.compress import compress
from slimbench.core import Budget, Cell, Settings, UserError
from slimbench.cost import count
from slimbench.methods import _surgery
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF, baselines, features, functions, readings, scoring
from slimbench.methods.etpf.ranking import Ranker, _mean_rank
from slimbench.methods.etpf.schedules import REMOVED, trial
from slimbench.tasks import _networks
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.train import Loop

STRIPES = fakes.Stripes("resnet14")


def loop(task):
    return Loop(task, 0, Settings(), 9.0)


def split_up(model, task, rule="uniform"):
    """All widths, what may go, and the places where that is read."""
    whole, every = ETPF(rule=rule)._widths(model, task)
    return whole, every, readings.readings(model, task.example(), every, whole)


def removed_evenly(every, share=0.4):
    """Every second-or-so channel of each width."""
    return [set(range(0, int(2 * share * width.channels), 2)) for width in every]


# ---------------------------------------------------------------------------------------------------- what may go


def test_a_residual_stream_stays_and_convolutions_sample_it():
    """Inner widths by surgery, the first convolution of each block behind a sampler; not shortcuts, not the last."""
    model = _networks.build("resnet20-b", 3, 10, 32)
    _, every, places = split_up(model, discover.make("tasks", "cifar10(network='resnet20-b')"))
    names = [width.name for width in every]
    assert len(names) == 18
    assert names[:2] == ["layer1.0.conv1", "layer1.0.conv1 (input)"]
    assert not [name for name in names if "downsample" in name or "shortcut" in name or "linear" in name]
    assert not isinstance(every[0], readings.Sampled)
    assert isinstance(every[1], readings.Sampled)
    by_name = dict(zip(names, places, strict=True))
    (inner,), (sampled,) = by_name["layer1.1.conv1"], by_name["layer1.1.conv1 (input)"]
    assert (inner.layer, inner.maker, inner.norm) == ("layer1.1.conv2", "layer1.1.conv1", "layer1.1.bn1")
    assert (sampled.layer, sampled.maker, sampled.norm) == ("layer1.1.conv1", "layer1.0.conv2", "layer1.0.bn2")


NETWORKS = [
    ("stripes", STRIPES),
    ("option A", discover.make("tasks", "digits")),
    ("option B", discover.make("tasks", "digits(network='resnet20-b')")),
    ("pre-activation", discover.make("tasks", "digits(network='preresnet20')")),
    ("depthwise", discover.make("tasks", "digits(network='mobilenetv2')")),
    ("concatenated", TextureDigits()),
    ("pixel shuffle", Photos()),
]


@pytest.mark.parametrize("task", [t for _, t in NETWORKS], ids=[n for n, _ in NETWORKS])
def test_removed_equals_masked(task):
    """By surgery and by samplers, in float64, and the count is the ledger's."""
    torch.manual_seed(0)
    model = lively(task.build()).double().eval()
    _, every, _ = split_up(model, task)
    removed = removed_evenly(every)
    masked, x = lively(task.build()).double().eval(), torch.rand(2, *task.example().shape[1:], dtype=torch.float64)
    masked.load_state_dict(model.state_dict())
    for width, gone in zip(every, removed, strict=True):
        readings.mask(masked, width, gone)
    readings.remove(model, every, removed)
    with torch.no_grad():
        expected, found = masked(x), model(x)
    assert float((expected - found).abs().max()) < 1e-10 * float(expected.abs().max())
    assert any(isinstance(width, readings.Sampled) for width in every)


def test_a_concatenation_is_not_sampled():
    """A convolution that reads a stream beside other channels reads all of it."""
    _, every, _ = split_up(TextureDigits().build(), TextureDigits())
    assert "decode_head.convs.0.conv (input)" in [width.name for width in every]
    assert "decode_head.conv_cat.conv (input)" not in [width.name for width in every]


@pytest.mark.parametrize(
    ("spec", "macs", "params"),
    [
        ("cifar10(network='resnet56')", 0.506, None),
        ("cifar100(network='resnet56')", 0.506, 0.503),
        ("cifar10(network='resnet110')", 0.504, None),
    ],
)
def test_uniform_forty_percent_leaves_what_the_authors_code_does(spec, macs, params):
    """MACs (and params) kept, derived from the authors' code."""
    task, method = discover.make("tasks", spec), ETPF(ratio=0.4)
    model = task.build()
    dense = count(model, task.example())
    _, every, _ = split_up(model, task)
    (counts,) = method._counts(model, task, Budget(0.5), every)
    assert counts == [int(0.4 * width.channels) for width in every]
    left = count(readings.remove(model, every, [set(range(n)) for n in counts]), task.example())
    assert left.macs / dense.macs == pytest.approx(macs, abs=6e-4)
    if params:
        assert left.params / dense.params == pytest.approx(params, abs=6e-4)


@pytest.mark.parametrize(
    ("network", "size", "left", "macs", "params"),
    [
        ("lenet5", (1, 28), [5, 11, 40], 2_293_000, 430_500),
        ("vgg16-bn-fc", (3, 32), [40, 40, 78, 78, *[154] * 3, *[308] * 7], 313_463_808, None),
        ("vgg16-relu-bn-fc", (3, 32), [40, 40, 78, 78, *[154] * 3, *[308] * 7], 313_463_808, 14_980_000),
    ],
)
def test_the_authors_counts_are_met_exactly(network, size, left, macs, params):
    """LeNet-5 to 5-11-40 and VGG-16 to 40-40-78-78-154x3-308x7; the dense networks' sizes are theirs."""
    task = discover.make("tasks", f"{'mnist' if size[0] == 1 else 'cifar10'}(network='{network}')")
    model = task.build()
    dense = count(model, task.example())
    assert dense.macs == macs
    if params:
        assert dense.params == pytest.approx(params, rel=2e-3)
    removed, _, kept = REMOVED[network]
    for counts in removed:
        _, every, _ = split_up(model, task)
        readings.remove(model, every, [set(range(n)) for n in counts])
    _, every, _ = split_up(model, task)
    assert [width.channels for width in every] == left
    assert count(model, task.example()).macs / dense.macs == pytest.approx(kept, abs=5e-4)


def test_rounds_share_what_goes():
    """Three rounds of a budget: as many channels in each, the same in all."""
    task, model = STRIPES, STRIPES.build()
    method = ETPF(rule="budget", rounds=3)
    _, every, _ = split_up(model, task, "budget")
    rounds = method._counts(model, task, Budget(0.3), every)
    (whole,) = replace(method, rounds=1)._counts(model, task, Budget(0.3), every)
    assert len(rounds) == 3
    assert [sum(counts) for counts in zip(*rounds, strict=True)] == whole
    assert max(abs(a - b) for a, b in zip(rounds[0], rounds[2], strict=True)) <= 1


# ------------------------------------------------------------------------------------------------- what is gathered


def reading_inputs(model, reading, images):
    """What the layer of a reading is given, (N, ...), by a hook of the test's own."""
    seen = []
    handle = model.get_submodule(reading.layer).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.eval()(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["GA_Func2", "GA_Func4", "GeoMedian", "sum(abs(P - mX))", "WL1"])
@pytest.mark.parametrize("rule", ["uniform", "budget"])
def test_a_layers_scores_are_those_of_what_the_next_layer_reads(name, rule):
    """Every reading of a network, against the naive loop on hooked inputs and on the filters before them."""
    torch.manual_seed(0)
    model, task = lively(STRIPES.build()), STRIPES
    _, _, places = split_up(model, task, rule)
    batches = list(loop(task).batches("train", 50))
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    flat = [reading for each in places for reading in each]
    scorer = baselines.scorer(name)
    layers = features.gather(model, flat, task, scorer, batches=lambda: batches, window=4)
    for reading, layer in zip(flat, layers, strict=True):
        channels = readings.known(reading).nonzero()[:, 0].tolist()
        read = reading_inputs(model, reading, images)
        maps = torch.stack([read[:, reading.places[c][0]].reshape(len(images), -1) for c in channels], 1)
        weight = model.get_submodule(reading.maker).weight
        filters = torch.stack([weight[reading.made[c][0]] for c in channels], -1).permute(1, 2, 0, 3)
        if len(channels) < len(reading.places) and name == "GeoMedian":
            continue  # a medoid among other filters
        expected = naive.scores(
            functions.function(name), maps.double().numpy(), labels.numpy(), filters.detach().double().numpy()
        )
        found = scorer.score(layer)[channels]
        scale = 1 if scorer.needs_data else len(labels.unique())
        np.testing.assert_allclose(scale * found, expected, rtol=1e-5)


def test_images_of_a_choice_are_as_many_of_each_class():
    """From shuffled train, at most what was asked for."""
    torch.manual_seed(0)
    chosen = features.subset(STRIPES, loop(STRIPES), 40)
    labels = STRIPES.batch("train", chosen, None)[1]
    assert labels.bincount().tolist() == [10] * 4
    assert len(chosen.unique()) == 40


def test_windows_start_where_their_labels_do(monkeypatch):
    """A map of 10 x 7 in windows of 4, at least one a side: each value stands in the window that its label names."""

    def classes(size):
        return torch.arange(size[0] * size[1]).reshape(1, *size).expand(2, -1, -1)

    monkeypatch.setattr(features, "_GRID", 1)
    values = torch.arange(70.0).reshape(1, 1, 10, 7).expand(2, 3, 10, 7)
    found, labels = features.samples(values, classes, 4)
    assert found.shape == (4, 3, 16)
    assert labels.tolist() == [0, 1, 0, 1]
    expected = torch.arange(70.0).reshape(10, 7)
    torch.testing.assert_close(found[0, 0].reshape(4, 4), expected[0:4, 0:4])
    torch.testing.assert_close(found[1, 2].reshape(4, 4), expected[5:9, 0:4])


@pytest.mark.parametrize("task", [TextureDigits(), Photos()], ids=["segmentation", "super resolution"])
def test_windows_of_other_families_have_classes(task):
    """Several of them, and a score for every channel."""
    model = task.build()
    whole, every, places = split_up(model, task)
    scorer = baselines.scorer("GA_Func2")
    flat = [reading for each in places for reading in each]
    batches = list(loop(task).batches("train", 4, 8))
    layers = list(features.gather(model, flat, task, scorer, batches=lambda: batches, window=4))
    assert {layer.moments.total.shape[1] for layer in layers} <= {1, 4, 16}
    assert min(int((layer.moments.numbers > 0).sum()) for layer in layers) >= 3
    gone = Ranker(task, loop(task), scorer, 8).lowest(model, every, [1] * len(every), whole)
    assert [len(channels) for channels in gone] == [1] * len(every)


@pytest.mark.parametrize("start", [[0, 1, 2], [0] * 9])
def test_maps_are_kept_of_as_many_of_each_class(monkeypatch, start):
    """Nine samples in all: three of each of three classes, whichever comes late or is common."""
    monkeypatch.setattr(features, "KEPT", 9)
    model = nn.Sequential(nn.Linear(1, 2))
    reading = readings.Reading("0", ((0,), (1,)), "0", ((0,), (1,)), None, ())
    kept = features._Gathered(model, reading, baselines.scorer("sum(P)*sum(abs(P))"))
    labels = torch.tensor([*start, *[0] * 20, *[1] * 3, *[2] * 5, -1])
    for part in labels.split(7):
        kept.add(torch.rand(len(part), 2, 4), part)
    layer = kept.layer()
    assert layer.maps.labels.bincount().tolist() == [3, 3, 3]
    assert layer.moments.numbers.tolist() == [3, 3, 3]


def test_small_maps_have_smaller_windows():
    """Eight a side, as far as there are pixels: the large ones would all show the background."""
    for side, pixels, windows in ((64, 16, 256), (32, 16, 64), (16, 4, 64), (8, 1, 64), (4, 1, 16)):
        found, _ = features.samples(torch.rand(1, 2, side, side), lambda size: torch.zeros(1, *size).long(), 4)
        assert found.shape == (windows, 2, pixels)


def test_maps_are_held_for_as_many_layers_as_fit(monkeypatch):
    """One layer a pass, where no more fit: the same scores."""
    model, task = STRIPES.build(), STRIPES
    _, _, places = split_up(model, task)
    flat = [reading for each in places for reading in each]
    scorer = baselines.scorer("sum(abs(P - mX))")
    passes = []

    def batches():
        passes.append(1)
        return loop(task).batches("train", 50)

    def scores():
        layers = features.gather(model, flat, task, scorer, batches=batches, window=4)
        return [scorer.score(layer) for layer in layers]

    at_once = scores()
    assert len(passes) == 1
    monkeypatch.setattr(features, "HELD_BYTES", 1)
    torch.testing.assert_close(scores(), at_once)
    assert len(passes) == 1 + len(flat)


@pytest.mark.parametrize("function", ["FDR", "DI", "MMD"])
def test_layers_that_show_one_class_are_scored_by_their_filters_and_named(function):
    """Those of pooled maps: functions that compare classes say nothing there."""
    task = TextureDigits("fast-scnn")
    model = task.build()
    whole, every, places = split_up(model, task)
    ranker = Ranker(task, loop(task), baselines.scorer(function), 8)
    pooled = next(turn for turn, width in enumerate(every) if width.name.endswith("ppm.0.1.conv (input)"))
    (gone,) = ranker.lowest(model, [every[pooled]], [3], whole)
    (reading,) = places[pooled]
    assert ranker.one_class == [reading.layer]
    norms = readings.filters(model, reading).abs().flatten(1).sum(1)
    assert gone == set(norms.argsort()[:3].tolist())


def test_channels_before_a_pixel_shuffle_have_all_their_filters():
    """Each of the upsampler's channels is made by four filters, which stand side by side."""
    model = Photos().build()
    _, every, places = split_up(model, Photos(), "budget")
    ((reading,),) = [p for width, p in zip(every, places, strict=True) if width.name == "upsample.0"]
    assert readings.filters(model, reading).shape == (16, 64, 3, 3)
    torch.testing.assert_close(
        readings.filters(model, reading)[5].reshape(4, 16, 3, 3), model.get_submodule("upsample.0").weight[20:24]
    )


# ------------------------------------------------------------------------------------------------------- baselines


def layer_of(maps, labels, gains=None):
    """Of samples (n, channels, D)."""
    moments = scoring.Moments.none(*maps.shape[1:], by_class=False)
    moments.add(maps, labels)
    return scoring.Layer(torch.rand(maps.shape[1], 2, 3, 3), moments, scoring.Maps.of(maps, labels), gains)


@pytest.fixture
def three_classes():
    """60 samples of 3 channels and 5 pixels; the first channel tells classes apart, the last is noise."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    maps = torch.rand(60, 3, 5, dtype=torch.float64)
    maps[:, 0] += labels[:, None]
    maps[:, 1] += 0.3 * labels[:, None]
    return maps, labels


def test_discriminant_information_equals_its_formula(three_classes):
    """trace((S + rho I)^-1 sum n d d^T), with numpy, channel by channel."""
    maps, labels = three_classes
    found = baselines.discriminant_information(layer_of(maps, labels))
    for channel in range(3):
        x = maps[:, channel].numpy()
        centred = x - x.mean(0)
        scatter = centred.T @ centred + 1e-4 * np.eye(5)
        between = np.zeros((5, 5))
        for label in range(3):
            distance = x[labels == label].mean(0) - x.mean(0)
            between += 20 * np.outer(distance, distance)
        assert float(found[channel]) == pytest.approx(np.trace(np.linalg.inv(scatter) @ between), rel=1e-9)
    assert found.argsort().tolist() == [2, 1, 0]


def test_maximum_mean_discrepancy_equals_its_formula(three_classes):
    """In one block: mean k(P, P) + mean k(Q, Q) - 2 mean k(P, Q), summed over classes."""
    maps, labels = three_classes
    found = baselines.maximum_mean_discrepancy(layer_of(maps, labels))

    def mean_kernel(a, b):
        return np.mean([[np.exp(-np.sum((p - q) ** 2) / 2) for q in b] for p in a])

    for channel in range(3):
        x = maps[:, channel].numpy()
        expected = 0.0
        for label in range(3):
            own, rest = x[labels == label], x[labels != label]
            expected += mean_kernel(own, own) + mean_kernel(rest, rest) - 2 * mean_kernel(own, rest)
        assert float(found[channel]) == pytest.approx(expected, rel=1e-9)
    assert found.argsort().tolist() == [2, 1, 0]


def test_blocks_hold_all_classes(monkeypatch, three_classes):
    """Blocks of 30 of samples that lie sorted by class still compare each class with the rest."""
    monkeypatch.setattr(baselines, "BLOCK", 30)
    maps, labels = three_classes
    order = labels.argsort(stable=True)
    found = baselines.maximum_mean_discrepancy(layer_of(maps[order], labels[order]))
    assert found.argsort().tolist() == [2, 1, 0]


def test_gains_are_those_of_the_norm_before_the_reading():
    """|gamma| of each channel, through a stream and inside a block."""
    model = lively(STRIPES.build())
    _, every, places = split_up(model, STRIPES)
    by_name = {width.name: reading for width, (reading,) in zip(every, places, strict=True)}
    for name, norm in (("layer1.1.conv1", "layer1.1.bn1"), ("layer1.1.conv1 (input)", "layer1.0.bn2")):
        torch.testing.assert_close(
            readings.gains(model, by_name[name]), model.get_submodule(norm).weight.detach().abs()
        )


def test_networks_without_norms_have_no_gains():
    """Said before anything is trained."""
    reason = ETPF("BN").unsupported(Photos(), Budget(0.5))
    assert reason is not None
    assert "gain of batch norm" in reason
    assert ETPF("BN").unsupported(STRIPES, Budget(0.5)) is None


# ------------------------------------------------------------------------------------------------------- the method


def test_scores_of_several_readings_count_by_rank():
    """Means of ranks; a channel that one does not read has the other's; one that none reads goes first."""
    here = readings.Reading("a", ((0,), (1,), (2,), ()), "m", ((0,), (1,), (2,), (3,)), None, ())
    there = readings.Reading("b", ((), (1,), (2,), ()), "m", ((0,), (1,), (2,), (3,)), None, ())
    rank = _mean_rank([(here, torch.tensor([5.0, 900.0, 7.0, 1.0])), (there, torch.tensor([0.0, 0.1, 0.2, 9.0]))])
    torch.testing.assert_close(rank, torch.tensor([0.0, (2 / 3 + 0) / 2, (1 / 3 + 1 / 2) / 2, -1.0]).double())


@pytest.fixture
def dense(store):
    """A dense network of stripes in a store."""
    cell = Cell(STRIPES, Dense(), Budget(1.0), 0)
    assert compress(cell, store).status == "ok"
    return cell


@pytest.mark.parametrize("function", ["WL1", "GA_Func2", "DI", "MMD", "BN", "random", "sum(abs(P - mX))"])
def test_all_functions_leave_the_same_widths(store, dense, function):
    """Whatever scores: the comparison is of scores alone. What was used is told."""
    record = compress(Cell(STRIPES, ETPF(function, ratio=0.4), Budget(0.515, epochs=1), 0, reference=dense), store)
    assert (record.status, record.reason) == ("ok", "")
    assert {left / all_ for all_, left in record.notes["widths"].values()} == {10 / 16, 20 / 32, 39 / 64}
    if baselines.scorer(function).expression:
        assert functions.function(record.notes["function"]) == functions.function(function)
        assert "\\" in record.notes["function in LaTeX"]
    assert bool(record.spent.offline) == (function in {"GA_Func2", "sum(abs(P - mX))"})


def test_front_to_back_scores_what_is_left(store, dense):
    """The second layer's scores are those of the network whose first is cut."""
    model = compressed_weights(store, dense)
    whole, every, _ = split_up(model, STRIPES)
    counts = [width.channels // 2 for width in every]
    ranker = Ranker(STRIPES, loop(STRIPES), baselines.scorer("FDR"))
    at_once = ranker.lowest(model, every, counts, whole)
    in_turn = ranker.lowest_front_to_back(model, every, counts, whole)
    assert at_once[0] == in_turn[0]
    assert at_once != in_turn
    masked = compressed_weights(store, dense)
    readings.mask(masked, every[0], in_turn[0])
    reader = next(member for member in every[0].members if member.side == "in")
    weight = masked.get_submodule(reader.layer).weight
    assert not weight[:, sorted(in_turn[0])].any(), "functions of filters see what is left"
    assert ranker.lowest(masked, every[1:2], counts[1:2], whole) == in_turn[1:2]


def compressed_weights(store, cell):
    from slimbench.compress import start

    return start(replace(cell, reference=cell), store)


def test_rounds_train_in_between(store, dense):
    """Counts of each round, epochs in equal parts, widths told from first to last."""
    widths = _surgery.widths(STRIPES.build(), STRIPES.example())
    removed = tuple(tuple(width.channels // 4 for width in widths) for _ in range(2))
    method = ETPF("WL2", "budget", removed=removed)
    record = compress(Cell(STRIPES, method, Budget(0.27, epochs=2), 0, reference=dense), store)
    assert record.status in {"ok", "off_budget"}
    assert record.spent.compression_epochs == pytest.approx(2, abs=0.1)
    assert all(left == all_ - 2 * (all_ // 4) for all_, left in record.notes["widths"].values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"function": "GA_Func8"}, "did you mean 'GA_Func"),
        ({"function": "M M D"}, "Cannot read"),
        ({"function": "sum(P"}, "Cannot read"),
        ({"ratio": 1.0}, "share of channels that goes"),
        ({"removed": ((1,),), "ratio": 0.4}, "leave those out"),
        ({"rounds": 0}, "at least 1"),
        ({"images": 0}, "at least 1"),
        ({"removed": (1, 2)}, "whole numbers by round and layer"),
        ({"removed": ((1.5, 2),)}, "whole numbers by round and layer"),
    ],
)
def test_what_cannot_be_is_refused(arguments, says):
    """In one sentence."""
    with pytest.raises(UserError, match=says):
        ETPF(**arguments)


def test_unsupported_says_why():
    """Counts of other networks, several rounds behind samplers."""
    few = ETPF(removed=((1, 2, 3),)).unsupported(STRIPES, Budget(0.5))
    assert few == "removed has counts of 3 layers, the network has 12"
    lenet = discover.make("tasks", "mnist")
    assert "of them cannot go" in ETPF(removed=((20, 1, 1),)).unsupported(lenet, Budget(0.5))
    assert "rule='budget'" in ETPF(rounds=2).unsupported(STRIPES, Budget(0.5))
    assert "rule='budget'" in ETPF(removed=((1,) * 12, (1,) * 12)).unsupported(STRIPES, Budget(0.5))
    assert "gain of batch norm" in ETPF("BN", removed=((1, 1, 1),)).unsupported(lenet, Budget(0.5))


def test_trials_take_the_authors_counts_where_there_are_any():
    """Else a share of the MACs; a quarter of the dense epochs unless told otherwise."""
    method, budget = trial(discover.make("tasks", "mnist"), 0.35, None, 2000)
    assert [sum(counts) for counts in zip(*method.removed, strict=True)] == [15, 39, 460]
    assert (budget.keep, budget.epochs, method.images) == (0.073, 5.0, 2000)
    method, budget = trial(STRIPES, 0.35, 2.0, None)
    assert (method.removed, budget.keep, budget.epochs) == ((), 0.35, 2.0)


@pytest.mark.parametrize("text", ["WL1", "sum(abs(WI))", " sum( abs(WI) )"])
def test_one_function_is_one_spec(text):
    """However it is typed, it has one id, one row and one name."""
    assert ETPF(text) == ETPF("WL1")
    assert ETPF(text).function == "WL1"
    assert ETPF("abs(WI)+sum(P)").function == "abs(WI) + sum(P)"


def test_what_a_function_took_to_find():
    """Evolved, made by hand after what evolution found, known before, or whatever else."""
    told = {name: ETPF(name).offline for name in (*functions.NAMED, *functions.BASELINES, "sum(abs(P - mX))")}
    assert {name for name, text in told.items() if text.startswith("function evolved")} == set(functions.EVOLVED)
    assert {name for name, text in told.items() if "by hand" in text} == {"GA_inspired_1", "GA_inspired_2"}
    assert {name for name, text in told.items() if not text} == {*functions.SEEDS, *functions.BASELINES}


def test_the_closed_forms_hold_classes_times_channels(three_classes):
    """No function of the authors' main four asks for mean maps of classes; those that do say so."""
    need = {name for name in functions.NAMED if baselines.scorer(name).needs_classes}
    assert need == {"GA_inspired_1", "GA_inspired_2"}
    assert not any(baselines.scorer(name).needs_maps for name in functions.NAMED)
    maps, labels = three_classes
    assert layer_of(maps, labels).moments.maps is None
