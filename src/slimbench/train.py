"""The only training loop: a network, a number of epochs and a method's hooks go in; a trained network comes out.

Every method draws the same data in the same order: order and augmentation come from streams that depend on the seed,
on which of the cell's fits this is, and on the step, never on what was drawn before. A checkpoint is therefore the
weights, the optimiser, the hooks' state, the global generators and a step number; killed and resumed equals straight
through, bit for bit at one thread.

``compress`` is replayed from its start after a kill: fits that had finished return their stored result at once, the
one under way continues from its checkpoint.
"""

from __future__ import annotations

import copy
import io
import json
import math
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor, nn

from slimbench import seeding
from slimbench.core import Batch, Recipe, Settings, Spent, Split, Step, Task, UserError
from slimbench.ending import EndedError, Ending
from slimbench.files import whole_file
from slimbench.memory import Taken
from slimbench.sealed import SealedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from slimbench.core import Outputs

    Loss = Callable[[nn.Module, Tensor, Tensor, Outputs], Tensor]

CHECKPOINT_SECONDS = 60.0
_REPORT_SECONDS = 0.5
_PEAKS = ("peak_bytes", "added_bytes")
_LOOKED_AT_PIXELS = 2**20  # of a batch that is only looked at: 6 images of 360 x 480


class OverspentError(RuntimeError):
    """A method trained for more epochs than its budget allows."""


