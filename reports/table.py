"""Records go in; a table of methods on each task, as Markdown or CSV, comes out. Same records, same bytes."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench.identity import digest
from slimbench.statistics import Difference, Summary, paired, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from slimbench.core import Measurement, MeasurementRecord, Record


@dataclass(frozen=True)
class Column:
    """One way of timing on one machine: latencies of two of them never share a column."""

    profile: str
    level: str
    machine: str
    caption: str


@dataclass(frozen=True)
class Row:
    """One method at one operating point on one task: all its seeds."""

    records: tuple[Record, ...]
    dense: Mapping[int, Record]
    measured: Mapping[Column, Measurement]

    @property
    def first(self) -> Record:
        """The record of the lowest seed, preferring one with numbers."""
        return next((record for record in self.records if record.cost), self.records[0])

    @property
    def is_dense(self) -> bool:
        """Whether this is the reference."""
        return bool(self.first.cell["reference"])

    def quality(self) -> Summary | None:
        """Of the headline metric, over seeds."""
        values = headline(self.records)
        return summarise(list(values.values())) if values else None

    def difference(self) -> Difference | None:
        """Paired to the dense network of the same seed."""
        return None if self.is_dense else paired(headline(self.records), headline(self.dense.values()))


def headline(records: Iterable[Record]) -> dict[int, float]:
    """The first metric's value by seed."""
    return {r.cell["seed"]: next(iter(r.quality.values())).value for r in records if r.quality}


def rows(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> dict[str, list[Row]]:
    """Rows by heading (task, network, training settings), dense first, then by resource, keep and method."""
    by_id = {record.id: record for record in records}
    timed: dict[str, dict[Column, Measurement]] = defaultdict(dict)
    for m in sorted(measurements, key=lambda m: (m.finished, m.id)):
        if m.measurement:
            timed[m.cell_id][column(m)] = m.measurement
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda r: (r.cell["seed"], r.id)):
        cell = {k: v for k, v in record.cell.items() if k != "seed"}
        groups[heading(record)][digest(cell)].append(record)
    table: dict[str, list[Row]] = {}
    for name, group in sorted(groups.items()):
        table[name] = sorted((_row(part, by_id, timed) for part in group.values()), key=_place)
    return table


def heading(record: Record) -> str:
    """What must be equal for two rows to be compared: task, network, recipe, weights, data and training settings."""
    cell = record.cell
    task, settings = cell["task"], cell["settings"]
    recipe = {k: v for k, v in task["recipe"].items() if k != "is"}
    trained = f"published weights {task['weights']!r}" if task.get("weights") else f"{recipe['epochs']:g} dense epochs"
    how = f"{settings['precision']} on {settings['device']}, {settings['threads']} thread(s)"
    version = f"task version {task['version']}, engine {cell['engine']}, recipe {digest(recipe)[:6]}"
    return f"{task['label']}: {trained}; trained in {how}; {version}"


def column(record: MeasurementRecord) -> Column:
    """The column that a measurement belongs in, and the caption that makes it readable."""
    m, env = record.measurement, record.environment
    assert m is not None
    print_of = digest({k: v for k, v in env.items() if k != "commit"})[:6]
    caption = (
        f"median of {m.samples} forward passes of batch {m.batch} x {'x'.join(str(n) for n in m.input_shape[1:])}, "
        f"{m.threads} thread(s), batch norm folded on both sides, on {env['cpu']} ({env['cores']} cores), "
        f"torch {env['versions']['torch']}; interval: 95 % bootstrap of this session"
    )
    label = str(record.profile["label"])
    return Column(label, m.level, print_of, caption)


def _row(part: list[Record], by_id: Mapping[str, Record], timed: Mapping[str, Any]) -> Row:
    dense = {r.cell["seed"]: by_id[r.reference] for r in part if r.reference in by_id}
    measured: dict[Column, Measurement] = {}
    for record in reversed(part):  # the lowest seed's wins
        measured |= timed.get(record.id, {})
    return Row(tuple(part), dense, measured)


def _place(row: Row) -> tuple[Any, ...]:
    budget = row.first.cell["budget"]
    return (not row.is_dense, budget["resource"], -budget["keep"], _method(row.first), row.first.id)


# ------------------------------------------------------------------------------------------------- as people read


