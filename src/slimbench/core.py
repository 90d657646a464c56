"""The nouns: specs that say what to do (frozen values) and what a run leaves behind (costs, scores, records).

Nothing here imports torch at run time, so that listing and planning start fast.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Generator, Tensor, nn

Split = Literal["train", "val", "test"]
Batch = tuple["Tensor", "Tensor"]  # inputs (N, C, H, W) float32, targets as the task defines them
Outputs = Any  # a Tensor; while a network with auxiliary heads trains, a tuple whose first is what eval mode puts out
Fidelity = Literal["authors' code", "companion paper", "re-derived", "extension", "control"]
Resource = Literal["macs", "params", "prunable_nonzero"]
Status = Literal["ok", "off_budget", "unsupported", "failed"]
Precision = Literal["fp32", "bf16"]


class UserError(Exception):
    """Bad input: one sentence that says what is wrong and what to do. The command line prints it and exits with 2."""


def first_line(error: Exception) -> str:
    """What an error is and says, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


class UnknownLayerError(ValueError):
    """A network has a layer that a method can do nothing with: the cell is unsupported."""


class MissingDataError(UserError):
    """A task's data are not at hand (as opposed to altered)."""


class MissingLibraryError(UserError, ImportError):
    """A package cannot be imported here, often for want of a system library."""

    def __init__(self, package: str, error: ImportError) -> None:
        hint = "on Debian `apt-get install libgl1 libglib2.0-0`, which OpenCV needs, else install it again"
        super().__init__(f"{package} cannot be imported ({error}): {hint}.")


class DoesNotFitError(UserError):
    """A device has too little memory for a network: a result, which no second try will change."""


# ---------------------------------------------------------------------------------------------------- specs


@dataclass(frozen=True)
class Card:
    """Where a method comes from and what it is checked against: the only place for a method's facts.

    Attributes:
        section: section, equation or algorithm that the code follows.
        fidelity: by component or task family, e.g. ``{"removal": "re-derived", "segmentation": "extension"}``.
        starts_from: "dense" inherits the weights of the dense network, and so the epochs that made them;
            "scratch" draws new weights and may spend those epochs itself.
        granularity: the smallest thing that is removed. Whole layers cannot hit every budget: see ``Budget``.
        selects_on_val: True when choices are made on the validation split; such a method never starts from
            published weights, which have seen that split.
        deviations: what the code does otherwise than its source; reaches the reports.
        version: raised when a fix moves results, so that cells get new ids.

    """

    title: str
    paper: str = ""
    link: str = ""
    section: str = ""
    fidelity: Mapping[str, Fidelity] = field(default_factory=dict)
    starts_from: Literal["dense", "scratch"] = "dense"
    granularity: Literal["channel", "layer", "weight", "none"] = "channel"
    selects_on_val: bool = False
    deviations: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class Budget:
    """The operating point, and the training that may be spent.

    Attributes:
        keep: share of the dense network's resource that is left, in (0, 1].
        resource: the field of ``Cost`` that ``keep`` speaks of; tables rank within one resource only.
        params_keep: a second aim, where a claim names two.
        epochs: passes over train, all of the method's training together.
        tolerance: relative; methods that remove whole layers may miss by half of the largest layer instead.

    """

    keep: float
    resource: Resource = "macs"
    params_keep: float | None = None
    epochs: float = 0.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Refuse shares outside (0, 1] and negative epochs."""
        for name, share in (("keep", self.keep), ("params_keep", self.params_keep)):
            if share is not None and not 0 < share <= 1:
                raise UserError(f"{name}={share:g} is impossible: the share that is left must lie in (0, 1].")
        if self.epochs < 0 or not math.isfinite(self.epochs):
            raise UserError(f"epochs={self.epochs:g} is impossible: give zero or more.")


@dataclass(frozen=True)
class Recipe:
    """How networks of a task are trained; the same for every method that does not need its own.

    Attributes:
        epochs: passes over train that make the dense network.
        lr, fine_tune_lr: peak learning rates from fresh and from inherited weights; cosine to zero, every step.
        warmup: share of the steps, in [0, 1), in which the rate rises linearly.
        momentum: of SGD (Nesterov); the Adam family keeps its betas.
        clip_norm: largest gradient norm; None: no clipping.
        distillation: weight of the term that draws outputs to the dense network's: see ``Task.distance``.
        temperature: of that term, > 0.

    """

    epochs: float = 200.0
    batch_size: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    fine_tune_lr: float = 0.02
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    augment: bool = True
    label_smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what no training can be made of."""
        shares = ("warmup", "label_smoothing", "distillation")
        names = ("epochs", "lr", "fine_tune_lr", "momentum", "weight_decay", *shares)
        least: dict[str, float] = dict.fromkeys(names, 0.0) | {"batch_size": 1, "temperature": 1e-6}
        for name, smallest in least.items():
            if not getattr(self, name) >= smallest:
                raise UserError(f"recipe: {name}={getattr(self, name)} is impossible: give at least {smallest:g}.")
        for name in shares:
            if getattr(self, name) > 1:
                raise UserError(f"recipe: {name}={getattr(self, name)} is impossible: it is a share, at most 1.")


