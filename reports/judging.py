"""Claims of papers and rows of records go in; findings with a verdict in words come out.

A claim is data (``benchmarks/papers/claims.py``); a verdict is a pure function of records: a figure has to reach a
threshold, and its whole 95 % interval decides. Three seeds are the least, but for a speed, whose interval is that of a
measurement; what a reduced recipe says is marked so.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from slimbench.identity import digest
from slimbench.reports.rows import distinct_pairs, headline, newest
from slimbench.statistics import ENOUGH_SEEDS, Difference, paired, student, student_t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.core import Record
    from slimbench.reports.claim import Claim, Figure, Place, Select
    from slimbench.reports.rows import Column, Row

Verdict = Literal["supported", "not supported", "cannot tell", "not run"]
LEAST_SEEDS = 3
_COUNTED = ("macs removed", "params removed")  # exact: their interval is the range over seeds


@dataclass(frozen=True)
class Finding:
    """What one row says about a claim."""

    claim: Claim
    row: Row
    rival: Row | None
    estimate: Difference
    verdict: Verdict
    reduced: str  # how the recipe falls short of the paper's; empty: it does not
    column: Column | None = None

    @property
    def gap(self) -> float | None:
        """Ours - claimed, in the figure's unit."""
        return None if self.claim.claimed is None else self.estimate.mean - self.claim.claimed

    @property
    def errors(self) -> float | None:
        """The gap in standard errors of ours."""
        if self.claim.figure in _COUNTED:
            return None
        error = _error(self.estimate, measured=self.column is not None)
        return self.gap / error if self.gap is not None and error else None

    @property
    def seeds(self) -> int | None:
        """How many its interval is over; None: it is that of a measurement."""
        return None if self.claim.figure == "speed" else self.estimate.n

    @property
    def versions(self) -> tuple[tuple[str, int], ...]:
        """Of the methods that it compares."""
        return tuple(_version(row) for row in (self.row, self.rival) if row)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of every record behind it."""
        theirs = self.rival.counted if self.rival else ()
        return tuple(record.id for record in (*self.row.counted, *theirs))


def _error(found: Difference, *, measured: bool) -> float | None:
    if not math.isfinite(found.high):
        return None
    freedom = 10**6 if measured else found.n - 1
    return (found.high - found.low) / 2 / student_t(freedom)


def findings(claim: Claim, groups: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """What every fitting row says, one finding each (and for each way of timing)."""
    rows = [row for group in groups.values() for row in group if row.is_met]
    ours = [row for row in rows if claim.ours and claim.ours.fits(row)]
    return [finding for row in ours for finding in _of_row(claim, row, _rivals(claim, row, rows))]


def _rivals(claim: Claim, row: Row, rows: Iterable[Row]) -> list[Row]:
    if claim.theirs is None:
        return []
    same = _common(claim, row)
    fitting = [o for o in rows if o is not row and claim.theirs.fits(o) and _common(claim, o) == same]
    if claim.differs:
        fitting = [other for other in fitting if _beside(claim.differs, other) == _beside(claim.differs, row)]
    last = newest(map(_version, fitting)).items()
    return [other for other in fitting if _version(other) in last]


def _beside(name: str, row: Row) -> dict[str, Any]:
    """A method's fields but one, and the version."""
    return {field: value for field, value in row.first.cell["method"].items() if field not in {name, "label"}}


def _version(row: Row) -> tuple[str, int]:
    """The method by its declared name, and its version."""
    method = row.first.cell["method"]
    return method["is"], method["version"]


def _common(claim: Claim, row: Row) -> str:
    """What two rows must share to be compared. The dense network has no budget of its own."""
    cell = row.first.cell
    task = {k: v for k, v in cell["task"].items() if claim.within != "recipe" or k not in {"network", "label"}}
    shared = [task, cell["data"], cell["settings"], cell["engine"]]
    is_point = claim.within == "point"
    return digest([*shared, cell["budget"]] if is_point else shared)


