"""The training loop: same order for all, resumable bit for bit, wide enough for the five papers."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import fakes
from slimbench import seeding, train
from slimbench.core import Recipe, Settings
from slimbench.ending import EndedError
from slimbench.train import Loop, OverspentError, schedule

TASK = fakes.Stripes()


def network(seed: int = 0) -> nn.Module:
    with seeding.seeded(seed):
        return TASK.build()


def loop(work=None, allowance=10.0, task=TASK, **more) -> Loop:
    return Loop(task, 0, Settings(), allowance, work, **more)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([v.double().flatten() for v in model.state_dict().values()])


def test_batches_may_be_spread_over_the_split():
    """The first samples may all be of one class; each comes once, and more than there are is all of them."""
    seen = []
    trainer = loop(TASK)
    trainer.task = SimpleNamespace(
        size=lambda split: 10, batch=lambda split, indices, draw: seen.append(indices.tolist())
    )
    for limit, spread in ((4, False), (4, True), (99, True)):
        list(trainer.batches("train", size=3, limit=limit, spread=spread))
    assert seen == [[0, 1, 2], [3], [0, 2, 5], [7], [0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_training_learns():
    """Three epochs on stripes beat chance (25 %) by a wide margin."""
    model = loop().fit(network(), 8, name="dense")
    assert TASK.evaluate(model, "test")["top1"].value > 60


def test_training_repeats_itself_bit_for_bit():
    """The same seed gives the same weights; another gives others."""
    one, two = (loop().fit(network(), 2, name="dense") for _ in range(2))
    other = Loop(TASK, 1, Settings(), 10.0).fit(network(), 2, name="dense")
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


def test_data_order_does_not_depend_on_what_was_drawn_before():
    """A method that draws from the global generator sees the same batches as one that does not."""
    seen: list[list[int]] = []
    for draws in (0, 5):
        batches: list[int] = []

        def look(step, draws=draws, batches=batches):
            torch.rand(draws)
            batches.append(int((step.inputs * 1000).sum()))

        loop().fit(network(), 2, name="fit", before_step=look)
        seen.append(batches)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 6, "batches differ from each other"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [0, 1, 5, 7, 11])
def test_killed_and_resumed_equals_straight_through(tmp_path, monkeypatch, killed_at):
    """Weights, notes, the hooks' own state, the global generators and the meters all come back."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    def whole(work, kill=None):
        """Two fits with dropout-like draws and an optimiser of the hook's own."""
        with seeding.seeded(0):
            trainer = loop(work)
            model = TASK.build()
            gate = nn.Parameter(torch.zeros(()))
            adam = torch.optim.Adam([gate], lr=0.1)
            steps = 0

            def after(step):
                nonlocal steps
                steps += 1
                if kill is not None and steps > kill:
                    raise Killed
                inputs, targets = step.held_out()
                adam.zero_grad()
                (F.cross_entropy(model(inputs) * gate, targets) + torch.rand(())).backward()
                adam.step()
                trainer.note("gate", gate.item())

            class Gate:
                def state_dict(self):
                    return {"gate": gate.data, "adam": adam.state_dict()}

                def load_state_dict(self, saved):
                    gate.data = saved["gate"]
                    adam.load_state_dict(saved["adam"])

            trainer.fit(model, 1.0, name="one", hold_out=0.25, after_step=after, state=[Gate()])
            trainer.fit(model, 1.0, name="two", hold_out=0.25, after_step=after, state=[Gate()])
            return weights(model), torch.rand(3), gate.item(), trainer

    straight = whole(None)
    with pytest.raises(Killed):
        whole(tmp_path, kill=min(killed_at, 7))
    resumed = whole(tmp_path)
    assert torch.equal(straight[0], resumed[0])
    assert torch.equal(straight[1], resumed[1]), "the global generator goes on where it was"
    assert straight[2] == resumed[2]
    assert straight[3].notes == resumed[3].notes
    same = ("search_epochs", "compression_epochs", "examples", "steps")
    assert all(getattr(straight[3].spent, name) == getattr(resumed[3].spent, name) for name in same)