@dataclass(frozen=True)
class Metric:
    """What a score is called, its unit, and which way is better."""

    name: str
    unit: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Published:
    """Weights that somebody else trained: they have seen the validation split."""

    name: str
    sha256: str
    claimed: float  # the published value of the task's headline metric
    source: str


class Task(Protocol):
    """Data, network, loss, metric and recipe of one task. Implementations are frozen dataclasses.

    How its networks are fed it may say in ``feeding``, where ``slimbench.feeding`` does not know it; what is unusual
    about data that are all right, in ``unusual()``, which `bench check` shows.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    version: ClassVar[int]
    any_size: ClassVar[bool]  # whether inputs of other heights and widths than the example's are taken
    heavy: ClassVar[tuple[str, ...]]  # modules that its work imports slowly: workers are forked with them loaded

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it is scored by on test; the first is the headline."""
        ...

    @property
    def network(self) -> str:
        """The network's name."""
        ...

    @property
    def recipe(self) -> Recipe:
        """How its networks are trained."""
        ...

    def check(self) -> None:
        """Look at every file that this task needs. Raises: UserError where one is missing or altered."""
        ...

    def data_checksum(self) -> str:
        """A digest of the data's content; the same whatever layout the files have."""
        ...

    def published(self) -> Published | None:
        """The published weights that the dense network starts from, or None when it is trained here."""
        ...

    def build(self) -> nn.Module:
        """The dense network with fresh weights, drawn from torch's global generator."""
        ...

    def load_published(self, model: nn.Module) -> None:
        """Put the published weights into ``model``. Raises: UserError where the file is missing or altered."""
        ...

    def initialise(self, model: nn.Module) -> None:
        """Draw fresh weights in place, for any network made from one of this task's."""
        ...

    def example(self) -> Tensor:
        """One input, (1, C, H, W) float32."""
        ...

    def size(self, split: Split) -> int:
        """Number of samples."""
        ...

    def batch(self, split: Split, indices: Tensor, rng: Generator | None) -> Batch:
        """Samples by index (int64, (N,)), normalised; augmented by draws from ``rng`` where it is given."""
        ...

    def loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """The scalar training loss, auxiliary heads included."""
        ...

    def distance(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """How far outputs are from another network's, a scalar: the term of distillation."""
        ...

    def deploy(self, model: nn.Module) -> nn.Module:
        """The network as it is used, without what only training needs (auxiliary heads); ``model`` stays as it is."""
        ...

    def classes(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Class of what each window of a feature map of ``size`` shows, (N, h, w) int64; -1: ignored.

        A label of the whole image is one window, (N, 1, 1).
        """
        ...

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, Scores]:
        """Scores by metric name, the headline first, over the whole split, in float32."""
        ...


class Trainer(Protocol):
    """The training loop, bound to one cell: its task, seed and epochs. See ``slimbench.train``."""

    @property
    def epochs_left(self) -> float:
        """Passes over train that may still be spent."""
        ...

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
        loss: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] | None = None,
        before_step: Callable[[Step], None] | None = None,
        after_step: Callable[[Step], None] | None = None,
        state: Sequence[Any] = (),
    ) -> nn.Module:
        """Train ``model`` in place and return it."""
        ...

    def batches(
        self, split: Split, size: int | None = None, limit: int | None = None, *, spread: bool = False
    ) -> Iterator[Batch]:
        """Batches of train or val in order, not augmented; looking is not training, and is not metered.

        At most ``limit`` samples: the first ones, or with ``spread`` from all over the split.
        """
        ...

    def note(self, name: str, value: Any) -> None:
        """Keep what a method has to show (a number, series, table or text) in the record."""
        ...

    def elsewhere(self, task: Task) -> Trainer:
        """The same loop on another task, metered with this one; the method's spec must hold that task."""
        ...

    def unpruned(self, network: nn.Module) -> None:
        """Say that the method made a network of its own, and that the budget's shares are of this one."""
        ...


@dataclass(frozen=True)
class Step:
    """What hooks are told about one step of the training loop.

    For super resolution what is held out is other patches of the images that are trained on: mostly the same pixels.
    """

    index: int
    total: int  # steps of this fit
    lr: float
    inputs: Tensor
    targets: Tensor
    outputs: Tensor | None  # None before the forward pass; of auxiliary heads nothing
    held_out: Callable[[], Batch]  # a random batch of the held-out part of train
    again: Callable[[int], None] = lambda passes: None  # books so many more passes over this step's batch

    @property
    def progress(self) -> float:
        """Share of this fit's steps that are done, in [0, 1)."""
        return self.index / self.total


class Method(Protocol):
    """One way of compressing a network. Implementations are frozen dataclasses; fields are hyper-parameters.

    What a method owes to work outside any cell (an evolution, done once) it says in ``offline``, where it has that.
    """

    name: ClassVar[str]
    card: ClassVar[Card]

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Why this cell cannot exist, or None; names the reachable minimum keep where that is the reason."""
        ...

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """The smaller network. ``model`` may be changed in place; the test split is out of reach."""
        ...


def sources(method: Method) -> tuple[Task, ...]:
    """The tasks that a method's fields hold: it trains on them before it turns to the cell's own."""
    values = (getattr(method, field.name) for field in fields(method))  # type: ignore[arg-type]
    return tuple(value for value in values if hasattr(value, "data_checksum"))


class HardwareProfile(Protocol):
    """One way of timing a device. It takes stored artifacts, so that another process or board can run it.

    One that times another machine, or this one inside something, has ``machine()`` too: see ``environment.machine``.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    device: ClassVar[str]  # "cpu", "cuda": one measurement at a time on each, and none beside training

    def unavailable(self) -> str | None:
        """Why this machine cannot measure it, or None."""
        ...

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """Time the network in ``artifact`` against the one in ``reference``, interleaved. Raises: DoesNotFitError."""
        ...


Level = Literal["quick", "full"]


@dataclass(frozen=True)
class Settings:
    """What a number also depends on: resolved before a cell gets its id."""

    precision: Precision = "fp32"
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Cell:
    """One piece of work: a method on a task at a budget with a seed.

    Attributes:
        reference: the dense network's cell.
        inner: an evaluation inside a search: scored on val alone, test stays shut, and its network is not kept.

    """

    task: Task
    method: Method
    budget: Budget
    seed: int
    settings: Settings = Settings()
    reference: Cell | None = None
    inner: bool = False


@dataclass(frozen=True)
class Arm:
    """Methods that share operating points: those that remove weights are not asked for what channels are."""

    methods: tuple[Method, ...]
    budgets: tuple[Budget, ...]


@dataclass(frozen=True)
class Suite:
    """What to compare: tasks x arms x seeds, with one dense reference a task and seed.

    Attributes:
        reference: the method whose result is the dense network of a task and seed.
        time_limit_s: a cell that runs longer is stopped and recorded as failed.

    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    reference: Method
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0,)
    profiles: tuple[HardwareProfile, ...] = ()
    time_limit_s: float = 24 * 3600.0


# ------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Cost:
    """Counted: the same on every machine, for one input.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and matrix products.
        params: trainable values; ``nonzero`` those that are not 0.0; ``prunable_nonzero`` the latter among the
            weights of convolutions and linear layers.
        activations: values that convolutions, linear layers and matrix products put out.
        bytes: parameters and buffers.
        uncounted: other operators and their share of (macs + values they put out), largest first.

    """

    macs: int
    params: int
    nonzero: int
    prunable_nonzero: int
    activations: int
    bytes: int
    uncounted: tuple[tuple[str, float], ...] = ()

    def of(self, resource: Resource) -> int:
        """The figure that a budget speaks of."""
        return int(getattr(self, resource))


@dataclass(frozen=True)
class Scores:
    """One metric over a whole split: ``value`` in the metric's unit, what was divided, and each sample's share.

    ``per_sample`` is packed (see ``pack``): ten thousand 0-or-1 scores take two kilobytes of a record. Where the value
    is no mean over samples (mIoU), it holds what each sample adds, row by row: see the task.
    """

    value: float
    numerator: float
    denominator: float
    per_sample: str = ""


@dataclass(frozen=True)
class Spent:
    """Training that went into a network, so that inherited and hidden training can be seen.

    Attributes:
        dense_epochs: passes that made the inherited weights (0 from scratch; None: published, unknown).
        search_epochs, compression_epochs: passes that the method itself took.
        offline: work done once, outside any cell, e.g. an evolution: how much and how it is amortised.
        seconds: in ``fit``.
        peak_bytes: the most memory that was resident in the process (CPU) or allocated (CUDA).
        added_bytes: the most beyond what was held before the work began, the data loaded; None: not known.

    """

    dense_epochs: float | None = 0.0
    search_epochs: float = 0.0
    compression_epochs: float = 0.0
    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    peak_bytes: int | None = None
    added_bytes: int | None = None
    offline: str = ""


@dataclass(frozen=True)
class Measurement:
    """True of one device only. Times are of one forward pass of one batch.

    Attributes:
        ratio: dense / compressed latency (above 1: faster) with its 95 % interval.
        noise: how far the interval of dense against a copy of itself, in the same session, reaches from 1.
        disturbed: why the timing should be doubted, or None.
        samples: of each network, over all ``processes``.
        peak_bytes: memory that loading and running the network added to a process that had done so; a GPU's: allocated.
        reserved_bytes: that a GPU's allocator took for it.
        artifact_bytes: of the file that the runtime loads.
        energy_mj: of one forward pass, of the whole processor or device; None where nothing meters it.
        drift: how much slower or faster a process's second half of rounds was than its first, at most.
        device: what the profile says of its device and runtime.

    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    iqr_ms: float
    dense_p50_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    noise: float
    level: Level
    disturbed: str | None
    batch: int
    threads: int
    samples: int
    peak_bytes: int | None
    dense_peak_bytes: int | None
    busy_cores: float  # that other work kept busy, right before or meanwhile
    load_average: tuple[float, float]  # before, after; it remembers the last minute's own work
    clock_mhz: tuple[float | None, float | None]  # before, after; None where the system does not tell
    input_shape: tuple[int, ...] = ()
    processes: int = 1
    reserved_bytes: int | None = None
    dense_reserved_bytes: int | None = None
    artifact_bytes: int | None = None
    dense_artifact_bytes: int | None = None
    energy_mj: float | None = None
    dense_energy_mj: float | None = None
    drift: float = 0.0
    device: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images_per_s(self) -> float:
        """Throughput at this batch."""
        return 1000 * self.batch / self.p50_ms

    @property
    def indicative(self) -> tuple[str, ...]:
        """Percentiles of fewer samples than MLPerf asks for them."""
        return tuple(name for name, least in ENOUGH_SAMPLES.items() if self.samples < least)


ENOUGH_SAMPLES = {"p90_ms": 24_576, "p99_ms": 270_336}  # MLPerf's, for 99 % confidence


@dataclass(frozen=True)
class Record:
    """What a cell ends in, whatever happened: ``status`` other than "ok" comes with a reason in words."""

    id: str
    label: str
    cell: Mapping[str, Any]  # every field of the specs, defaults too: read by people and reports
    status: Status
    reason: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)  # samples in train, val and test
    quality: Mapping[str, Scores] = field(default_factory=dict)  # on test
    val_quality: Mapping[str, Scores] = field(default_factory=dict)
    cost: Cost | None = None
    dense_cost: Cost | None = None
    unpruned_cost: Cost | None = None  # of the method's own network before pruning, where shares are of that one
    spent: Spent = Spent()
    notes: Mapping[str, Any] = field(default_factory=dict)
    artifact: str = ""  # sha256 of its manifest
    reference: str = ""  # id of the dense cell, and the sha256 of the artifact that this cell started from
    reference_artifact: str = ""
    published: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""  # UTC, ISO 8601

    def kept(self, resource: Resource) -> float:
        """Share of a resource that is left: of the dense network's, or of the method's own unpruned one."""
        whole = self.unpruned_cost or self.dense_cost
        assert self.cost
        assert whole
        return self.cost.of(resource) / whole.of(resource)


@dataclass(frozen=True)
class MeasurementRecord:
    """A measurement of one artifact by one profile on one machine."""

    id: str
    cell_id: str
    reference_id: str
    profile: Mapping[str, Any]
    status: Status
    reason: str = ""
    measurement: Measurement | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished: str = ""


def pack(values: Sequence[float]) -> str:
    """Numbers as text: little-endian float32, deflated, base64."""
    return base64.b64encode(zlib.compress(struct.pack(f"<{len(values)}f", *values), 9)).decode()


def unpack(text: str) -> tuple[float, ...]:
    """What ``pack`` packed, as float32 values."""
    raw = zlib.decompress(base64.b64decode(text)) if text else b""
    return struct.unpack(f"<{len(raw) // 4}f", raw)
