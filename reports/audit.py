"""Tables and the records that they were made of go in; what does not add up comes out.

Nothing here shares a line with what made the tables: means, deviations, deltas, ratios, intervals and ranks are worked
out again from the records, and the printed texts are read back.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from slimbench.core import unpack
from slimbench.identity import digest
from slimbench.reports import audit_claims, audit_text, audit_tiers, audit_tuned
from slimbench.reports.audit_records import gaps, half_width, headline, is_of, of_cells, once
from slimbench.reports.audit_tuned import Tried
from slimbench.reports.rows import FAMILIES
from slimbench.statistics import ENOUGH_SEEDS, student_t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import Measurement, MeasurementRecord, Record, Scores
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
    for quality in (record.quality, record.val_quality):
        yield from (f"{name} {what}" for name, scores in quality.items() for what in _scores(scores, name))
        if {"mIoU", "pixel_accuracy"} <= quality.keys():
            yield from _areas(quality["mIoU"], quality["pixel_accuracy"])
    if cost := record.cost:
        if not 0 <= cost.prunable_nonzero <= cost.nonzero <= cost.params:
            yield f"{cost.params} params, {cost.nonzero} nonzero, {cost.prunable_nonzero} of them prunable: impossible"
        if cost.macs <= 0:
            yield "no MACs"
    if record.status == "ok" and not record.cost:
        yield "ok, but nothing was counted"


_DIVIDED = ("top1", "mIoU", "pixel_accuracy", "psnr", "ssim")  # how names of our metrics begin: each is a quotient


def _scores(scores: Scores, name: str) -> Iterator[str]:
    """A quotient is what was divided, and a mean over samples has their sum; a user's own metric may be neither."""
    samples = unpack(scores.per_sample)
    is_mean = bool(samples) and len(samples) == scores.denominator
    if scores.denominator and (is_mean or name.startswith(_DIVIDED)):
        mean = scores.numerator / scores.denominator
        if not any(math.isclose(scores.value, scale * mean, rel_tol=1e-6) for scale in (1, 100)):
            yield f"is {scores.value:g}, and {scores.numerator:g} / {scores.denominator:g} is {mean:g}"
    if is_mean and not math.isclose(sum(samples), scores.numerator, rel_tol=1e-4, abs_tol=1e-6):
        yield f"has samples that sum to {sum(samples):g}, and says {scores.numerator:g}"


def _areas(miou: Scores, accuracy: Scores) -> Iterator[str]:
    """Intersections and unions of each image's classes, summed over the images: what both metrics are made of."""
    n, areas = len(unpack(accuracy.per_sample)), np.array(unpack(miou.per_sample), dtype=np.float64)
    if not n or not len(areas):
        return  # a task of somebody's own that keeps none
    if len(areas) % (2 * n):
        yield f"mIoU has {len(areas)} areas of {n} images"
        return
    both, either = areas.reshape(n, 2, -1).sum(0)
    iou = float((both[either > 0] / either[either > 0]).sum())
    for name, said, right in (("mIoU", miou.numerator, iou), ("pixel_accuracy", accuracy.numerator, float(both.sum()))):
        if not math.isclose(said, right, rel_tol=1e-6):
            yield f"{name} says {said:g}, and its images' areas give {right:g}"


# ------------------------------------------------------------------------------------------------------- tables


