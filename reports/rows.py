"""Records go in; rows of tables come out: one method at one operating point on one task, with all its seeds."""

from __future__ import annotations

import functools
import math
import operator
import re
import statistics
from collections import defaultdict
from dataclasses import astuple, dataclass, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from slimbench.environment import machine_in
from slimbench.identity import digest, digest_of_shared, remembered
from slimbench.statistics import Difference, Summary, paired, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from slimbench.core import Measurement, MeasurementRecord, Record


FAMILIES = frozenset({"classification", "segmentation", "super resolution"})  # as tasks and cards name them


@dataclass(frozen=True)
class Column:
    """One way of timing on one machine: latencies of two of them never share a column."""

    profile: str
    level: str
    machine: str
    shape: str  # of one input: latencies of two tasks' are not of one kind
    caption: str

    @property
    def place(self) -> tuple[str, ...]:
        """What columns are sorted by."""
        return self.profile, self.level, self.machine, self.shape, self.caption

    @property
    def name(self) -> str:
        """Six digits of all that tells it from others: for names of files."""
        return digest(astuple(self))[:6]


@dataclass(frozen=True)
class Choice:
    """Of several rates of repair, the one that validation chose (``tuned``)."""

    rate: float
    means: Mapping[float, float]  # of the headline metric on val by rate, where the row ended well, over ``n`` seeds
    n: int
    tries: Mapping[float, Row]  # every one, by rate

    @property
    def is_open(self) -> bool:
        """Whether validation says the same of every rate, but for rounding."""
        same = all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairwise(self.means.values()))
        return same and len(self.means) == len(self.tries)


@dataclass(frozen=True)
class Row:
    """One method at one operating point on one task: all its seeds."""

    records: tuple[Record, ...]
    dense: Mapping[int, Record]
    measured: Mapping[Column, Mapping[str, Measurement]]  # of its networks, by the id of a record
    refused: tuple[str, ...] = ()
    choice: Choice | None = None
    apart: str = ""  # what parts it from others of its label: a default that changed, another source of a user's file

    @functools.cached_property
    def first(self) -> Record:
        """The record of the lowest seed that counts."""
        return self.counted[0] if self.counted else self.records[0]

    @functools.cached_property
    def counted(self) -> tuple[Record, ...]:
        """The seeds that numbers are made of: those that met the budget; where none did, those that missed it."""
        done = [record for record in self.records if record.cost]
        met = tuple(record for record in done if record.status == "ok")
        return met or tuple(done)

    @property
    def is_dense(self) -> bool:
        """Whether this is the reference."""
        return bool(self.first.cell["reference"])

    @property
    def is_met(self) -> bool:
        """Whether some seed met the budget: a row of misses is ranked with nothing."""
        return any(record.status == "ok" for record in self.records)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why seeds did not end well."""
        return tuple(dict.fromkeys(record.reason for record in self.records if record.status != "ok"))

    @functools.cached_property
    def costs(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """By field: what each counted network costs, and its dense one."""
        pairs = [(_fields(record.cost), _fields(record.dense_cost)) for record in self.counted]
        return {name: tuple([(ours[i], dense[i]) for ours, dense in pairs]) for i, name in enumerate(_FIELDS)}

    def cost(self, name: str) -> float | None:
        """A field of the cost, mean over seeds."""
        return _mean([ours for ours, _ in self.costs[name]])

    def kept(self) -> float | None:
        """Share of the budget's resource that is left, mean over seeds."""
        resource = self.first.cell["budget"]["resource"]
        return _mean([record.kept(resource) for record in self.counted])

    def share(self, name: str) -> float | None:
        """A field of the cost as a share of the dense network's, mean over seeds."""
        return _mean([ours / max(1, dense) for ours, dense in self.costs[name]])

    def theoretical(self) -> float | None:
        """Dense MACs / MACs, mean over seeds."""
        return _mean([dense / max(1, ours) for ours, dense in self.costs["macs"]])

    @functools.cached_property
    def scores(self) -> dict[int, float]:
        """The headline metric's value by seed."""
        return headline(self.counted)

    @functools.cached_property
    def val_scores(self) -> dict[int, float]:
        """The same on the validation images."""
        return {r.cell["seed"]: next(iter(r.val_quality.values())).value for r in self.counted if r.val_quality}

    @functools.cached_property
    def values(self) -> list[float]:
        """The same of each network: of seeds that gave one network, as published weights do, once."""
        return list(headline(distinct(self.counted)).values())

    @functools.cached_property
    def quality(self) -> Summary | None:
        """Of the headline metric, over networks."""
        return summarise(self.values) if self.values else None

    @functools.cached_property
    def difference(self) -> Difference | None:
        """Paired to the dense network of the same seed."""
        return None if self.is_dense else compared(self.counted, self.dense.values())

    @functools.cached_property
    def sign(self) -> int:
        """1 where more of the headline metric is better, -1 where less is."""
        return sign(self.first)

    @property
    def point(self) -> str:
        """What must be equal for two rows of one heading to be compared: the budget."""
        return digest(self.first.cell["budget"])

    @property
    def is_control(self) -> bool:
        """Whether this is one of the methods that every other has to beat; the dense network is not."""
        return not self.is_dense and "control" in self.fidelity

    @property
    def fidelity(self) -> tuple[str, ...]:
        """What the code follows on this family of tasks; what a card says of the other families is left out."""
        others = FAMILIES - {self.first.cell["task"]["family"]}
        said: Mapping[str, str] = self.first.cell["method"].get("fidelity", {})
        return tuple(sorted({kind for part, kind in said.items() if part not in others}))

    @property
    def method(self) -> str:
        """The label, the version once there has been more than one, and what else parts it from its namesakes."""
        method = self.first.cell["method"]
        version = f" v{method['version']}" if method["version"] > 1 else ""
        return f"{method['label']}{version}" + (f" [{self.apart}]" if self.apart else "")


