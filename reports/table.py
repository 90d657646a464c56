"""Records go in; a table of methods on each task, as Markdown or CSV, comes out. Same records, same bytes."""

from __future__ import annotations

import csv
import functools
import io
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from slimbench.identity import digest, digest_of_shared, remembered
from slimbench.reports import _scores
from slimbench.statistics import Difference, Summary, paired, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
    measured: Mapping[Column, tuple[Measurement, ...]]  # by seed
    refused: tuple[str, ...] = ()

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

    def mean(self, figure: Callable[[Record], float]) -> float | None:
        """A counted figure, mean over seeds."""
        return statistics.fmean(figure(record) for record in self.counted) if self.counted else None

    def cost(self, name: str) -> float | None:
        """A field of the cost, mean over seeds."""
        return self.mean(lambda record: getattr(record.cost, name))

    def kept(self) -> float | None:
        """Share of the budget's resource that is left, mean over seeds."""
        resource = self.first.cell["budget"]["resource"]
        return self.mean(lambda record: record.kept(resource))

    def theoretical(self) -> float | None:
        """Dense MACs / MACs, mean over seeds."""
        return self.mean(lambda r: r.dense_cost.macs / max(1, r.cost.macs))  # type: ignore[union-attr]

    def quality(self) -> Summary | None:
        """Of the headline metric, over seeds."""
        values = headline(self.counted)
        return summarise(list(values.values())) if values else None

    def difference(self) -> Difference | None:
        """Paired to the dense network of the same seed."""
        return None if self.is_dense else paired(headline(self.counted), headline(self.dense.values()))


def headline(records: Iterable[Record]) -> dict[int, float]:
    """The first metric's value by seed."""
    return {r.cell["seed"]: next(iter(r.quality.values())).value for r in records if r.quality}


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
    for record in sorted(records, key=lambda r: (r.cell["seed"], r.id)):
        groups[heading(record)][_point(record)].append(record)
    table: dict[str, list[Row]] = {}
    for name, group in sorted(groups.items()):
        table[name] = sorted((_row(part, by_id, timed, refused) for part in group.values()), key=_place)
    return table


def _point(record: Record) -> tuple[Any, ...]:
    """What is equal for all seeds of a method at an operating point: everything of a cell but the seed."""
    parts = sorted((name, part) for name, part in record.cell.items() if name != "seed")
    return tuple((name, digest_of_shared(part) if isinstance(part, dict) else str(part)) for name, part in parts)


_COMMON = {"is", "network", "recipe", "weights", "version", "label", "family"}


def heading(record: Record) -> str:
    """What must be equal for two rows to be compared: task, network, recipe, weights, data and training settings."""
    cell = record.cell
    settings, (what, version) = cell["settings"], _on(cell["task"])
    how = f"{settings['precision']} on {settings['device']}, {settings['threads']} thread(s)"
    version = version.format(engine=cell["engine"])
    return f"{what}; trained in {how}; {version}, data {digest(cell['data'])[:6]}"


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
    print_of = digest({k: v for k, v in env.items() if k != "commit"})[:6]
    caption = (
        f"median of {m.samples} forward passes of batch {m.batch} x {'x'.join(str(n) for n in m.input_shape[1:])}, "
        f"{m.threads} thread(s), batch norm folded on both sides, on "
        f"{m.device.get('name') or '{cpu} ({cores} cores)'.format(**env)}, "
        f"{m.device.get('runtime') or 'torch ' + env['versions']['torch']}; interval: 95 % bootstrap of "
        + ("this session" if m.processes == 1 else f"{m.processes} processes and their rounds")
    )
    label = str(record.profile["label"]) + (f" v{version}" if (version := record.profile["version"]) > 1 else "")
    return Column(label, m.level, print_of, caption)


