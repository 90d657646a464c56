"""Tables and the records that they were made of go in; what does not add up comes out.

Nothing here shares a line with what made the tables: means, deviations, deltas, ratios, intervals and ranks are worked
out again from the records, and the printed texts are read back.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from slimbench.core import unpack
from slimbench.reports import audit_tuned
from slimbench.reports._text import BOLD, PLAIN
from slimbench.reports.audit_tuned import Tried
from slimbench.statistics import ENOUGH_SEEDS, student_t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import MeasurementRecord, Record, Scores
    from slimbench.reports.table import Table

    Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something that does not add up, and where."""

    where: str
    what: str

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.where}: {self.what}"


# ------------------------------------------------------------------------------------------------------ records


def records(found: Iterable[Record]) -> list[Problem]:
    """What is wrong inside single records: scores that are not what was divided, counts that cannot be."""
    return [Problem(record.id, what) for record in found for what in _record(record)]


def _record(record: Record) -> Iterator[str]:
    for name, scores in (*record.quality.items(), *record.val_quality.items()):
        yield from (f"{name} {what}" for what in _scores(scores, name))
    if cost := record.cost:
        if not 0 <= cost.prunable_nonzero <= cost.nonzero <= cost.params:
            yield f"{cost.params} params, {cost.nonzero} nonzero, {cost.prunable_nonzero} of them prunable: impossible"
        if cost.macs <= 0:
            yield "no MACs"
    if record.status == "ok" and not record.cost:
        yield "ok, but nothing was counted"


def _scores(scores: Scores, name: str) -> Iterator[str]:
    """A mean over samples has its numerator and denominator; mIoU has none and is left alone."""
    samples = unpack(scores.per_sample)
    if len(samples) != scores.denominator or not samples:
        return
    if not math.isclose(sum(samples), scores.numerator, rel_tol=1e-4, abs_tol=1e-6):
        yield f"has samples that sum to {sum(samples):g}, and says {scores.numerator:g}"
    mean = scores.numerator / scores.denominator
    if not any(math.isclose(scores.value, scale * mean, rel_tol=1e-6) for scale in (1, 100)):
        yield f"is {scores.value:g}, and {scores.numerator:g} / {scores.denominator:g} is {mean:g}"


# ------------------------------------------------------------------------------------------------------- tables