def _of_row(claim: Claim, row: Row, rivals: Sequence[Row]) -> Iterator[Finding]:
    if claim.theirs and not rivals:
        return
    reduced = shortfall(claim, row)
    if claim.figure in {"speed", "memory"}:
        for c, estimate, rival in _timed(claim, row, rivals):
            enough = c.level == "full" and (claim.figure == "speed" or estimate.n >= LEAST_SEEDS)
            yield Finding(claim, row, rival, estimate, _verdict(claim, estimate, enough), reduced, c)
        return
    rival = max(rivals, key=_mean, default=None)
    is_whole = claim.theirs is None or not missing(claim.each, claim.theirs, rivals)
    if (estimate_of_seeds := _over_seeds(claim, row, rival)) is not None:
        enough = is_whole and (estimate_of_seeds.n >= LEAST_SEEDS or claim.figure in _COUNTED)
        yield Finding(claim, row, rival, estimate_of_seeds, _verdict(claim, estimate_of_seeds, enough), reduced)


def missing(each: str, asked: Select, rows: Iterable[Row]) -> list[str]:
    """Values of the field ``each`` that were asked for and that no row has."""
    seen = {row.first.cell["method"].get(each) for row in rows}
    wanted = asked.where.get(each, ())
    return [value for value in ((wanted,) if isinstance(wanted, str) else wanted) if value not in seen]


def _mean(row: Row) -> float:
    """Of the headline metric, turned where less is better."""
    return row.sign * statistics.fmean(row.values or [0.0])