def _row(part: list[Record], by_id: Mapping[str, Record], timed: Mapping[str, Any], refused: Mapping[str, Any]) -> Row:
    dense = {r.cell["seed"]: by_id[r.reference] for r in part if r.reference in by_id}
    measured: dict[Column, tuple[Measurement, ...]] = {}
    for record in part:
        for c, measurement in timed.get(record.id, {}).items():
            measured[c] = (*measured.get(c, ()), measurement)
    why = dict.fromkeys(reason for record in part for reason in refused.get(record.id, ()))
    return Row(tuple(part), dense, measured, tuple(why))


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
        "dense latency / latency, on the first seed's networks unless it says otherwise; within the A/A noise there is "
        "no difference. Δ dense: paired by seed, 95 % Student-t interval"
        + ("; indicative: fewer than 6 seeds." if _few(group) else ".")
    )
    foot += sorted({_published(row) for row in group} - {""})
    beside = _beside(group) + _taken(group, columns)
    return f"### {name}\n\n{text}\n\n{beside}" + "".join(f"- {line}\n" for line in foot)


def _beside(group: list[Row]) -> str:
    """A second table, of all other metrics, where there are any."""
    metrics = _scores.others(record for row in group for record in row.records)
    if not metrics:
        return ""
    table = [
        [
            _method(row.first),
            _asked(row),
            *(_scores.shown(_scores.summary(row.counted, m), m) for m in metrics),
            _status(row, []).partition(" [")[0],
        ]
        for row in group
    ]
    text = tabulate(table, ["method", "keep asked", *metrics, "status"], tablefmt="github", disable_numparse=True)
    return f"Beside the headline, mean ± sd (n):\n\n{text}\n\n"


def _taken(group: list[Row], columns: Sequence[Column]) -> str:
    """A table of weights, latencies and memory, where any were measured."""
    if not columns:
        return ""
    table = [
        [_method(row.first), _asked(row), _bytes(row.cost("bytes")), *(_run(row.measured.get(c, ())) for c in columns)]
        for row in group
    ]
    heads = ["method", "keep asked", "weights", *(f"latency and memory, {_title(c, columns)}" for c in columns)]
    text = tabulate(table, heads, tablefmt="github", disable_numparse=True)
    return f"What they take; memory is what loading and one batch add to a fresh process:\n\n{text}\n\n"


def _run(taken: Sequence[Measurement]) -> str:
    """Median and 90th percentile, and the peak; means over seeds."""
    if not taken:
        return ""
    p50, p90 = (statistics.fmean(getattr(m, name) for m in taken) for name in ("p50_ms", "p90_ms"))
    peaks = [m.peak_bytes for m in taken if m.peak_bytes]
    return f"{p50:.3g} ms (p90 {p90:.3g})" + (f", {_bytes(statistics.fmean(peaks))}" if peaks else "")


def _bytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.3g} MB"


def _title(c: Column, columns: Sequence[Column]) -> str:
    """A profile and its level; the machine too, where two of them were measured on."""
    alike = sum((c.profile, c.level) == (other.profile, other.level) for other in columns)
    return f"{c.profile} {c.level}" + (f" ({c.machine})" if alike > 1 else "")


def _method(record: Record) -> str:
    """The label, and the version once there has been more than one."""
    method = record.cell["method"]
    return str(method["label"]) + (f" v{method['version']}" if method["version"] > 1 else "")


def _asked(row: Row) -> str:
    budget = row.first.cell["budget"]
    second = "" if budget.get("params_keep") is None else f", {budget['params_keep']:g} params"
    return "" if row.is_dense else f"{budget['keep']:g} {budget['resource']}{second}"


def _cells(row: Row, columns: Sequence[Column], notes: list[str], *, aligned: bool) -> list[str]:
    first = row.first
    cells = [
        _method(first),
        _asked(row),
        "" if row.is_dense else _show(row.kept(), ".4f"),
        *(_big(row.cost(name)) for name in ("macs", "params", "nonzero")),
        _quality(row.quality()),
        _difference(row.difference()),
        _show(row.theoretical(), ".2f", "x"),
        *(_speed(row, row.measured.get(c, ()), notes) for c in columns),
        _fidelity(first),
        _epochs(first),
        first.spent.offline,
        _status(row, notes) + "".join(_note(notes, why) for why in (*row.refused, *_environments(row))),
    ]
    if aligned:
        cells.insert(3, str(_round_to(row)))
    return cells


