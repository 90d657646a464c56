"""A cell goes in; its compressed network, stored, and its record come out: the experiment, top to bottom."""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import shutil
import time
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, get_args

import torch

from slimbench import artifact, fresh, identity, seeding
from slimbench.core import Cell, Cost, Record, Settings, Split, UnknownLayerError, UserError, sources
from slimbench.cost import Layer, count, layers
from slimbench.ending import Ending
from slimbench.environment import environment
from slimbench.sealed import SealedTask
from slimbench.train import Loop
from slimbench.workarounds import strided_gradients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from slimbench.core import Method
    from slimbench.store import Store


def compress(
    cell: Cell,
    store: Store,
    say: Callable[[dict[str, Any]], None] = lambda message: None,
    ending: Ending | None = None,
) -> Record:
    """Run a cell to its record, which is stored. Its reference, where it has one, must be in the store.

    Raises: whatever the method raises; the runner turns that into a ``failed`` record. EndedError where the end was
    asked for.
    """
    started = time.monotonic()
    blank = empty_record(cell)
    dense = store.record(blank.reference) if cell.reference else None
    if cell.reference and (dense is None or dense.cost is None):
        raise UserError(f"The dense network {blank.reference} is missing: run its cell first.")
    blank = replace(blank, reference_artifact=dense.artifact if dense else "")
    if reason := why_unsupported(cell):
        return finish(replace(blank, status="unsupported", reason=reason), started, store)

    set_up(cell.settings)
    if not cell.reference:
        fresh.apart(rehearse, cell, anew=False)  # what an export imports is no memory of a training
    with seeding.seeded(cell.seed, "cell"):
        model = start(cell, store)
        if dense and dense.artifact:
            artifact.refuse_other(store.artifact(dense.id), dense.artifact)
        dense_layers = layers(model, cell.task.example())
        sealed: Any = SealedTask(cell.task)
        work, asked = store.work(blank.id) / (blank.reference_artifact[:16] or "fresh"), ending or Ending()
        loop = Loop(sealed, cell.seed, cell.settings, allowance(cell), work, say, teacher(cell, store), ending=asked)
        loop.watch_memory(*sources(cell.method))
        with strided_gradients():
            made = with_sealed_sources(cell.method).compress(model, sealed, cell.budget, loop)
        smaller = network_of(made).cpu().eval()

    say({"stage": "evaluate"})
    network = cell.task.deploy(smaller)
    check_outputs(network, cell)
    cost = count(network, cell.task.example())
    quality, checksum = {}, ""
    with judged(network, cell.settings) as on_device:
        val_quality = cell.task.evaluate(on_device, "val")
        if not cell.inner:
            quality = cell.task.evaluate(on_device, "test")  # opened once a cell, here
    if not cell.inner:
        say({"stage": "store"})
        example, folder = cell.task.example(), store.artifact(blank.id)
        forget = functools.partial(store.forget, blank.id)
        checksum = artifact.save(
            network, example, folder, trained=smaller, dynamic_size=cell.task.any_size, replacing=forget
        )
    dense_cost = (dense and dense.cost) or cost
    own_cost = count(cell.task.deploy(loop.own), cell.task.example()) if loop.own else None
    status, reason = judge(cell, cost, own_cost or dense_cost, dense_layers)
    record = replace(
        blank,
        status=status,
        reason=reason,
        splits={split: cell.task.size(split) for split in get_args(Split)},
        quality=quality,
        val_quality=val_quality,
        cost=cost,
        dense_cost=dense_cost,
        unpruned_cost=own_cost,
        spent=replace(
            loop.spent_in_all, dense_epochs=inherited(cell, dense), offline=getattr(cell.method, "offline", "")
        ),
        notes=loop.notes,
        artifact=checksum,
    )
    return finish(record, started, store)


def rehearse(cell: Cell) -> None:
    """Count and export a network before hours go into its weights. Raises: what would be raised after them."""
    torch.set_num_threads(1)  # a process that was forked has no other
    network, example = cell.task.deploy(cell.task.build()).eval(), cell.task.example()
    count(network, example)
    artifact.program(network, example, dynamic_size=cell.task.any_size)


def with_sealed_sources(method: Method) -> Method:
    """The method, whose other tasks have their test splits sealed too."""
    given = {f.name: getattr(method, f.name) for f in fields(method)}  # type: ignore[arg-type]
    sealed = {name: SealedTask(value) for name, value in given.items() if value in sources(method)}
    return replace(method, **sealed) if sealed else method  # type: ignore[type-var]


def network_of(made: object) -> nn.Module:
    """What a method returned. Raises: UserError where that is no network."""
    if not isinstance(made, torch.nn.Module):
        what = "None" if made is None else f"a {type(made).__name__}"
        raise UserError(f"compress returned {what}: return the network")
    return made