def tables(
    found: Iterable[Table], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> list[Problem]:
    """What does not follow from the records, or is not printed as it is."""
    every = list(found)
    known = Known(records, measurements)
    printed = [Problem(table.title, what) for table, what in audit_text.problems(every, known)]
    return [p for table in every for p in _against(table.facts, known)] + printed


def against(
    facts: Sequence[Facts], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> list[Problem]:
    """What of the figures of one table does not follow from the records: of results, and of findings about claims."""
    return _against(facts, Known(records, measurements))


class Known:
    """Records by id, and by the cell's id what was timed of it; a row's ids, as it says them, give what it counts."""

    def __init__(self, records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> None:
        self.by_id = {record.id: record for record in records}
        self._timed: dict[tuple[str, str, str], Measurement] = {}
        self.refused: dict[str, list[str]] = defaultdict(list)
        for m in sorted(measurements, key=lambda m: (m.finished, m.id)):
            if m.measurement:
                self._timed[m.cell_id, *_way(m)] = m.measurement
            else:
                self.refused[m.cell_id].append(f"not measured on {m.profile['label']}: {m.reason}")
        self._seen: dict[str, list[Record]] = {}

    @functools.cached_property
    def tried(self) -> Tried:
        """Records by what they share but for the rate of repair."""
        return Tried(self.by_id.values())

    def counted(self, ids: str) -> list[Record]:
        """Those that met their budget; where none did, those that missed it."""
        if ids not in self._seen:
            made = [record for name in ids.split() if (record := self.by_id.get(name)) and record.cost]
            self._seen[ids] = [record for record in made if record.status == "ok"] or made
        return self._seen[ids]

    def timed(self, of: Iterable[Record], profile: str, machine: str) -> list[tuple[Record, Measurement]]:
        """Those with the last of each by one profile, at its level, on one machine; one that several share once."""
        found = [(record, m) for record in of if (m := self._timed.get((record.id, profile, machine)))]
        return list({id(m): (record, m) for record, m in reversed(found)}.values())[::-1]

    def timings(self, of: Iterable[Record], profile: str, machine: str) -> list[Measurement]:
        """The timings alone."""
        return [m for _, m in self.timed(of, profile, machine)]

    def unsaid(self, line: Facts) -> dict[str, Any]:
        """What tables print of a row and no fact says: bytes, the shares that were kept, networks of each metric."""
        counted = self.counted(line["ids"])
        kept = [100 * record.kept(line["resource"]) for record in counted]
        metrics = [name.removeprefix("mean of ") for name in line if name.startswith("mean of ")]
        networks = once(counted) if metrics else []
        return {
            "bytes": _mean([record.cost.bytes for record in counted if record.cost]),
            "least_kept": min(kept, default=None),
            "most_kept": max(kept, default=None),
            **{f"n of {name}": sum(name in record.quality for record in networks) for name in metrics},
        }

    def decided(self, claim: str, found: Sequence[Facts]) -> tuple[list[Facts], str]:
        """Of the findings about a claim those that decide, and what they decide."""
        return audit_claims.decided(claim, found, self.by_id)

    def is_less_better(self, line: Facts) -> bool:
        """By the task of the records behind a line."""
        tasks = [record.cell["task"] for record in self.counted(line["ids"])[:1]]
        return any(line["metric"] in task.get("lower_is_better", ()) for task in tasks)


def _way(m: MeasurementRecord) -> tuple[str, str]:
    """How tables name a profile with its level, and the machine."""
    version, level = m.profile["version"], m.measurement.level if m.measurement else ""
    versions = {name: value for name, value in m.environment["versions"].items() if name != "slimbench"}
    machine = {name: value for name, value in m.environment.items() if name != "commit"} | {"versions": versions}
    return f"{m.profile['label']}{f' v{version}' * (version > 1)} {level}", digest(machine)[:6]


def _against(facts: Sequence[Facts], known: Known) -> list[Problem]:
    results = [line for line in facts if line.get("group")]
    found = [Problem(_where(line), what) for line in results for what in _line(line, known)]
    found += [Problem(_where(line), what) for line, what in _ranks(results, known)]
    found += [Problem(_where(line), what) for line, what in _choices(results, known)]
    found += [
        Problem(str(line["claim"]), what) for line in facts if "claim" in line for what in audit_claims.told(line)
    ]
    about = [line for line in facts if "gap" in line]
    found += [
        Problem(str(line["claim"]), what)
        for line in about
        for what in audit_claims.problems(line, known.by_id, known.timings)
    ]
    return found


def _choices(results: Sequence[Facts], known: Known) -> Iterator[tuple[Facts, str]]:
    """Of rates of repair, where a table says that they were chosen."""
    groups: dict[str, list[Facts]] = defaultdict(list)
    for line in results:
        if line.get("repair_tries"):
            groups[line["group"]].append(line)
    for group in groups.values():
        yield from audit_tuned.problems(group, known.tried, any(map(known.is_less_better, group)))


def _where(line: Facts) -> str:
    return f"{str(line['group']).partition(':')[0]} {line['method']} {line['keep_asked']:g} {line['resource']}"


def _line(line: Facts, known: Known) -> Iterator[str]:
    by_id, ids = known.by_id, line["ids"].split()
    if missing := [name for name in ids if name not in by_id]:
        yield f"no record {', '.join(missing)}"
        return
    found = [by_id[name] for name in ids]
    yield from of_cells(line, found)
    yield from _ends(line, found, known)
    counted = known.counted(line["ids"])
    if len(counted) > len({record.cell["seed"] for record in counted}):
        yield "has two records of one seed"
    scores = np.array(list(_values(once(counted)).values()))
    yield from _same(line, "n", len(scores))
    costs = np.array([(r.cost.macs, r.cost.params, r.cost.nonzero) for r in counted], dtype=np.float64).reshape(-1, 3)  # type: ignore[union-attr]
    whole = np.array([(r.dense_cost.macs, r.dense_cost.params) for r in counted], dtype=np.float64).reshape(-1, 2)  # type: ignore[union-attr]
    named = {
        **dict(zip(("macs", "params", "nonzero"), costs.T, strict=True)),
        **dict(zip(("macs_kept", "params_kept"), (costs[:, :2] / np.maximum(1, whole)).T, strict=True)),
        "theoretical_speedup": whole[:, 0] / np.maximum(1, costs[:, 0]),
    }
    yield from _same(line, "mean", float(scores.mean()) if len(scores) else None)
    yield from _same(line, "sd", float(scores.std(ddof=1)) if len(scores) > 1 else None)
    named |= {"kept": np.array([r.kept(line["resource"]) for r in counted], dtype=np.float64)}
    for name, figures in named.items():
        yield from _same(line, name, float(figures.mean()) if len(figures) else None)
    yield from _others(line, counted)
    yield from _epochs(line, counted)
    dense = [] if line["is_dense"] else [of_it for r in counted if (of_it := by_id.get(r.reference))]
    yield from _delta(line, "difference", counted, dense)
    yield from _close(line, "detectable", _detectable(gaps(counted, dense)))
    control = known.counted(line["control_ids"] or "")
    yield from _delta(line, "control_difference", counted, control)
    if not all(is_of(line["control"] or "", record.cell["method"]["label"]) for record in control):
        yield f"the control {line['control']} has records of another method"
    yield from _claimed(line, found)
    if "area" in line:
        yield from _area(line, by_id)
    if line.get("measured_speedup") is not None:
        yield from _speed(line, known.timed(counted, line["profile"], line["machine"]))


def _ends(line: Facts, found: Sequence[Record], known: Known) -> Iterator[str]:
    """How the seeds ended, and why; what they could not be timed by; and what the method follows on such a task."""
    ends = [record.status for record in found]
    said = ", ".join(f"{end} {ends.count(end)}/{len(ends)}" for end in sorted(set(ends)))
    cell = found[0].cell
    follows = cell["method"].get("fidelity", {}).items()
    right = {
        "fidelity": ", ".join(sorted({kind for on, kind in follows if on not in FAMILIES - {cell["task"]["family"]}})),
        "refused": "; ".join(dict.fromkeys(why for record in found for why in known.refused.get(record.id, ()))),
        "status": "ok" if set(ends) == {"ok"} else said,
        "reasons": "; ".join(dict.fromkeys(record.reason for record in found if record.status != "ok")),
    }
    for name, value in right.items():
        if str(line[name] or "") != value:
            yield f"{name} is {line[name]!r}, and by the records {value!r}"


def _others(line: Facts, counted: Sequence[Record]) -> Iterator[str]:
    """Mean and deviation of the metrics beside the headline."""
    for name in line:
        if name.startswith("mean of "):
            metric = name.removeprefix("mean of ")
            values = [r.quality[metric].value for r in once(counted) if metric in r.quality]
            yield from _same(line, name, _mean(values))
            yield from _same(line, f"sd of {metric}", float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _epochs(line: Facts, counted: Sequence[Record]) -> Iterator[str]:
    """Those of the first seed that counts; of published weights nobody says how many."""
    if counted:
        spent = counted[0].spent
        right: dict[str, Any] = {
            f"{n}_epochs": getattr(spent, f"{n}_epochs") for n in ("dense", "search", "compression")
        }
        right["weights"] = None if right["dense_epochs"] is not None else _weights(counted[0])
        right["offline"] = spent.offline or None
        said = {name: None if line.get(name) == "" else line.get(name) for name in right}  # a CSV may have no weights
        yield from (f"{name} is {said[name]}, and by the records {r}" for name, r in right.items() if said[name] != r)


def _claimed(line: Facts, found: Sequence[Record]) -> Iterator[str]:
    """Of the dense network what its weights' publisher says, of a method what one of the papers does."""
    if line["is_dense"]:
        yield from _same(line, "claimed", found[0].published.get("claimed"))
    elif line["claimed"] is not None and not audit_claims.is_claimed(line["claimed"], line["claimed_note"]):
        yield f"claimed is {line['claimed']}, {line['claimed_note']}, and no paper says so"


def _weights(record: Record) -> str:
    return record.cell["task"].get("weights") or "published"


def _values(found: Iterable[Record]) -> dict[int, float]:
    return {r.cell["seed"]: next(iter(r.quality.values())).value for r in found if r.quality}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _same(line: Facts, name: str, right: float | None) -> Iterator[str]:
    """Nothing where both are alike; relative to the larger, 1e-9."""
    said = line[name]
    if (said is None) != (right is None) or (right is not None and not math.isclose(said, right, rel_tol=1e-9)):
        yield f"{name} is {said}, and by the records {right}"


def _delta(line: Facts, name: str, ours: Sequence[Record], theirs: Sequence[Record]) -> Iterator[str]:
    found = gaps(ours, theirs)
    yield from _interval(line, name, found)
    few = len(found) < ENOUGH_SEEDS if found else None
    if line[f"{name}_indicative"] != few:
        yield f"{name}_indicative is {line[f'{name}_indicative']}, of {len(found)} pairs"


def _interval(line: Facts, name: str, values: Sequence[float]) -> Iterator[str]:
    """A mean of values, how many they are, and Student's interval; one value has none."""
    yield from _close(line, name, mean := _mean(values))
    yield from _same(line, f"{name}_n", len(values))
    half = half_width(values) if len(values) > 1 else None
    for end, sign in (("low", -1), ("high", 1)):
        yield from _close(line, f"{name}_{end}", None if mean is None or half is None else mean + sign * half)


def _detectable(pairs: Sequence[float]) -> float | None:
    """The smallest true difference that so many pairs, as far apart, show in four of five tries."""
    if len(pairs) < 2:
        return None
    quantiles = student_t(len(pairs) - 1) + student_t(len(pairs) - 1, 0.8)
    return quantiles * float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))


_POINTS = 3  # of a curve at least; the dense network is one


def _area(line: Facts, by_id: Mapping[str, Record]) -> Iterator[str]:
    """The area under a curve, of each seed's records as a sum of strips, with its interval, and what it is of."""
    curves: dict[int, list[tuple[float, float]]] = defaultdict(list)
    networks: dict[int, set[str]] = defaultdict(set)
    compared: set[tuple[Any, ...]] = set()
    for name in (line["area_ids"] or "").split():
        if (record := by_id.get(name)) is None or not record.cost or not record.dense_cost:
            yield f"the area under its curve has no record {name}"
            return
        kept = record.cost.macs / record.dense_cost.macs
        curves[record.cell["seed"]].append((kept, headline(record)))
        if record.reference:  # the dense network has none
            budget = record.cell["budget"]
            asked = budget["resource"], budget["epochs"], budget.get("params_keep")
            compared.add((record.cell["method"]["label"], *asked))
        networks[record.cell["seed"]].add(record.artifact or name)
    points = [sorted(curve) for curve in curves.values()]
    means = []
    for curve in points:
        strips = [(right - left, (a + b) / 2) for (left, a), (right, b) in pairwise(curve)]
        means.append(sum(width * height for width, height in strips) / sum(width for width, _ in strips))
    yield from _interval(line, "area", means)
    yield from _same(line, "area_points", len(points[0]) if points else None)
    yield from _close(line, "area_from", min((curve[0][0] for curve in points), default=None))
    yield from _close(line, "area_to", max((curve[-1][0] for curve in points), default=None))
    if points and (len(points[0]) < _POINTS or len(set(map(len, points))) > 1):
        yield f"the area under its curve is of {', '.join(str(len(curve)) for curve in points)} points"
    if len(set(map(frozenset, networks.values()))) < len(networks):
        yield "the area under its curve counts networks twice"
    asked = line["resource"], line["epochs_asked"], line["params_keep_asked"]
    if any(not is_of(line["method"], method) or (*more,) != asked for method, *more in compared):
        yield "the area under its curve is of other rows' records"


def _close(line: Facts, name: str, right: float | None) -> Iterator[str]:
    """As ``_same``, for differences, whose digits cancel."""
    said = line[name]
    if (said is None) != (right is None) or (right is not None and not math.isclose(said, right, abs_tol=1e-9)):
        yield f"{name} is {said}, and by the records {right}"


def _speed(line: Facts, timed: Sequence[tuple[Record, Measurement]]) -> Iterator[str]:
    """What one way of timing says of a row's networks: means of all, the widest interval, the worst noise."""
    if not timed:
        yield f"measured speed-up {line['measured_speedup']:g} is of no record"
        return
    taken = [m for _, m in timed]
    counted = [r.dense_cost.macs / max(1, r.cost.macs) for r, _ in timed if r.cost and r.dense_cost]
    peaks = [float(m.peak_bytes) for m in taken if m.peak_bytes]
    right = {
        "measured_speedup": _mean([m.ratio for m in taken]),
        "measured_low": min(m.ratio_low for m in taken),
        "measured_high": max(m.ratio_high for m in taken),
        "measured_seeds": len(taken),
        "timed_theoretical_speedup": _mean(counted),
        **{f: _mean([getattr(m, f) for m in taken]) for f in ("p50_ms", "p90_ms", "dense_p50_ms")},
        "noise": max(m.noise for m in taken),
        "threads": taken[0].threads,
        "peak_bytes": _mean(peaks),
    }
    for name, value in right.items():
        yield from _same(line, name, value)
    if (line["disturbed"] or "") != (other := "; ".join(m.disturbed for m in taken if m.disturbed)):
        yield f"disturbed is {line['disturbed']!r}, and by the records {other!r}"
    if not line["measured_low"] <= line["measured_speedup"] <= line["measured_high"]:
        yield f"measured speed-up {line['measured_speedup']:g} lies outside its interval"
    times = line["dense_p50_ms"] / line["p50_ms"]
    if len(taken) == 1 and not 0.8 < times / line["measured_speedup"] < 1.25:
        yield f"measured speed-up {line['measured_speedup']:g}, and the latencies divide to {times:g}"


def _ranks(found: Sequence[Facts], known: Known) -> Iterator[tuple[Facts, str]]:
    """Controls, tiers and what is bold, among rows of one heading and budget."""
    points: dict[tuple[Any, ...], dict[str, Facts]] = defaultdict(dict)
    for line in found:
        if not line["is_dense"]:
            budget = (line["resource"], line["keep_asked"], line["params_keep_asked"], line["epochs_asked"])
            points[line["group"], *budget].setdefault(line["ids"], line)  # the first is what is printed
    for part in points.values():
        made = [f for f in part.values() if f["mean"] is not None]
        scored = sorted(made, key=lambda f: f["mean"], reverse=not any(map(known.is_less_better, made)))
        for line in scored:
            if line["control"]:
                yield from ((line, what) for what in _against_control(line, scored, known))
            if line["is_best"] and (line is not scored[0] or line["n"] < ENOUGH_SEEDS):
                yield line, "is marked best, and is not, or of fewer than six seeds"
            if line["tier"] and line["n"] < ENOUGH_SEEDS:
                yield line, f"stands in tier {line['tier']}, and is of fewer than six seeds"
        yield from audit_tiers.problems([(f, known.counted(f["ids"])) for f in scored if f["tier"]])


def _against_control(line: Facts, scored: Sequence[Facts], known: Known) -> Iterator[str]:
    """That no control in the table is better than it."""
    mean = _mean(list(_values(once(known.counted(line["control_ids"]))).values()))
    rivals = [f for f in scored if "control" in f["fidelity"] and f["status"] == "ok" and f is not line]
    turn = -1 if known.is_less_better(line) else 1
    if mean is not None and any(turn * (f["mean"] - mean) > 1e-9 for f in rivals):
        yield f"a control in the table is better than {line['control']}"