def _environments(row: Row) -> list[str]:
    """A note where seeds, or a seed and its dense network, come from machines or versions that differ."""
    made = {_made_on(record) for record in (*row.counted, *row.dense.values())}
    return [f"trained in {len(made)} environments: {'; '.join(sorted(made))}"] if len(made) > 1 else []


def _made_on(record: Record) -> str:
    env = record.environment
    return f"{env['cpu']}, torch {env['versions']['torch']}"


def _show(value: float | None, how: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{how}}{unit}"


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


def _speed(row: Row, taken: Sequence[Measurement], notes: list[str]) -> str:
    """The ratio with its interval, and what it says; over several seeds their mean and the widest interval."""
    if not taken:
        return ""
    mark = "".join(_note(notes, f"disturbed: {m.disturbed}") for m in taken if m.disturbed)
    noise = max(m.noise for m in taken)
    if row.is_dense:
        return f"1 ({statistics.fmean(m.p50_ms for m in taken):.3g} ms; A/A ± {100 * noise:.1f} %){mark}"
    ratio, low, high = pooled(taken)
    said = ""
    if high < 1 - noise:
        said = " **slower than dense**"
    elif low <= 1 + noise:
        said = " no difference"
    seeds = f" ({len(taken)} seeds)" if len(taken) > 1 else ""
    return f"{ratio:.2f}x [{low:.2f}, {high:.2f}]{seeds}{said}{mark}"


def pooled(taken: Sequence[Measurement]) -> tuple[float, float, float]:
    """Mean ratio of several seeds' networks, and the interval that holds all of theirs."""
    ratio = statistics.fmean(m.ratio for m in taken)
    return ratio, min(m.ratio_low for m in taken), max(m.ratio_high for m in taken)


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


def _big(count: float | None) -> str:
    if count is None:
        return ""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3f} {unit}"
    return f"{count:g}"


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
    first, quality, difference = row.first, row.quality(), row.difference()
    budget, spent = first.cell["budget"], first.spent
    taken = row.measured[c] if c else ()
    ratio, low, high = pooled(taken) if taken else ("", "", "")
    figures = {
        "kept": row.kept(),
        "macs": row.cost("macs"),
        "params": row.cost("params"),
        "nonzero": row.cost("nonzero"),
        "theoretical_speedup": row.theoretical(),
    }
    return {
        "group": name,
        "method": _method(first),
        "network": first.cell["task"]["network"],
        "resource": budget["resource"],
        "keep_asked": budget["keep"],
        "round_to": _round_to(row),
        **{key: "" if value is None else value for key, value in figures.items()},
        "metric": next(iter(first.quality), ""),
        "mean": quality.mean if quality else "",
        "sd": quality.sd if quality and quality.n > 1 else "",
        "n": quality.n if quality else 0,
        **{
            f"mean of {metric}": found.mean if (found := _scores.summary(row.counted, metric)) else ""
            for metric in _scores.others(row.records)
        },
        "difference": difference.mean if difference else "",
        "difference_low": difference.low if difference and difference.n > 1 else "",
        "difference_high": difference.high if difference and difference.n > 1 else "",
        "profile": f"{c.profile} {c.level}" if c else "",
        "machine": c.machine if c else "",
        "p50_ms": statistics.fmean(m.p50_ms for m in taken) if taken else "",
        "measured_speedup": ratio,
        "measured_low": low,
        "measured_high": high,
        "measured_seeds": len(taken),
        "noise": max(m.noise for m in taken) if taken else "",
        "disturbed": "; ".join(m.disturbed for m in taken if m.disturbed),
        "refused": "; ".join(row.refused),
        "fidelity": _fidelity(first),
        "dense_epochs": "published" if spent.dense_epochs is None else spent.dense_epochs,
        "search_epochs": spent.search_epochs,
        "compression_epochs": spent.compression_epochs,
        "offline": spent.offline,
        "status": _status(row, []),
        "ids": " ".join(record.id for record in row.records),
    }