def tables(
    found: Iterable[Table], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> list[Problem]:
    """What does not follow from the records, or is not printed as it is."""
    every = list(found)
    printed = [Problem(table.title, what) for table in every for what in _printed(table)]
    known = _Known(records, measurements)
    return [p for table in every for p in _against(table.facts, known)] + printed


def against(
    facts: Sequence[Facts], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> list[Problem]:
    """What of the figures of one table does not follow from the records: of results, and of findings about claims."""
    return _against(facts, _Known(records, measurements))


class _Known:
    """Records by id, and by the cell's id what was timed of it; a row's ids, as it says them, give what it counts."""

    def __init__(self, records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> None:
        self.by_id = {record.id: record for record in records}
        self.timed: dict[str, list[MeasurementRecord]] = defaultdict(list)
        for m in measurements:
            if m.measurement:
                self.timed[m.cell_id].append(m)
        self._seen: dict[str, tuple[list[Record], dict[int, float]]] = {}

    @functools.cached_property
    def tried(self) -> Tried:
        """Records by what they share but for the rate of repair."""
        return Tried(self.by_id.values())

    def counted(self, ids: str) -> list[Record]:
        """Those that met their budget; where none did, those that missed it."""
        return self._of(ids)[0]

    def values(self, ids: str) -> dict[int, float]:
        """The headline metric's value by seed, of those that count."""
        return self._of(ids)[1]

    def _of(self, ids: str) -> tuple[list[Record], dict[int, float]]:
        if ids not in self._seen:
            made = [record for name in ids.split() if (record := self.by_id.get(name)) and record.cost]
            counted = [record for record in made if record.status == "ok"] or made
            self._seen[ids] = counted, _values(counted)
        return self._seen[ids]

    def is_less_better(self, line: Facts) -> bool:
        """By the task of the records behind a line."""
        tasks = [record.cell["task"] for record in self.counted(line["ids"])[:1]]
        return any(line["metric"] in task.get("lower_is_better", ()) for task in tasks)


def _against(facts: Sequence[Facts], known: _Known) -> list[Problem]:
    results = [line for line in facts if line.get("group")]
    found = [Problem(_where(line), what) for line in results for what in _line(line, known)]
    found += [Problem(_where(line), what) for line, what in _ranks(results, known)]
    found += [Problem(_where(line), what) for line, what in _choices(results, known)]
    return found + [Problem(str(line["claim"]), what) for line in facts if "gap" in line for what in _finding(line)]


def _choices(results: Sequence[Facts], known: _Known) -> Iterator[tuple[Facts, str]]:
    """Of rates of repair, where a table says that they were chosen."""
    groups: dict[str, list[Facts]] = defaultdict(list)
    for line in results:
        if line.get("repair_tries"):
            groups[line["group"]].append(line)
    for group in groups.values():
        yield from audit_tuned.problems(group, known.tried, any(map(known.is_less_better, group)))


def _where(line: Facts) -> str:
    return f"{str(line['group']).partition(':')[0]} {line['method']} {line['keep_asked']:g} {line['resource']}"


def _line(line: Facts, known: _Known) -> Iterator[str]:
    by_id, ids = known.by_id, line["ids"].split()
    if missing := [name for name in ids if name not in by_id]:
        yield f"no record {', '.join(missing)}"
        return
    counted, values = known.counted(line["ids"]), known.values(line["ids"])
    yield from _same(line, "n", len(values))
    scores = np.array(list(values.values()))
    costs = np.array([(r.cost.macs, r.cost.params, r.cost.nonzero) for r in counted], dtype=np.float64).reshape(-1, 3)  # type: ignore[union-attr]
    whole = np.array([(r.dense_cost.macs, r.dense_cost.params) for r in counted], dtype=np.float64).reshape(-1, 2)  # type: ignore[union-attr]
    named = {
        **dict(zip(("macs", "params", "nonzero"), costs.T, strict=True)),
        **dict(zip(("macs_kept", "params_kept"), (costs[:, :2] / np.maximum(1, whole)).T, strict=True)),
        "theoretical_speedup": whole[:, 0] / np.maximum(1, costs[:, 0]),
    }
    yield from _same(line, "mean", float(scores.mean()) if len(scores) else None)
    yield from _same(line, "sd", float(scores.std(ddof=1)) if len(scores) > 1 else None)
    for name, figures in named.items():
        yield from _same(line, name, float(figures.mean()) if len(figures) else None)
    if not line["is_dense"]:
        dense = _values([of_it for r in counted if (of_it := by_id.get(r.reference))])
        yield from _delta(line, "difference", values, dense)
    if line.get("area") is not None:
        yield from _area(line, by_id)
    if line.get("measured_speedup") is not None:
        yield from _speed(line, [m for name in ids for m in known.timed.get(name, ())])


def _values(found: Iterable[Record]) -> dict[int, float]:
    return {r.cell["seed"]: next(iter(r.quality.values())).value for r in found if r.quality}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _same(line: Facts, name: str, right: float | None) -> Iterator[str]:
    """Nothing where both are alike; relative to the larger, 1e-9."""
    said = line[name]
    if (said is None) != (right is None) or (right is not None and not math.isclose(said, right, rel_tol=1e-9)):
        yield f"{name} is {said}, and by the records {right}"


def _delta(line: Facts, name: str, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Iterator[str]:
    pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    yield from _close(line, name, _mean(pairs))
    if len(pairs) > 1:
        half = student_t(len(pairs) - 1) * float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))
        mean = sum(pairs) / len(pairs)
        yield from _close(line, f"{name}_low", mean - half)
        yield from _close(line, f"{name}_high", mean + half)


def _area(line: Facts, by_id: Mapping[str, Record]) -> Iterator[str]:
    """The area under a curve, of each seed's records as a sum of strips, and its interval."""
    curves: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for name in line["area_ids"].split():
        if (record := by_id.get(name)) is None or not record.cost or not record.dense_cost:
            yield f"the area under its curve has no record {name}"
            return
        kept = record.cost.macs / record.dense_cost.macs
        curves[record.cell["seed"]].append((kept, next(iter(_values([record]).values()))))
    means = []
    for points in map(sorted, curves.values()):
        strips = [(right - left, (a + b) / 2) for (left, a), (right, b) in pairwise(points)]
        means.append(sum(width * height for width, height in strips) / sum(width for width, _ in strips))
    yield from _close(line, "area", _mean(means))
    if len(means) > 1:
        half = student_t(len(means) - 1) * float(np.std(means, ddof=1)) / math.sqrt(len(means))
        yield from _close(line, "area_low", sum(means) / len(means) - half)
        yield from _close(line, "area_high", sum(means) / len(means) + half)


def _close(line: Facts, name: str, right: float | None) -> Iterator[str]:
    """As ``_same``, for differences, whose digits cancel."""
    said = line[name]
    if (said is None) != (right is None) or (right is not None and not math.isclose(said, right, abs_tol=1e-9)):
        yield f"{name} is {said}, and by the records {right}"


def _speed(line: Facts, taken: Sequence[MeasurementRecord]) -> Iterator[str]:
    """The measured ratio lies in its interval, is one of the records', and is about dense / compressed latency."""
    ratio, low, high = line["measured_speedup"], line["measured_low"], line["measured_high"]
    if not low <= ratio <= high:
        yield f"measured speed-up {ratio:g} lies outside its interval [{low:g}, {high:g}]"
    ratios = [m.measurement.ratio for m in taken if m.measurement]
    if not ratios or not min(ratios) <= ratio <= max(ratios):
        yield f"measured speed-up {ratio:g} is of no record"
    times = line["dense_p50_ms"] / line["p50_ms"]
    if line["measured_seeds"] == 1 and not 0.8 < times / ratio < 1.25:
        yield f"measured speed-up {ratio:g}, and the latencies divide to {times:g}"


def _ranks(found: Sequence[Facts], known: _Known) -> Iterator[tuple[Facts, str]]:
    """Controls, tiers and what is bold, among rows of one heading and budget."""
    points: dict[tuple[Any, ...], dict[str, Facts]] = defaultdict(dict)
    for line in found:
        if not line["is_dense"]:
            budget = (line["resource"], line["keep_asked"], line["params_keep_asked"], line["epochs_asked"])
            points[line["group"], *budget][line["ids"]] = line
    for part in points.values():
        made = [f for f in part.values() if f["mean"] is not None]
        scored = sorted(made, key=lambda f: f["mean"], reverse=not any(map(known.is_less_better, made)))
        for line in scored:
            if line["control"]:
                yield from ((line, what) for what in _against_control(line, scored, known))
            if line["is_best"] and (line is not scored[0] or line["n"] < ENOUGH_SEEDS):
                yield line, "is marked best, and is not, or of fewer than six seeds"
        tiers = [f["tier"][0] for f in scored if f["tier"]]
        if tiers != sorted(tiers):
            yield scored[0], f"tiers {' '.join(tiers)} do not follow the means"


def _against_control(line: Facts, scored: Sequence[Facts], known: _Known) -> Iterator[str]:
    """The difference to the control, and that no control in the table is better than it."""
    methods = {record.cell["method"]["label"] for record in known.counted(line["control_ids"])}
    if not methods <= {line["control"].partition(" v")[0]}:
        yield f"the control {line['control']} has records of another method"
    theirs = known.values(line["control_ids"])
    yield from _delta(line, "control_difference", known.values(line["ids"]), theirs)
    mean = _mean(list(theirs.values()))
    rivals = [f for f in scored if "control" in f["fidelity"] and f["status"] == "ok" and f is not line]
    turn = -1 if known.is_less_better(line) else 1
    if mean is not None and any(turn * (f["mean"] - mean) > 1e-9 for f in rivals):
        yield f"a control in the table is better than {line['control']}"


def _finding(line: Facts) -> Iterator[str]:
    """What is said about a claim."""
    if line["claimed"] is not None and not math.isclose(line["gap"], line["ours"] - line["claimed"], abs_tol=1e-9):
        yield f"the gap is {line['gap']:g}, and ours - claimed is {line['ours'] - line['claimed']:g}"
    if line["low"] is not None and not line["low"] <= line["ours"] <= line["high"]:
        yield f"{line['ours']:g} lies outside its interval"


# --------------------------------------------------------------------------------------------------------- texts

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_READ = {"Δ dense": "difference", "Δ best control": "control_difference", "theoretical speed-up": "theoretical_speedup"}


def _printed(table: Table) -> Iterator[str]:
    """Whether the cells say what the facts say."""
    facts = list({line["ids"]: line for line in table.facts if line.get("group")}.values())
    if table.level != 3 or len(facts) != len(table.body):
        return  # a table of other things, or of several tasks
    for line, row in zip(facts, table.body, strict=True):
        texts = dict(zip(table.heads, (entry.text for entry in row), strict=True))
        for head, text in texts.items():
            name = "mean" if head.endswith("mean ± sd (n)") else _READ.get(head)
            if name:
                yield from _reads(f"{line['method']}, {head}", text, line[name])
        quality = next((text for head, text in texts.items() if head.endswith("mean ± sd (n)")), "")
        if BOLD in quality and not line["is_best"]:
            yield f"{line['method']} is bold, and not beyond the spread"


def _reads(where: str, text: str, value: float | None) -> Iterator[str]:
    first = _NUMBER.search(text.replace(BOLD, "").replace(PLAIN, ""))
    if (first is None) != (value is None):
        yield f"{where}: {text!r} is printed for {value}"
    elif first and value is not None:
        digits = len(first[0].partition(".")[2])
        if abs(float(first[0]) - value) > 0.5 * 10**-digits * (1 + 1e-9):
            yield f"{where}: {first[0]} is printed for {value:g}"