def _over_seeds(claim: Claim, row: Row, rival: Row | None) -> Difference | None:
    if claim.figure in _COUNTED:
        values = list(_by_seed(claim.figure, row.counted).values())
        return Difference(statistics.fmean(values), min(values), max(values), len(values)) if values else None
    if rival is None:
        return student(row.values) if row.values else None
    sides = distinct_pairs(row.counted, rival.counted)
    ours, theirs = (_by_seed(claim.figure, side.values()) for side in sides)
    if claim.figure == "training memory":
        ratios = [theirs[seed] / ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
        return student(ratios) if ratios else None
    less_is_better = claim.figure == "quality" and row.sign < 0
    return paired(theirs, ours) if less_is_better else paired(ours, theirs)


def _by_seed(figure: Figure, counted: Iterable[Record]) -> dict[int, float]:
    if figure == "quality":
        return headline(counted)
    if figure == "training memory":
        return {r.cell["seed"]: float(r.spent.added_bytes) for r in counted if r.spent.added_bytes}
    name = figure.partition(" ")[0]
    shares = {r.cell["seed"]: getattr(r.cost, name) / getattr(r.dense_cost, name) for r in counted}
    return {seed: 100 * (1 - share) for seed, share in shares.items()}


def _timed(claim: Claim, row: Row, rivals: Sequence[Row]) -> Iterator[tuple[Column, Difference, Row | None]]:
    """By each way of timing that both went through: theirs / ours; without rivals dense / ours."""
    for c in sorted(row.measured, key=lambda c: c.place):
        if not _is_asked_for(claim, row, c):
            continue
        ours = _interval(claim.figure, row, c)
        if ours is None:
            continue
        if claim.theirs is None:
            yield c, ours, None
            continue
        against = [(other, _interval(claim.figure, other, c)) for other in rivals if c in other.measured]
        known = [(other, interval) for other, interval in against if interval]
        if known:
            rival, theirs = max(known, key=lambda pair: pair[1].mean)
            doubt = _between_sessions(row, rival, c) if claim.figure == "memory" else 0.0
            low, high = ours.low / theirs.high * (1 - doubt), ours.high / theirs.low * (1 + doubt)
            yield c, Difference(ours.mean / theirs.mean, low, high, min(ours.n, theirs.n)), rival


def _is_asked_for(claim: Claim, row: Row, c: Column) -> bool:
    """Whether a claim is of this profile and its batch."""
    name = c.profile.partition(" ")[0].partition("(")[0]
    batches = {m.batch for m in row.measured[c].values()}  # one: a column is of one shape
    return (not claim.profiles or name in claim.profiles) and (claim.batch is None or claim.batch in batches)


def _interval(figure: Figure, row: Row, c: Column) -> Difference | None:
    """Dense / row: of latency with the interval of the measurements, of peak memory with the range over seeds."""
    taken = row.measured[c].values()
    if figure == "speed":
        low, high = min(m.ratio_low for m in taken), max(m.ratio_high for m in taken)
        return Difference(statistics.fmean(m.ratio for m in taken), low, high, len(taken))
    peaks = [(m.dense_peak_bytes, m.peak_bytes) for m in taken if m.peak_bytes and m.dense_peak_bytes]
    if not peaks:
        return None
    ratios = [dense / ours for dense, ours in peaks]
    return Difference(statistics.fmean(ratios), min(ratios), max(ratios), len(ratios))


def _between_sessions(row: Row, rival: Row, c: Column) -> float:
    """How far apart the dense network's own peaks were when both rows were measured, relative."""
    ours, theirs = (
        statistics.fmean(m.dense_peak_bytes for m in other.measured[c].values() if m.dense_peak_bytes)
        for other in (row, rival)
    )
    return abs(ours / theirs - 1)


def _verdict(claim: Claim, found: Difference, enough: bool) -> Verdict:
    """The whole interval decides."""
    slack = claim.slack_sd * found.sd if claim.slack_sd and found.n > 1 else 0.0
    least = claim.least - slack
    if not enough:
        return "cannot tell"
    if found.low > least:
        return "supported"
    return "not supported" if found.high < least else "cannot tell"


def shortfall(claim: Claim, row: Row) -> str:
    """How a row's recipe falls short of the paper's, in words; empty where it does not."""
    cell = row.first.cell
    task, budget = cell["task"], cell["budget"]
    if not claim.places:
        return ""
    here = next((place for place in claim.places if place.holds(task)), None)
    elsewhere = [] if here else [f"{task['label']} instead of {'; '.join(map(_named, claim.places))}"]
    dense, compression = (here or claim.places[0]).epochs
    spent = [
        f"{done:g} of {asked:g} {what} epochs"
        for what, done, asked in (
            ("dense", task["recipe"]["epochs"], dense),
            ("compression", budget["epochs"], compression),
        )
        if done < asked
    ]
    return ", ".join([*elsewhere, *spent])


def _named(place: Place) -> str:
    return " on ".join(", ".join(names) for names in (place.networks, place.tasks) if names)


def decided(found: Sequence[Finding]) -> Verdict:
    """Of a claim: what the decisive findings say; no verdict where they disagree, or where one of ``each`` lacks."""
    if not found:
        return "not run"
    used = decisive(found)
    verdicts = {finding.verdict for finding in used}
    return verdicts.pop() if len(verdicts) == 1 and not _lacking(used) else "cannot tell"


def _lacking(used: Sequence[Finding]) -> list[str]:
    claim = used[0].claim
    return missing(claim.each, claim.ours, [finding.row for finding in used]) if claim.ours else []


def decisive(found: Sequence[Finding]) -> Sequence[Finding]:
    """Of those of the newest versions: of full recipes, of level full, and of enough seeds, where there are any."""
    last = newest(told for finding in found for told in finding.versions).items()
    used = [finding for finding in found if last >= set(finding.versions)] or found
    for is_fit in (_is_full, _is_timed_in_full, _has_seeds):
        used = [finding for finding in used if is_fit(finding)] or used
    return used


def _is_full(finding: Finding) -> bool:
    return not finding.reduced


def _is_timed_in_full(finding: Finding) -> bool:
    return finding.column is None or finding.column.level == "full"


def _has_seeds(finding: Finding) -> bool:
    return finding.seeds is None or finding.seeds >= LEAST_SEEDS


def in_words(verdict: Verdict, found: Sequence[Finding]) -> str:
    """The verdict with what limits it: reduced recipes, few seeds, disagreement."""
    if verdict == "not run":
        return verdict
    used = decisive(found)
    limits = ["reduced recipe"] if used[0].reduced else []
    seeds = min(finding.estimate.n for finding in used)
    if seeds < ENOUGH_SEEDS:
        limits.append(f"indicative: {seeds} seed{'s' * (seeds > 1)}")
    if any(finding.column for finding in used):
        limits.append("by measurements of stored networks")
    if lacking := _lacking(used):
        limits.append(f"without {', '.join(lacking)}")
    if len({finding.verdict for finding in used}) > 1:
        counts = [f"{v} {sum(f.verdict == v for f in used)}" for v in ("supported", "not supported", "cannot tell")]
        limits.append("findings disagree: " + ", ".join(counts))
    return f"{verdict} ({'; '.join(limits)})" if limits else verdict