def test_asked_to_end_it_saves_the_step_under_way(tmp_path):
    """No checkpoint was due; what goes on from there begins with the next step, and comes to the same bits."""
    straight = loop().fit(network(), 2, name="fit")
    trainer, seen = loop(tmp_path), []

    def asks(step):
        assert trainer.ending.training == 1
        if step.index == 7:
            assert trainer.ending.ask()

    with pytest.raises(EndedError):
        trainer.fit(network(), 2, name="fit", after_step=asks)
    assert not trainer.ending.ask(), "nothing trains any more"
    resumed = loop(tmp_path).fit(network(), 2, name="fit", after_step=lambda step: seen.append(step.index))
    assert seen == list(range(8, 12))
    assert torch.equal(weights(straight), weights(resumed))


def test_training_elsewhere_is_asked_with_the_rest(tmp_path):
    """A method's loop on another task saves too."""
    trainer = loop(tmp_path)
    other = trainer.elsewhere(TASK)
    trainer.ending.ask()
    with pytest.raises(EndedError):
        other.fit(network(), 2, name="fit")
    seen = []
    loop(tmp_path).elsewhere(TASK).fit(network(), 1, name="fit", after_step=lambda step: seen.append(step.index))
    assert seen == [1, 2, 3, 4, 5]


def test_finished_fits_return_at_once(tmp_path):
    """A replayed fit that had finished takes no step."""
    loop(tmp_path).fit(network(), 2, name="dense")

    def never(step):
        raise AssertionError("a finished fit took a step")

    model = loop(tmp_path).fit(network(), 2, name="dense", before_step=never)
    assert torch.equal(weights(model), weights(loop().fit(network(), 2, name="dense")))


