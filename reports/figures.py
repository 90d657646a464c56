"""Rows of one heading go in; every number that a table shows of them comes out, unrounded, by column name."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench.benchmarks.papers.claims import PAPERS
from slimbench.reports import _scores
from slimbench.reports.area import areas, curve_of
from slimbench.reports.rows import compared, distinct_pairs, headline
from slimbench.statistics import ENOUGH_SEEDS, detectable, tiers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.reports.area import Area
    from slimbench.reports.rows import Column, Row
    from slimbench.statistics import Difference


@dataclass(frozen=True)
class Line:
    """One row's figures; ``measured`` has those of each way of timing. None: there is no such number."""

    row: Row
    facts: Mapping[str, Any]
    measured: Mapping[Column, Mapping[str, Any]]

    def flat(self) -> list[dict[str, Any]]:
        """A dictionary for every way of timing, one at least: what CSV and JSON hold."""
        return [{**self.facts, **part} for part in self.measured.values()] or [dict(self.facts)]


def lines(name: str, group: Sequence[Row]) -> list[Line]:
    """The figures of every row. Controls and tiers are of rows with one budget."""
    points: dict[str, list[Row]] = defaultdict(list)
    for row in group:
        if not row.is_dense:
            points[row.point].append(row)
    tier = {id(row): found for part in points.values() for row, *found in _tiers(part)}
    best = {point: _best_control(part) for point, part in points.items()}
    under = areas(group)
    return [
        Line(
            row,
            _facts(name, row, None if row.is_dense else best[row.point], *tier.get(id(row), ("", False)))
            | _area(under.get(curve_of(row)) if row.is_met and not row.is_dense else None),
            {c: _measured(c, row) for c in sorted(row.measured, key=lambda c: c.place)},
        )
        for row in group
    ]


def _tiers(rows: Sequence[Row]) -> list[tuple[Row, str, bool]]:
    """Rows that met their budget in six networks, with their letters, and which is better than every other row."""
    scored = [i for i, row in enumerate(rows) if row.is_met and row.scores]
    known = {i: rows[i] for i in scored if len(rows[i].values) >= ENOUGH_SEEDS}
    sides = distinct_pairs(*(row.counted for row in known.values()))
    values = {
        i: {seed: row.sign * value for seed, value in headline(side.values()).items()}
        for (i, row), side in zip(known.items(), sides, strict=True)
    }
    letters = tiers(values)
    first = [i for i, letter in letters.items() if letter.startswith("a")]
    return [(rows[i], letter, first == [i] and list(known) == scored) for i, letter in letters.items()]


def _best_control(rows: Sequence[Row]) -> Row | None:
    """Of those that met their budget, the one of the best mean. It is chosen on test: that favours the controls."""
    known = [row for row in rows if row.is_control and row.is_met and row.quality]
    return max(known, key=lambda row: (row.sign * row.quality.mean, row.method), default=None)  # type: ignore[union-attr]


def _facts(name: str, row: Row, control: Row | None, tier: str, is_best: bool) -> dict[str, Any]:
    first = row.first
    budget, quality = first.cell["budget"], row.quality
    dense = row.difference
    other = compared(row.counted, control.counted) if control and control is not row else None
    return {
        "group": name,
        "method": row.method,
        "network": first.cell["task"]["network"],
        "resource": budget["resource"],
        "keep_asked": budget["keep"],
        "params_keep_asked": budget.get("params_keep"),
        "epochs_asked": budget["epochs"],
        "is_dense": row.is_dense,
        "round_to": int(first.cell["method"].get("round_to", 1)),
        "kept": row.kept(),
        "macs": row.cost("macs"),
        "params": row.cost("params"),
        "nonzero": row.cost("nonzero"),
        "macs_kept": row.share("macs"),
        "params_kept": row.share("params"),
        "theoretical_speedup": row.theoretical(),
        "metric": next(iter(first.quality), None),
        "mean": quality.mean if quality else None,
        "sd": quality.sd if quality and quality.n > 1 else None,
        "n": quality.n if quality else 0,
        "tier": tier,
        "is_best": is_best,
        **_others(row),
        **_difference("difference", dense),
        "detectable": detectable(dense.sd, dense.n) if dense and dense.n > 1 else None,
        "control": control.method if other and control else None,
        "control_ids": " ".join(record.id for record in control.records) if other and control else None,
        **_difference("control_difference", other),
        "refused": "; ".join(row.refused),
        "fidelity": ", ".join(row.fidelity),
        **_tried(row),
        **_training(row),
        **_claimed(row),
        "status": _status(row),
        "reasons": "; ".join(row.reasons),
        "ids": " ".join(record.id for record in row.records),
    }


def _difference(name: str, found: Difference | None) -> dict[str, Any]:
    """Mean, interval and pairs; no interval of one pair."""
    many = found and found.n > 1
    return {
        name: found.mean if found else None,
        f"{name}_low": found.low if found and many else None,
        f"{name}_high": found.high if found and many else None,
        f"{name}_n": found.n if found else 0,
        f"{name}_indicative": found.n < ENOUGH_SEEDS if found else None,
    }