def markdown(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> str:
    """Every task's table with its footnotes."""
    if not records:
        return "No records yet: `bench run --all` makes some.\n"
    parts = [_section(name, group) for name, group in rows(records, measurements).items()]
    return "\n".join(parts)


def _section(name: str, group: list[Row]) -> str:
    columns = sorted({c for row in group for c in row.measured}, key=lambda c: (c.profile, c.level, c.machine))
    metric = _metric(group)
    aligned = any(_round_to(row) > 1 for row in group)
    notes: list[str] = []
    table = [_cells(row, columns, notes, aligned=aligned) for row in group]
    heads = ["method", "keep asked", "kept", "MACs", "params", "nonzero", f"{metric} mean ± sd (n)", "Δ dense"]
    heads += ["theoretical speed-up", *(f"measured speed-up, {_title(c, columns)}" for c in columns)]
    heads += ["fidelity", "epochs: dense / search / compression", "offline", "status"]
    if aligned:
        heads.insert(3, "round to")
    text = tabulate(table, heads, tablefmt="github", disable_numparse=True)
    foot = [f"[{i}] {note}" for i, note in enumerate(notes, 1)]
    foot += [f"{c.profile} {c.level} (machine {c.machine}): {c.caption}." for c in columns]
    foot.append(
        "MACs are multiply-accumulates (FLOPs = 2 x MACs). Theoretical speed-up: dense MACs / MACs, counted. Measured: "
        "dense latency / latency, timed. Δ dense: paired by seed, 95 % Student-t interval"
        + ("; indicative: fewer than 6 seeds." if _few(group) else ".")
    )
    foot += sorted({_published(row) for row in group} - {""})
    return f"### {name}\n\n{text}\n\n" + "".join(f"- {line}\n" for line in foot)


def _title(c: Column, columns: Sequence[Column]) -> str:
    """A profile and its level; the machine too, where two of them were measured on."""
    alike = sum((c.profile, c.level) == (other.profile, other.level) for other in columns)
    return f"{c.profile} {c.level}" + (f" ({c.machine})" if alike > 1 else "")


def _method(record: Record) -> str:
    """The label, and the version once there has been more than one."""
    method = record.cell["method"]
    return str(method["label"]) + (f" v{method['version']}" if method["version"] > 1 else "")


def _cells(row: Row, columns: Sequence[Column], notes: list[str], *, aligned: bool) -> list[str]:
    first, cost, dense = row.first, row.first.cost, row.first.dense_cost
    budget = first.cell["budget"]
    known = cost is not None and dense is not None
    cells = [
        _method(first),
        "" if row.is_dense else f"{budget['keep']:g} {budget['resource']}",
        f"{_mean_kept(row):.4f}" if known and not row.is_dense else "",
        _big(cost.macs) if cost else "",
        _big(cost.params) if cost else "",
        _big(cost.nonzero) if cost else "",
        _quality(row.quality()),
        _difference(row.difference()),
        f"{dense.macs / max(1, cost.macs):.2f}x" if cost and dense else "",
        *(_speed(row, row.measured.get(c), notes) for c in columns),
        _fidelity(first),
        _epochs(first),
        first.spent.offline,
        _status(row, notes),
    ]
    if aligned:
        cells.insert(3, str(_round_to(row)))
    return cells


def _mean_kept(row: Row) -> float:
    resource = row.first.cell["budget"]["resource"]
    shares = [r.cost.of(resource) / r.dense_cost.of(resource) for r in row.records if r.cost and r.dense_cost]
    return sum(shares) / len(shares)


def _quality(summary: Summary | None) -> str:
    if summary is None:
        return ""
    spread = "" if math.isnan(summary.sd) else f" ± {summary.sd:.2f}"
    return f"{summary.mean:.2f}{spread} ({summary.n})"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    interval = f" [{difference.low:+.2f}, {difference.high:+.2f}]" if difference.n > 1 else ""
    return f"{difference.mean:+.2f}{interval}"


def _speed(row: Row, m: Measurement | None, notes: list[str]) -> str:
    if m is None:
        return ""
    mark = _note(notes, f"disturbed: {m.disturbed}") if m.disturbed else ""
    if row.is_dense:
        return f"1 ({m.p50_ms:.3g} ms; A/A ± {100 * m.noise:.1f} %){mark}"
    said = ""
    if m.ratio_high < 1 - m.noise:
        said = " **slower than dense**"
    elif m.ratio_low <= 1 + m.noise:
        said = " no difference"
    return f"{m.ratio:.2f}x [{m.ratio_low:.2f}, {m.ratio_high:.2f}]{said}{mark}"


def _status(row: Row, notes: list[str]) -> str:
    counts: dict[str, int] = defaultdict(int)
    marks = ""
    for record in row.records:
        counts[record.status] += 1
        if record.status != "ok":
            mark = _note(notes, record.reason)
            marks += mark if mark not in marks else ""
    if set(counts) == {"ok"}:
        return "ok"
    return ", ".join(f"{status} {n}/{len(row.records)}" for status, n in sorted(counts.items())) + marks


def _note(notes: list[str], text: str) -> str:
    if text not in notes:
        notes.append(text)
    return f" [{notes.index(text) + 1}]"


def _fidelity(record: Record) -> str:
    kinds = record.cell["method"].get("fidelity", {})
    return ", ".join(sorted(set(kinds.values())))


def _epochs(record: Record) -> str:
    if not record.cost:
        return ""
    s = record.spent
    dense = "published" if s.dense_epochs is None else f"{s.dense_epochs:.1f}"
    return f"{dense} / {s.search_epochs:.1f} / {s.compression_epochs:.1f}"


def _published(row: Row) -> str:
    first = row.first
    if not first.published or not row.is_dense or not (quality := row.quality()):
        return ""
    known = first.published
    said = f"Published weights claim {known['claimed']:.2f} ({known['source']}); measured {quality.mean:.2f}."
    return f"{said} {known['note'].capitalize()}."


def _round_to(row: Row) -> int:
    return int(row.first.cell["method"].get("round_to", 1))


def _metric(group: list[Row]) -> str:
    return next((next(iter(r.quality)) for row in group for r in row.records if r.quality), "quality")


def _few(group: list[Row]) -> bool:
    return any(d.is_indicative for row in group if (d := row.difference()))


def _big(count: int) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3f} {unit}"
    return str(count)