@dataclass
class Loop:
    """The ``Trainer`` of one cell.

    Attributes:
        allowance: passes over train that the cell may spend.
        work: folder for checkpoints, or None to keep none.
        say: takes progress messages.
        teacher: the dense network, for recipes with distillation.
        ending: where the end can be asked for: after the step under way, with a checkpoint.

    """

    task: Task
    seed: int
    settings: Settings
    allowance: float
    work: Path | None = None
    say: Callable[[dict[str, Any]], None] = lambda message: None
    teacher: nn.Module | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    spent: Spent = Spent()
    ending: Ending = field(default_factory=Ending)
    own: nn.Module | None = None  # a method's own network, unpruned, where it makes one
    _parent: Loop | None = None  # of a loop on another task: their epochs are one allowance
    _others: list[Loop] = field(default_factory=list)  # on other tasks
    _taken: Taken | None = None
    _fits: int = 0
    _saved: dict[int, int] = field(default_factory=dict)  # fit -> step of its newest checkpoint

    @property
    def device(self) -> torch.device:
        """Where training runs."""
        return torch.device(self.settings.device)

    @property
    def epochs_left(self) -> float:
        """Passes over train that may still be spent."""
        if self._parent:
            return self._parent.epochs_left
        spent = self.spent_in_all
        return self.allowance - spent.search_epochs - spent.compression_epochs

    @property
    def spent_in_all(self) -> Spent:
        """Training here and on other tasks."""
        every = [self.spent, *(other.spent_in_all for other in self._others)]
        sums = ("search_epochs", "compression_epochs", "examples", "steps", "seconds")
        totals: dict[str, Any] = {name: sum(getattr(spent, name) for spent in every) for name in sums}
        totals |= {name: _most(getattr(spent, name) for spent in every) for name in _PEAKS}
        return replace(self.spent, **totals)

    def watch_memory(self, *others: Task) -> None:
        """Count what is added from here on, once train and val are loaded, and train of what else is trained on."""
        if self._taken:
            return
        first = torch.zeros(1, dtype=torch.long, device=self.device)
        self.task.batch("val", first, None)
        for task in (self.task, *others):
            task.batch("train", first, None)
        self._taken = Taken(self.device)

    def memory_spent(self) -> dict[str, Any]:
        """Fields of ``Spent``: the most of this process and of those that it continues."""
        return {name: _most((getattr(self.spent, name), getattr(self._taken, name))) for name in _PEAKS}

    def elsewhere(self, task: Task) -> Loop:
        """The same loop on another task, its test split sealed as well. Its passes are passes over its own train."""
        sealed: Any = SealedTask(task)
        work = self.work and self.work / f"elsewhere-{len(self._others)}"
        shared: dict[str, Any] = {"notes": self.notes, "ending": self.ending}
        other = Loop(
            sealed, self.seed, self.settings, self.allowance, work, self.say, **shared, _parent=self, _taken=self._taken
        )
        self._others.append(other)
        return other

    def unpruned(self, network: nn.Module) -> None:
        """Say that the method made a network of its own, and that the budget's shares are of this one."""
        self.own = copy.deepcopy(network)

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value (or a tensor) in the record; numbers that are not finite are kept as text."""
        self.notes[name] = _plain(value)

    def batches(
        self, split: Split, size: int | None = None, limit: int | None = None, *, spread: bool = False
    ) -> Iterator[Batch]:
        """Batches of train or val in order, not augmented; at most ``limit`` samples.

        Args:
            size: of a batch; None: 256, or fewer where images are large.
            spread: take them from all over the split: the first ones may be of few classes.

        """
        if size is None:
            pixels = math.prod(self.task.example().shape[2:])
            size = min(256, max(1, _LOOKED_AT_PIXELS // pixels))
        whole = self.task.size(split)
        count = min(limit or sys.maxsize, whole)
        chosen = torch.arange(count, device=self.device)
        for indices in (chosen * whole // count if spread else chosen).split(size):
            yield self.task.batch(split, indices, None)

    def fit(
        self,
        model: nn.Module,
        epochs: float,
        *,
        name: str,
        phase: Literal["search", "compression"] = "compression",
        recipe: Recipe | None = None,
        params: Iterable[dict[str, Any]] | None = None,
        hold_out: float = 0.0,
        sampler: Callable[[Tensor, Generator], Tensor] | None = None,
        loss: Loss | None = None,
        before_step: Callable[[Step], None] | None = None,
        after_step: Callable[[Step], None] | None = None,
        state: Sequence[Any] = (),
    ) -> nn.Module:
        """Train ``model`` in place for ``epochs`` passes over its part of train, and return it in eval mode.

        Args:
            name: what the progress line says.
            phase: which column of the tables the passes are booked in.
            recipe: None: the task's.
            params: the optimiser's groups; None: every trainable parameter.
            hold_out: share of train, in [0, 1), kept apart for ``Step.held_out``; which samples depends on the
                seed alone. Passes over it are metered like any others.
            sampler: (indices of the part, generator) -> indices of one epoch; None: a permutation.
            loss: (model, inputs, targets, outputs) -> scalar; None: the task's.
            before_step, after_step: called before the forward pass and after the optimiser's step.
            state: objects with ``state_dict`` and ``load_state_dict`` that the hooks own: checkpointed too.

        Raises: OverspentError; FloatingPointError when the loss is no longer finite; EndedError.

        """
        recipe = recipe or self.task.recipe
        if recipe.label_smoothing != self.task.recipe.label_smoothing:
            raise ValueError("label smoothing is declared in the task's recipe, for all methods alike")
        fit = self._fits
        self._fits += 1
        self.watch_memory()
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = (
            list(params) if params is not None else [{"params": [p for p in model.parameters() if p.requires_grad]}]
        )
        optimizer = make_optimizer(recipe, groups)
        bases = [group["lr"] for group in optimizer.param_groups]
        order = _Order(self.task.size("train"), recipe.batch_size, hold_out, sampler, (self.seed, fit))
        total = math.floor(epochs * order.steps_an_epoch + 1e-6)  # never beyond what was asked
        kept = [model, optimizer, *state]
        step = self._resume(fit, kept)
        loss = loss or self._task_loss(recipe)
        meter = _Meter(self, name, total, order.steps_an_epoch, phase)
        draws = 0

        def held_out() -> Batch:
            nonlocal draws
            indices = order.held_batch(step, draws)
            draws += 1
            meter.add(len(indices))
            return self._batch(indices, recipe, fit, "held", step, draws)

        model.train()
        with self.ending.awaited():
            while step < total:
                draws = 0
                rate = schedule(step, total, recipe.warmup)
                for group, base in zip(optimizer.param_groups, bases, strict=True):
                    group["lr"] = base * rate
                indices = order.batch(step)
                inputs, targets = self._batch(indices, recipe, fit, "train", step)
                again = partial(meter.again, len(indices))
                told = Step(step, total, bases[0] * rate, inputs, targets, None, held_out, again)
                if before_step:
                    with self.autocast():
                        before_step(told)
                outputs = self._step(model, optimizer, loss, (inputs, targets), recipe)
                if after_step:
                    with self.autocast():
                        after_step(replace(told, outputs=outputs))
                step += 1
                meter.add(len(indices), step)
                if (ends := self.ending.asked) or meter.checkpoint_due():
                    self._save(fit, step, kept)
                if ends:
                    raise EndedError
            if self._saved.get(fit) != total:
                self._save(fit, step, kept)
        return model.eval()

    # -------------------------------------------------------------------------------------------------- one step

    def autocast(self) -> torch.autocast:
        """The precision that this cell trains in. One context a step: casts of weights are cached inside it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, batch: Batch, recipe: Recipe
    ) -> Tensor:
        inputs, targets = batch
        with self.autocast():
            outputs = model(inputs)
            value = loss(model, inputs, targets, outputs)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the training loss became {value.item()}: lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if recipe.clip_norm is not None:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(held, recipe.clip_norm)
        optimizer.step()
        return main(outputs).detach()

    def _batch(self, indices: Tensor, recipe: Recipe, *stream: object) -> Batch:
        rng = seeding.generator(self.seed, "augment", *stream) if recipe.augment else None
        return self.task.batch("train", indices.to(self.device), rng)

    def _task_loss(self, recipe: Recipe) -> Loss:
        teacher = self.teacher
        if not recipe.distillation or teacher is None:
            return lambda model, inputs, targets, outputs: self.task.loss(full_precision(outputs), targets)
        teacher.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        share, T = recipe.distillation, recipe.temperature

        def distilled(model: nn.Module, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
            with torch.no_grad():
                taught = teacher(inputs).float()
            outputs = full_precision(outputs)
            away = self.task.distance(main(outputs), taught, T)
            return (1 - share) * self.task.loss(outputs, targets) + share * away

        return distilled

    # ------------------------------------------------------------------------------------------------- checkpoints

    def _file(self, fit: int) -> Path | None:
        return self.work / f"fit-{fit}.pt" if self.work else None

    def _save(self, fit: int, step: int, kept: Sequence[Any]) -> None:
        """Write the checkpoint whole or not at all. Raises: StoreFullError."""
        self.spent = replace(self.spent, **self.memory_spent())  # the highest stays until it is asked for
        path = self._file(fit)
        if path is None:
            return
        document = {
            "step": step,
            "kept": [thing.state_dict() for thing in kept],
            "generators": seeding.global_state(),
            "notes": json.dumps(self.notes),
            "spent": json.dumps(self.spent.__dict__),
        }
        buffer = io.BytesIO()
        torch.save(document, buffer)
        with whole_file(path) as part:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(buffer.getvalue())
        self._saved[fit] = step

    def _resume(self, fit: int, kept: Sequence[Any]) -> int:
        """Put back what the checkpoint holds and return its step; 0 where there is none."""
        path = self._file(fit)
        if path is None or not path.exists():
            return 0
        try:
            document = torch.load(path, weights_only=True, map_location="cpu")  # generators live there
        except Exception as error:
            raise UserError(f"The checkpoint {path} is damaged: delete it and run the same command again.") from error
        for thing, saved in zip(kept, document["kept"], strict=True):
            thing.load_state_dict(saved)
        seeding.restore_global_state(document["generators"])
        self.notes.update(json.loads(document["notes"]))
        self.spent = Spent(**json.loads(document["spent"]))
        self._saved[fit] = int(document["step"])
        return int(document["step"])


class _Order:
    """Which samples a step sees. Stateless: any step can be asked for first."""

    def __init__(
        self,
        size: int,
        batch: int,
        hold_out: float,
        sampler: Callable[[Tensor, Generator], Tensor] | None,
        stream: tuple[int, int],
    ) -> None:
        seed, fit = stream
        shuffled = torch.randperm(size, generator=seeding.generator(seed, "hold out"))
        held = round(hold_out * size)
        self.held, self.part = shuffled[:held], shuffled[held:].sort().values
        self.batch_size = min(batch, len(self.part))
        self.steps_an_epoch = len(self.part) // self.batch_size  # a short last batch would upset batch statistics
        self._sampler = sampler or (lambda part, rng: part[torch.randperm(len(part), generator=rng)])
        self._stream = (seed, "order", fit)
        self._epoch: tuple[int, Tensor] = (-1, shuffled)

    def batch(self, step: int) -> Tensor:
        """Indices of a step's batch."""
        epoch, position = divmod(step, self.steps_an_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._sampler(self.part, seeding.generator(*self._stream, epoch))
        return self._epoch[1][position * self.batch_size : (position + 1) * self.batch_size]

    def held_batch(self, step: int, draw: int) -> Tensor:
        """Indices of a random batch of the held-out part."""
        if not len(self.held):
            raise ValueError("held_out needs fit(..., hold_out=share)")
        rng = seeding.generator(*self._stream, "held", step, draw)
        return self.held[torch.randperm(len(self.held), generator=rng)[: self.batch_size]]


class _Meter:
    """Books examples, epochs, steps and seconds into ``Loop.spent`` and reports progress."""

    def __init__(self, loop: Loop, name: str, total: int, steps_an_epoch: int, phase: str) -> None:
        self.loop, self.name, self.total, self.steps_an_epoch = loop, name, total, steps_an_epoch
        self.phase = f"{phase}_epochs"
        self.size = loop.task.size("train")
        self.booked = self.saved = self.told = self.started = time.monotonic()
        self.examples = 0

    def add(self, examples: int, step: int | None = None) -> None:
        """Book some examples, and a step where it is given. Raises: OverspentError."""
        loop, now = self.loop, time.monotonic()
        passes = getattr(loop.spent, self.phase) + examples / self.size
        loop.spent = replace(
            loop.spent,
            examples=loop.spent.examples + examples,
            steps=loop.spent.steps + (step is not None),
            seconds=loop.spent.seconds + now - self.booked,
            **{self.phase: passes},
        )
        self.booked = now
        self.examples += examples
        if loop.epochs_left < -1e-6:
            raise OverspentError(f"{self.name} trains for more than the {loop.allowance:g} epochs of its budget")
        if step is not None and (now - self.told > _REPORT_SECONDS or step == self.total):
            self.told = now
            rate = self.examples / max(now - self.started, 1e-9)
            done = {"epoch": step / self.steps_an_epoch, "epochs": self.total / self.steps_an_epoch}
            loop.say({"fit": self.name, **done, "images_per_second": rate})

    def again(self, examples: int, passes: int) -> None:
        """Book more passes over some examples. Raises: OverspentError."""
        self.add(passes * examples)

    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is old; when it is taken has no influence on results."""
        due = time.monotonic() - self.saved > CHECKPOINT_SECONDS
        if due:
            self.saved = time.monotonic()
        return due


def make_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The recipe's optimiser over parameter groups, which may carry their own lr and weight_decay."""
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](groups, **common)


def main(outputs: Outputs) -> Tensor:
    """What the network is for: outputs without those of auxiliary heads."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def full_precision(outputs: Outputs) -> Outputs:
    """The same in float32: losses are sums over many values."""
    return tuple(part.float() for part in outputs) if isinstance(outputs, tuple) else outputs.float()


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step`` of ``total``: a linear rise, then a cosine to zero."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising)))


def fine_tuning(recipe: Recipe) -> Recipe:
    """The recipe for inherited weights."""
    return replace(recipe, lr=recipe.fine_tune_lr)


def _most(values: Iterable[int | None]) -> int | None:
    """The largest of those that are known."""
    return max((value for value in values if value is not None), default=None)


def _plain(value: Any) -> Any:
    """Tensors, tuples and numbers as JSON values."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a note is made of numbers, text, lists and tables, not {type(value).__name__}")