def test_a_damaged_checkpoint_is_named(tmp_path):
    """Not a traceback from the unpickler."""
    from slimbench.core import UserError

    (tmp_path / "fit-0.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"fit-0\.pt is damaged"):
        loop(tmp_path).fit(network(), 1, name="dense")


def test_two_that_save_one_checkpoint_do_not_meet(tmp_path, monkeypatch):
    """For some seconds two runners may work on one cell: each file of either is written whole."""
    from slimbench import files

    names, part_of = [], files.part_of

    def seen(path):
        names.append(part_of(path))
        return names[-1]

    monkeypatch.setattr(files, "part_of", seen)
    loop(tmp_path).fit(network(), 1, name="dense")
    (tmp_path / "fit-0.pt").unlink()
    loop(tmp_path).fit(network(), 1, name="dense")
    assert len(set(names)) == len(names) >= 2
    assert [path.name for path in tmp_path.iterdir()] == ["fit-0.pt"]


def test_overspending_is_stopped():
    """Held-out passes count too."""
    with pytest.raises(OverspentError):
        loop(allowance=1.0).fit(network(), 2, name="dense")
    with pytest.raises(OverspentError):
        loop(allowance=1.0).fit(network(), 1, name="dense", hold_out=0.2, after_step=lambda step: step.held_out())


def test_meters():
    """96 images in batches of 16: six steps an epoch, booked in the phase's column."""
    trainer = loop()
    trainer.fit(network(), 1, name="search", phase="search")
    trainer.fit(network(), 0.5, name="fine-tune")
    assert (trainer.spent.search_epochs, trainer.spent.compression_epochs) == pytest.approx((1.0, 0.5))
    assert (trainer.spent.steps, trainer.spent.examples) == (9, 144)
    assert trainer.spent.seconds > 0
    assert trainer.spent.peak_bytes > 1e6
    assert trainer.epochs_left == pytest.approx(8.5)


def test_memory_is_what_training_added():
    """Not what the process held before, nor what it held and let go; the most of a machine is both."""
    let_go = torch.ones(50_000_000)
    del let_go
    trainer = loop()
    trainer.watch_memory()
    held: list[torch.Tensor] = []
    trainer.fit(network(), 1, name="fit", before_step=lambda step: held.append(torch.ones(1_000_000)))
    if trainer.spent.added_bytes is None:
        pytest.skip("this system does not forget a process's highest memory")
    assert 23e6 <= trainer.spent.added_bytes < 200e6 <= trainer.spent.peak_bytes


def test_data_of_another_task_are_not_what_training_added():
    """A method that learns there has them loaded as a dense network has its own."""

    held: list[torch.Tensor] = []

    class Large(fakes.Stripes):
        def batch(self, split, indices, rng):
            if not held:
                held.append(torch.ones(25_000_000))
            return super().batch(split, indices, rng)

    trainer = loop()
    trainer.watch_memory(Large())
    trainer.elsewhere(Large()).fit(network(), 1, name="fit")
    if trainer.spent_in_all.added_bytes is None:
        pytest.skip("this system does not forget a process's highest memory")
    assert trainer.spent_in_all.added_bytes < 90e6


def test_memory_of_a_process_that_was_killed_counts(tmp_path, monkeypatch):
    """Its successor takes less, and starts with the checkpoint's."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    def large(step):
        if step.index == 3:
            raise Killed
        return torch.ones(50_000_000)

    first, second = loop(work=tmp_path), loop(work=tmp_path)
    with pytest.raises(Killed):
        first.fit(network(), 1, name="fit", before_step=large)
    second.fit(network(), 1, name="fit")
    if first.spent.added_bytes is None:
        pytest.skip("this system does not forget a process's highest memory")
    assert second.spent.steps == 6
    assert second.spent.added_bytes >= first.spent.added_bytes > 190e6


def test_held_out_part_is_apart_and_fixed():
    """No held-out image is trained on, and which they are depends on the seed alone."""
    held: set[int] = set()
    trained: set[int] = set()

    def key(images):
        return {int(v) for v in (images * 1e4).sum((1, 2, 3))}

    def look(step):
        trained.update(key(step.inputs))
        held.update(key(step.held_out()[0]))

    recipe = replace(TASK.recipe, augment=False)
    loop().fit(network(), 4, name="search", hold_out=0.25, recipe=recipe, before_step=look)
    assert not held & trained
    assert len(held) > 15


def test_schedule():
    """A linear rise over the warm-up, a cosine to zero after it."""
    assert schedule(0, 100, 0.0) == 1.0
    assert schedule(50, 100, 0.0) == pytest.approx(0.5)
    assert schedule(99, 100, 0.0) < 0.001
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert max(rates) == rates[10] == 1.0


def test_a_loss_that_is_not_finite_stops_the_fit():
    """Rather than training on nothing."""
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        loop().fit(network(), 1, name="dense", loss=lambda model, x, t, y: y.sum() * float("nan"))


def test_clipping_bounds_the_step():
    """One step of plain SGD at rate 1 moves the weights by the clipped norm."""
    recipe = Recipe(epochs=1, batch_size=96, lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.01)
    before = network()
    parameters = [p.detach().clone() for p in before.parameters()]
    after = loop().fit(before, 1, name="dense", recipe=recipe)
    moved = torch.stack([(p - q).square().sum() for p, q in zip(after.parameters(), parameters, strict=True)])
    assert moved.sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_is_the_recipes():
    """Cross-entropy of (1, 0) logits with smoothing 0.2 over two classes, by hand."""
    task = replace(TASK, recipe=replace(TASK.recipe, label_smoothing=0.2))
    logits, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    one, zero = -logits.log_softmax(1)[0]
    assert task.loss(logits, label).item() == pytest.approx((0.9 * one + 0.1 * zero).item())
    assert TASK.loss(logits, label).item() == pytest.approx(one.item())


def test_distillation_pulls_towards_the_teacher():
    """With all weight on the teacher, the outputs end nearer to its than labels alone bring them."""
    teacher = loop().fit(network(1), 6, name="dense")
    gaps = []
    for share in (0.0, 1.0):
        task = replace(TASK, recipe=replace(TASK.recipe, distillation=share, augment=False))
        model = loop(task=task, teacher=copy.deepcopy(teacher)).fit(network(2), 6, name="student")
        inputs, _ = task.batch("train", torch.arange(96), None)
        with torch.no_grad():
            gaps.append(F.mse_loss(model(inputs).softmax(1), teacher(inputs).softmax(1)).item())
    assert gaps[1] < gaps[0]


def test_bf16_trains_too():
    """The precision is the cell's, the weights stay float32."""
    trainer = Loop(TASK, 0, Settings("bf16"), 10.0)
    model = trainer.fit(network(), 8, name="dense")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert TASK.evaluate(model, "test")["top1"].value > 60


def test_notes_are_plain():
    """Tensors become lists, what is not finite becomes text, objects are refused."""
    trainer = loop()
    trainer.note("widths", {"a": torch.tensor([1, 2])})
    trainer.note("loss", float("inf"))
    assert trainer.notes == {"widths": {"a": [1, 2]}, "loss": "inf"}
    with pytest.raises(TypeError, match="made of numbers"):
        trainer.note("model", network())


# -------------------------------------------------------------- wide enough: the five papers' loops, in a few lines


def test_dcss_alternates_on_disjoint_parts():
    """DCSS: a warm-up, then a weight step with noise and a gate step in eval mode on the held-out part."""
    model, gate = network(), nn.Parameter(torch.zeros(8))
    adam = torch.optim.Adam([gate], lr=0.1)
    temperatures = []

    def gate_step(step):
        temperatures.append(10 ** (1 - 2 * step.progress))
        model.eval()
        inputs, targets = step.held_out()
        p = F.softmax(gate / temperatures[-1], 0)
        cost = torch.log((p * torch.arange(1, 9)).sum())
        adam.zero_grad()
        (F.cross_entropy(model(inputs), targets) + cost).backward()
        adam.step()
        model.train()

    trainer = loop()
    trainer.fit(model, 1, name="warm-up", phase="search", hold_out=0.25)
    trainer.fit(model, 2, name="search", phase="search", hold_out=0.25, after_step=gate_step, state=[adam])
    assert gate[0] > gate[-1], "the cost narrows the gate"
    assert temperatures[0] == 10.0
    assert temperatures == sorted(temperatures, reverse=True)
    # 75 % of train once, then twice with as many held-out draws
    assert trainer.spent.search_epochs == pytest.approx((4 * 16 + 2 * 4 * 32) / 96)


def test_dass_steps_alpha_before_and_changes_groups_by_phase():
    """DASS: alpha's step comes before the weights'; phases train different parameters."""
    model, alpha = network(), nn.Parameter(torch.zeros(()))
    adam = torch.optim.Adam([alpha], lr=0.1)

    def alpha_step(step):
        assert step.outputs is None
        inputs, targets = step.held_out()
        adam.zero_grad()
        F.cross_entropy(model(inputs) * (1 + alpha), targets).backward()
        adam.step()

    trainer = loop()
    trainer.fit(model, 1, name="pretrain", phase="search", hold_out=0.5, before_step=alpha_step, state=[adam])
    frozen = model.conv1.weight.detach().clone()
    only = [{"params": list(model.linear.parameters())}]
    trainer.fit(model, 1, name="prune", phase="search", hold_out=0.5, params=only)
    assert alpha.item() != 0
    assert torch.equal(frozen, model.conv1.weight)


def test_gpp_draws_balanced_batches_and_reads_features():
    """GPP: its own sampler, a loss on the features before the decision, which a forward hook catches."""
    model = network()
    labels = TASK.load("train").labels
    counts, caught = [], []
    handle = model.linear.register_forward_pre_hook(lambda m, args: caught.append(args[0]))

    def balanced(part, rng):
        by_class = [part[labels[part] == c] for c in range(4)]
        draws = [group[torch.randint(len(group), (24,), generator=rng)] for group in by_class]
        return torch.stack(draws, 1).flatten()

    def push(model, inputs, targets, outputs):
        counts.append(torch.bincount(targets, minlength=4).tolist())
        return F.cross_entropy(outputs.float(), targets) + 0.1 * caught[-1].float().var()

    loop().fit(model, 1, name="push", sampler=balanced, loss=push)
    handle.remove()
    assert counts == [[4, 4, 4, 4]] * 6


def test_etpf_scores_on_train_in_one_pass():
    """ETPF: features of train, in order and not augmented, as often as it likes."""
    trainer = loop()
    seen = torch.cat([targets for _, targets in trainer.batches("train", size=40)])
    assert torch.equal(seen, TASK.load("train").labels)
    assert sum(len(t) for _, t in trainer.batches("train", size=40, limit=50)) == 50