# -------------------------------------------------------------------------------------------------- for programs


def as_csv(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> str:
    """The same numbers, unrounded, one line a row and latency column."""
    out = io.StringIO()
    lines = [_flat(name, row, c) for name, g in rows(records, measurements).items() for row in g for c in _columns(row)]
    fields = list(dict.fromkeys(field for line in lines for field in line))
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _columns(row: Row) -> list[Column | None]:
    return [*sorted(row.measured, key=lambda c: (c.profile, c.level, c.machine))] or [None]


def _flat(name: str, row: Row, c: Column | None) -> dict[str, Any]:
    first, cost, dense = row.first, row.first.cost, row.first.dense_cost
    quality, difference = row.quality(), row.difference()
    budget, spent = first.cell["budget"], first.spent
    m = row.measured[c] if c else None
    return {
        "group": name,
        "method": _method(first),
        "network": first.cell["task"]["network"],
        "resource": budget["resource"],
        "keep_asked": budget["keep"],
        "kept": _mean_kept(row) if cost and dense else "",
        "round_to": _round_to(row),
        "macs": cost.macs if cost else "",
        "params": cost.params if cost else "",
        "nonzero": cost.nonzero if cost else "",
        "metric": next(iter(first.quality), ""),
        "mean": quality.mean if quality else "",
        "sd": quality.sd if quality and quality.n > 1 else "",
        "n": quality.n if quality else 0,
        "difference": difference.mean if difference else "",
        "difference_low": difference.low if difference and difference.n > 1 else "",
        "difference_high": difference.high if difference and difference.n > 1 else "",
        "theoretical_speedup": dense.macs / max(1, cost.macs) if cost and dense else "",
        "profile": f"{c.profile} {c.level}" if c else "",
        "machine": c.machine if c else "",
        "p50_ms": m.p50_ms if m else "",
        "measured_speedup": m.ratio if m else "",
        "measured_low": m.ratio_low if m else "",
        "measured_high": m.ratio_high if m else "",
        "noise": m.noise if m else "",
        "disturbed": (m.disturbed or "") if m else "",
        "fidelity": _fidelity(first),
        "dense_epochs": "published" if spent.dense_epochs is None else spent.dense_epochs,
        "search_epochs": spent.search_epochs,
        "compression_epochs": spent.compression_epochs,
        "offline": spent.offline,
        "status": _status(row, []),
        "ids": " ".join(record.id for record in row.records),
    }