def _area(found: Area | None) -> dict[str, Any]:
    """Under the curve that a row is a point of."""
    many = found and found.taken.n > 1
    return {
        "area": found.taken.mean if found else None,
        "area_low": found.taken.low if found and many else None,
        "area_high": found.taken.high if found and many else None,
        "area_n": found.taken.n if found else 0,
        "area_points": found.points if found else None,
        "area_from": found.low if found else None,
        "area_to": found.high if found else None,
        "area_ids": " ".join(found.ids) if found else "",
    }


def _others(row: Row) -> dict[str, Any]:
    """Mean and deviation of every metric beside the headline."""
    facts: dict[str, Any] = {}
    for metric in _scores.others(row.records):
        if found := _scores.summary(row.counted, metric):
            facts |= {f"mean of {metric}": found.mean, f"sd of {metric}": found.sd if found.n > 1 else None}
    return facts


def _tried(row: Row) -> dict[str, Any]:
    """Of a row at a chosen rate of repair: which, what each rate gave on val and on test, and the records of each."""
    if not (choice := row.choice):
        return {}
    tries = sorted(choice.tries.items())
    on_val = [f"{choice.means[r]:.2f} ({choice.n})" if r in choice.means else _status(t) for r, t in tries]
    others = {r: compared(t.counted, row.counted) for r, t in tries if r in choice.means and r != choice.rate}
    return {
        "repair_rate": choice.rate if choice.means and not choice.is_open else None,
        "repair_on_val": "; ".join(f"{r:g}: {text}" for (r, _), text in zip(tries, on_val, strict=True)),
        "repair_elsewhere": "; ".join(
            f"{r:g}: {d.mean:+.2f} ({d.n})" for r, d in others.items() if d and round(d.mean, 2)
        ),
        "repair_tries": "; ".join(f"{r:g}: {' '.join(record.id for record in t.records)}" for r, t in tries),
    }


def _claimed(row: Row) -> dict[str, Any]:
    """What is claimed of this very row, and of what: by whoever trained published weights, or by the method's paper.

    No number of several claims: then the note has them.
    """
    known = row.first.published
    if row.is_dense:
        said = [(known["claimed"], "published weights")] if known else []
    else:
        ours = [c for paper in PAPERS for c in paper.claims if c.claimed is not None and c.ours and c.ours.fits(row)]
        said = [
            (c.claimed, c.convention) for c in ours if any(place.holds(row.first.cell["task"]) for place in c.places)
        ]
    if len(said) == 1:
        return dict(zip(("claimed", "claimed_note"), said[0], strict=True))
    return {"claimed": None, "claimed_note": "; ".join(f"{number:g} {note}" for number, note in said) or None}


def _training(row: Row) -> dict[str, Any]:
    """The four columns of training, and the published weights that it started from; nothing where nothing was made."""
    if not row.counted:
        return dict.fromkeys(("weights", "dense_epochs", "search_epochs", "compression_epochs", "offline"))
    spent = row.first.spent
    return {
        "weights": (row.first.cell["task"].get("weights") or "published") if spent.dense_epochs is None else None,
        "dense_epochs": spent.dense_epochs,
        "search_epochs": spent.search_epochs,
        "compression_epochs": spent.compression_epochs,
        "offline": spent.offline,
    }


def _status(row: Row) -> str:
    """How many seeds ended how."""
    counts: dict[str, int] = defaultdict(int)
    for record in row.records:
        counts[record.status] += 1
    if set(counts) == {"ok"}:
        return "ok"
    return ", ".join(f"{status} {n}/{len(row.records)}" for status, n in sorted(counts.items()))


def _measured(c: Column, row: Row) -> dict[str, Any]:
    """Of several seeds' networks: mean ratio and the interval that holds all of theirs; means of times and peaks."""
    taken = list(row.measured[c].values())
    counted = [r.dense_cost.macs / max(1, r.cost.macs) for r in row.counted if r.id in row.measured[c]]  # type: ignore[union-attr]
    peaks = [m.peak_bytes for m in taken if m.peak_bytes]
    return {
        "profile": f"{c.profile} {c.level}",
        "machine": c.machine,
        "input": c.shape,
        "threads": taken[0].threads,
        "p50_ms": statistics.fmean(m.p50_ms for m in taken),
        "p90_ms": statistics.fmean(m.p90_ms for m in taken),
        "dense_p50_ms": statistics.fmean(m.dense_p50_ms for m in taken),
        "measured_speedup": statistics.fmean(m.ratio for m in taken),
        "measured_low": min(m.ratio_low for m in taken),
        "measured_high": max(m.ratio_high for m in taken),
        "measured_seeds": len(taken),
        "timed_theoretical_speedup": statistics.fmean(counted),
        "noise": max(m.noise for m in taken),
        "peak_bytes": statistics.fmean(peaks) if peaks else None,
        "disturbed": "; ".join(m.disturbed for m in taken if m.disturbed),
    }