def newest(versions: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Of names with their versions, the last of each name."""
    found: dict[str, int] = {}
    for name, version in versions:
        found[name] = max(version, found.get(name, version))
    return found


_FIELDS = ("macs", "params", "nonzero", "bytes")
_fields = operator.attrgetter(*_FIELDS)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def distinct(records: Iterable[Record]) -> list[Record]:
    """Of records whose networks are equal to the bit, the first."""
    found: dict[str, Record] = {}
    for record in records:
        found.setdefault(network(record), record)
    return list(found.values())


def network(record: Record) -> str:
    """What networks that are equal to the bit share."""
    return record.artifact or record.id


def distinct_pairs(*sides: Iterable[Record]) -> list[dict[int, Record]]:
    """Each side by seed, without the seeds at which two of the sides have the two networks of a seed before."""
    by_seed = [{record.cell["seed"]: record for record in side} for side in sides]
    known: set[tuple[tuple[int, str], ...]] = set()
    kept: list[int] = []
    for seed in sorted({seed for side in by_seed for seed in side}):
        pairs = set(combinations([(i, network(side[seed])) for i, side in enumerate(by_seed) if seed in side], 2))
        if known.isdisjoint(pairs):
            known |= pairs
            kept.append(seed)
    return [{seed: side[seed] for seed in kept if seed in side} for side in by_seed]


def compared(ours: Iterable[Record], theirs: Iterable[Record]) -> Difference | None:
    """Ours - theirs of the headline metric, paired by seed: the same two networks are one pair, at whatever seeds."""
    return paired(*(headline(side.values()) for side in distinct_pairs(ours, theirs)))


def headline(records: Iterable[Record]) -> dict[int, float]:
    """The first metric's value by seed."""
    return {r.cell["seed"]: next(iter(r.quality.values())).value for r in records if r.quality}


def sign(record: Record) -> int:
    """1 where more of a record's headline metric is better, -1 where less is: its task's metric says so."""
    return -1 if next(iter(record.quality), None) in record.cell["task"].get("lower_is_better", ()) else 1


def rows(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> dict[str, list[Row]]:
    """Rows by heading (task, network, training settings), dense first, then by resource, keep and method."""
    records = [record for record in records if not record.cell.get("inner")]  # a search's own, never scored on test
    by_id = {record.id: record for record in records}
    timed: dict[str, dict[Column, Measurement]] = defaultdict(dict)
    refused: dict[str, list[str]] = defaultdict(list)
    for m in sorted(measurements, key=lambda m: (m.finished, m.id)):
        if m.measurement:
            timed[m.cell_id][column(m)] = m.measurement
        else:
            refused[m.cell_id].append(f"not measured on {m.profile['label']}: {m.reason}")
    groups: dict[str, dict[tuple[Any, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    places: dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]] = {}
    for record in records:
        key = _objects(record)
        if key not in places:
            places[key] = heading(record), what(record)
        name, kind = places[key]
        groups[name][kind].append(record)
    table: dict[str, list[Row]] = {}
    for name, group in sorted(groups.items()):
        made = [_row(part, by_id, timed, refused) for part in group.values()]
        table[name] = sorted(_told_apart(made), key=place)
    return table


def _told_apart(made: Sequence[Row]) -> list[Row]:
    """Rows of one label that other fields or sources made say which."""
    labels: dict[str, list[Row]] = defaultdict(list)
    for row in made:
        labels[row.method].append(row)
    return [row for alike in labels.values() for row in _named(alike)]


def _named(alike: list[Row]) -> list[Row]:
    fields = [row.first.cell["method"] | _sources(row) for row in alike]
    shared = set.intersection(*(set(own) for own in fields)) - {"is", "label", "version", "fidelity"}
    parting = [name for name in sorted(shared) if len({digest(own[name]) for own in fields}) > 1]
    if not parting:
        return alike
    words = [", ".join(f"{name}={own[name]}" for name in parting) for own in fields]
    return [replace(row, apart=said) for row, said in zip(alike, words, strict=True)]


def _sources(row: Row) -> dict[str, str]:
    """Of a user's files, in six digits; records of before do not tell it."""
    users = row.first.cell.get("user")
    return {"source": digest(users)[:6] if users else "not told"}


def _objects(record: Record) -> tuple[Any, ...]:
    """What two records share as objects: where it is all but the seed, ``what`` and ``heading`` are equal."""
    return (*record.cell, *[id(part) for name, part in record.cell.items() if name != "seed"])


def what(record: Record) -> tuple[Any, ...]:
    """What is equal for all seeds of a method at an operating point: everything of a cell but the seed."""
    parts = sorted((name, part) for name, part in record.cell.items() if name != "seed")
    return tuple((name, digest_of_shared(part) if isinstance(part, dict) else str(part)) for name, part in parts)


_COMMON = {"is", "network", "recipe", "weights", "version", "label", "family", "lower_is_better"}


def heading(record: Record) -> str:
    """What must be equal for two rows to be compared: task, network, recipe, weights, data and training settings."""
    cell = record.cell
    settings, (name, version) = cell["settings"], _on(cell["task"])
    how = f"{settings['precision']} on {settings['device']}, {settings['threads']} thread(s)"
    version = version.format(engine=cell["engine"])
    return f"{name}; trained in {how}; {version}, data {digest(cell['data'])[:6]}"


_WORDS = re.compile(r" \(|\): |: |; (?:trained in )?|, (?![^\[]*\])")  # between a heading's parts; lists stay whole


def short(headings: Iterable[str]) -> dict[str, str]:
    """Headings by task and network alone, and in brackets what parts one from others of these."""
    alike: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for name in dict.fromkeys(headings):
        label, *parts = _WORDS.split(name)
        alike[label][name] = parts
    found: dict[str, str] = {}
    for label, group in alike.items():
        shared = set.intersection(*map(set, group.values()))
        for name, parts in group.items():
            own = ", ".join(part for part in parts if part not in shared)
            found[name] = f"{label} ({own})" if own else label
    return found


@remembered
def _on(task: Mapping[str, Any]) -> tuple[str, str]:
    """A heading's words on a task, and on its version."""
    recipe = {k: v for k, v in task["recipe"].items() if k != "is"}
    trained = f"published weights {task['weights']!r}" if task.get("weights") else f"{recipe['epochs']:g} dense epochs"
    own = ", ".join(f"{k}={v}" for k, v in task.items() if k not in _COMMON)
    version = f"task version {task['version']}, engine {{engine}}, recipe {digest(recipe)[:6]}"
    return f"{task['label']}{f' ({own})' if own else ''}: {trained}", version


def column(record: MeasurementRecord) -> Column:
    """The column that a measurement belongs in, and the caption that makes it readable."""
    m, env = record.measurement, record.environment
    assert m is not None
    print_of = digest(machine_in(env))[:6]
    shape = "x".join(str(n) for n in m.input_shape[1:])
    caption = (
        f"median of {m.samples} forward passes of batch {m.batch} x {shape}, "
        f"{m.threads} thread(s), batch norm folded on both sides, on "
        f"{m.device.get('name') or '{cpu} ({cores} cores)'.format(**env)}, "
        f"{m.device.get('runtime') or 'torch ' + env['versions']['torch']}; interval: 95 % bootstrap of "
        + ("this session" if m.processes == 1 else f"{m.processes} processes and their rounds")
    )
    label = str(record.profile["label"]) + (f" v{version}" if (version := record.profile["version"]) > 1 else "")
    return Column(label, m.level, print_of, shape, caption)


def _row(part: list[Record], by_id: Mapping[str, Record], timed: Mapping[str, Any], refused: Mapping[str, Any]) -> Row:
    part.sort(key=lambda r: (r.cell["seed"], r.id))
    dense = {r.cell["seed"]: of_it for r in part if (of_it := by_id.get(r.reference))}
    why = dict.fromkeys(reason for record in part for reason in refused.get(record.id, ()))
    row = Row(tuple(part), dense, {}, tuple(why))
    measured: dict[Column, dict[str, Measurement]] = {}
    for record in row.counted:
        for c, measurement in timed.get(record.id, {}).items():
            known = measured.setdefault(c, {})
            if not any(measurement is one for one in known.values()):  # seeds of one network share its timing
                known[record.id] = measurement
    return replace(row, measured=measured)


def place(row: Row) -> tuple[Any, ...]:
    """What rows of one heading are sorted by: dense first, then resource, keep and method."""
    budget = row.first.cell["budget"]
    return (not row.is_dense, budget["resource"], -budget["keep"], row.method, row.first.id)