def set_up(settings: Settings) -> None:
    """Threads; on CUDA also the same sums every time, and a float32 that is one."""
    torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        allow_tf32(allowed=settings.precision != "fp32")


def allow_tf32(*, allowed: bool) -> None:
    """Whether float32 products of a GPU may be TensorFloat-32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextlib.contextmanager
def judged(network: nn.Module, settings: Settings) -> Iterator[nn.Module]:
    """The network where it was trained, which is faster, in a float32 that is one, which is fair."""
    if settings.device == "cpu":
        yield network
        return
    allow_tf32(allowed=False)
    try:
        yield copy.deepcopy(network).to(settings.device)
    finally:
        allow_tf32(allowed=settings.precision != "fp32")


def uses_published(cell: Cell) -> bool:
    """Whether the cell's network goes back to published weights."""
    from_scratch = cell.reference is not None and cell.method.card.starts_from == "scratch"
    return cell.task.published() is not None and not from_scratch


def empty_record(cell: Cell) -> Record:
    """A record with everything that is known before the work."""
    published = cell.task.published() if uses_published(cell) else None
    return Record(
        id=identity.cell_id(cell),
        label=identity.cell_label(cell),
        cell=identity.describe_cell(cell),
        status="failed",
        reference=identity.cell_id(cell.reference) if cell.reference else "",
        published=asdict(published) | {"note": "these weights have seen the validation split"} if published else {},
        environment=environment(),
    )


def finish(record: Record, started: float, store: Store) -> Record:
    """Store a record with its time, and clear what the cell had under way."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = replace(record, seconds=round(time.monotonic() - started, 3), finished=now)
    store.put(record)
    shutil.rmtree(store.work(record.id), ignore_errors=True)
    return record


def why_unsupported(cell: Cell) -> str | None:
    """Why a cell cannot exist, or None."""
    if (cell.method.card.selects_on_val or cell.inner) and uses_published(cell):
        return "the method chooses on the validation split, which these published weights have seen: use `bench train`"
    try:
        return cell.method.unsupported(cell.task, cell.budget)
    except UnknownLayerError as error:
        return str(error)


def start(cell: Cell, store: Store) -> nn.Module:
    """The dense network of the cell's task and seed; fresh weights for the cell that makes it."""
    model = cell.task.build()
    if cell.reference:
        model.load_state_dict(artifact.load_weights(store.artifact(identity.cell_id(cell.reference))))
    return model


def teacher(cell: Cell, store: Store) -> nn.Module | None:
    """The dense network, where the recipe distils from it."""
    return start(cell, store) if cell.reference and cell.task.recipe.distillation else None


def allowance(cell: Cell) -> float:
    """Epochs that the cell may spend: from scratch also those that inherited weights would have brought."""
    from_scratch = cell.method.card.starts_from == "scratch"
    return cell.budget.epochs + (cell.task.recipe.epochs if from_scratch else 0.0)


def inherited(cell: Cell, dense: Record | None) -> float | None:
    """Epochs behind the weights that the cell started from; None: published, unknown."""
    if uses_published(cell):
        return None
    if dense is None or cell.method.card.starts_from == "scratch":
        return 0.0
    return dense.spent.compression_epochs


def check_outputs(model: nn.Module, cell: Cell) -> None:
    """Raises: ValueError where weights are not finite or the output has another shape than the dense network's."""
    for name, value in model.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"the compressed network has values that are not finite in {name!r}")
    example = cell.task.example()
    with torch.inference_mode():
        shape, expected = model(example).shape, cell.task.build().eval()(example).shape
    if shape != expected:
        raise ValueError(f"the compressed network puts out {tuple(shape)}, the dense one {tuple(expected)}")


def judge(cell: Cell, cost: Cost, dense: Cost, dense_layers: dict[str, Layer]) -> tuple[Any, str]:
    """``ok``, or ``off_budget`` with the share that was reached.

    Whole layers cannot hit every budget: a method that removes them may miss by half of the largest layer.
    """
    aims = [(cell.budget.resource, cell.budget.keep)]
    if cell.budget.params_keep is not None:
        aims.append(("params", cell.budget.params_keep))
    for resource, keep in aims:
        total = dense.of(resource)
        slack = cell.budget.tolerance * keep
        if cell.method.card.granularity == "layer":
            slack = max(slack, 0.5 * max(layer.of(resource) for layer in dense_layers.values()) / total)
        got = cost.of(resource) / total
        if abs(got - keep) > slack + 1e-12:
            return "off_budget", f"asked to keep {keep:g} of {resource}, kept {got:.4f} (tolerance {slack:.4f})"
    return "ok", ""
