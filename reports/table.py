"""Records go in; tables of methods on each task come out: what people read, and the numbers behind it.

A ``Table`` is the one model behind Markdown, LaTeX, HTML, CSV, JSON and the terminal (``render``): its texts are made
from its facts alone, so that no two formats can tell different numbers. Same records, same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench.reports import _scores, _text
from slimbench.reports.figures import Line, lines
from slimbench.reports.rows import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.rows import Column, Row

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its text (see ``_text.bold``), the footnotes that it bears, and the records it is of.

    ``ids`` are told where neighbours in a row are of other records, for the auditor.
    """

    text: str = ""
    notes: tuple[str, ...] = ()
    ids: str = ""


@dataclass(frozen=True)
class Table:
    """Heads, rows of entries, captions below them, and the unrounded facts that CSV and JSON hold.

    Attributes:
        level: of its heading; 4: it belongs to the table before it.
        compact: heads that a terminal shows as far as they fit, the most important first; empty: all, in parts.

    """

    title: str
    heads: tuple[str, ...]
    body: tuple[tuple[Entry, ...], ...]
    captions: tuple[str, ...] = ()
    facts: tuple[Facts, ...] = ()
    level: int = 3
    compact: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Every footnote once, in the order of the entries that bear them."""
        return tuple(dict.fromkeys(note for row in self.body for entry in row for note in entry.notes))

    def shown(self, entry: Entry) -> str:
        """An entry's text with the numbers of its footnotes."""
        return entry.text + "".join(f" [{self.notes.index(note) + 1}]" for note in dict.fromkeys(entry.notes))


@dataclass(frozen=True)
class _Show:
    """One column: its head, the text of a row's facts, the footnotes of a row."""

    head: str
    text: Callable[[Facts], str]
    notes: Callable[[Row], tuple[str, ...]] = lambda row: ()
    rank: int = 0  # of its importance for ``Table.compact``, 1 first; 0: not shown there


def tables(records: Sequence[Record], measurements: Sequence[MeasurementRecord]) -> list[Table]:
    """Every task's table, and behind it those of its other metrics and of what its networks take."""
    return [table for name, group in rows(records, measurements).items() for table in of_heading(name, group)]


def of_heading(name: str, group: Sequence[Row], captions: Sequence[str] = ()) -> list[Table]:
    """The tables of one heading; ``captions`` stand below the main one, after its own."""
    found = lines(name, group)
    ways = sorted({c for line in found for c in line.measured}, key=lambda c: c.place)
    return [_main(name, found, ways, captions), *_beside(found), *_taken(found, ways)]


def _main(name: str, found: Sequence[Line], ways: Sequence[Column], captions: Sequence[str]) -> Table:
    shows = [show for show in _columns(found) if any(map(show.text, (line.facts for line in found)))]
    measured = [f"measured speed-up, {title(c, ways)}" for c in ways]
    place = 1 + [show.head for show in shows].index(THEORETICAL) if measured else 0
    heads = [show.head for show in shows]
    body = [[Entry(show.text(line.facts), show.notes(line.row)) for show in shows] for line in found]
    for line, row in zip(found, body, strict=True):
        row[place:place] = [speed(line, c) for c in ways]
    heads[place:place] = measured
    return Table(
        f"{name}{_indicative(found)}",
        tuple(heads),
        tuple(map(tuple, body)),
        (*_captions(found, ways), *captions),
        tuple(flat for line in found for flat in line.flat()),
        compact=_compact(shows, measured),
    )


def _compact(shows: Sequence[_Show], measured: Sequence[str]) -> tuple[str, ...]:
    """Heads by rank; measured speed-ups come in before the theoretical one."""
    ranked = [(show.rank, show.head) for show in shows if show.rank] + [(_MEASURED, head) for head in measured]
    return tuple(head for _, head in sorted(ranked, key=lambda pair: pair[0]))


THEORETICAL = "theoretical speed-up"
_CHOSEN = (
    "Repair rate: the learning rate at which cut or inherited weights train on. Every row was tried at the same rates, "
    "and spent its compression epochs at each; the rate with the best mean on validation counts, over the n seeds that "
    "ended well at every rate where the row did. The row shows all seeds of that rate. Either: validation is the same "
    "at every rate, as where nothing is repaired. Δ at other rates: test score there minus that here, paired by seed."
)
_MEASURED = 7


def _columns(found: Sequence[Line]) -> list[_Show]:
    """Every column but those of measured times; what is empty in every row is left out."""
    metric = next((line.facts["metric"] for line in found if line.facts["metric"]), "quality")
    way = ", lower is better," if any(line.row.sign < 0 for line in found) else ""
    aligned = any(line.facts["round_to"] > 1 for line in found)
    return [
        _Show("method", lambda f: f["method"], rank=1),
        _Show("keep asked", _text.asked, rank=2),
        _Show("kept", lambda f: "" if f["is_dense"] else _text.number(f["kept"], ".4f")),
        _Show("round to", lambda f: str(f["round_to"]) if aligned else ""),
        _Show("MACs (kept)", lambda f: _text.count(f, "macs"), rank=10),
        _Show("params (kept)", lambda f: _text.count(f, "params"), rank=11),
        _Show("nonzero", lambda f: _text.big(f["nonzero"])),
        _Show(f"{metric}{way} mean ± sd (n)", _text.quality, rank=3),
        _Show("repair rate", _text.repair_rate, rank=4),
        _Show("tier", lambda f: f["tier"], rank=6),
        _Show("Δ dense", lambda f: _text.difference(f, "difference"), rank=4),
        _Show("Δ best control", lambda f: _text.difference(f, "control_difference"), rank=9),
        _Show("detectable", lambda f: _text.number(f["detectable"], ".2f")),
        _Show("on val by rate (n)", lambda f: _text.repair_rate(f) and f["repair_on_val"]),
        _Show("Δ at other rates (n)", lambda f: _text.repair_rate(f) and f["repair_elsewhere"]),
        _Show(THEORETICAL, lambda f: _text.number(f["theoretical_speedup"], ".2f", "x"), rank=8),
        _Show("fidelity", lambda f: f["fidelity"]),
        _Show("dense epochs", _text.dense_epochs),
        _Show("search epochs", lambda f: _text.number(f["search_epochs"], ".1f")),
        _Show("compression epochs", lambda f: _text.number(f["compression_epochs"], ".1f")),
        _Show("offline", lambda f: f["offline"] or ""),
        _Show("claimed", _text.claimed),
        _Show("status", lambda f: f["status"], _doubts, rank=5),
    ]


def _doubts(row: Row) -> tuple[str, ...]:
    """Why seeds did not end well, timings that were refused, and environments that differ."""
    made = {_made_on(record) for record in (*row.counted, *row.dense.values())}
    mixed = [f"trained in {len(made)} environments: {'; '.join(sorted(made))}"] if len(made) > 1 else []
    return (*row.reasons, *row.refused, *mixed)


def _made_on(record: Record) -> str:
    env = record.environment
    return f"{env['cpu']}, torch {env['versions']['torch']}"


def speed(line: Line, c: Column) -> Entry:
    """The measured ratio; a footnote where the timing was disturbed."""
    facts = line.measured.get(c)
    if facts is None:
        return Entry()
    disturbed = tuple(f"disturbed: {m.disturbed}" for m in line.row.measured[c].values() if m.disturbed)
    return Entry(_text.speed(facts, is_dense=line.facts["is_dense"]), disturbed)


def _indicative(found: Sequence[Line]) -> str:
    """What a heading says of too few seeds."""
    few = [line.facts["difference_indicative"] for line in found if line.facts["difference_n"]]
    if not any(few):
        return ""
    return " (indicative: fewer than 6 seeds)" if all(few) else " (rows of fewer than 6 seeds are indicative)"


def _captions(found: Sequence[Line], ways: Sequence[Column]) -> Iterable[str]:
    yield from (f"{c.profile} {c.level} (machine {c.machine}): {c.caption}." for c in ways)
    yield " ".join(_words(found, ways))
    if missed := [line.facts for line in found if _misses(line)]:
        kept = "; ".join(f"{facts['method']} {_text.asked(facts)}, {facts['kept']:.4f}" for facts in missed)
        yield f"Methods that remove whole layers may miss a budget by half of the largest layer; kept: {kept}."
    if any(line.facts.get("repair_tries") for line in found):
        yield _CHOSEN
    if any(line.facts["tier"] for line in found):
        yield "Tier: rows of one budget that share a letter cannot be told apart (paired t-tests, Holm, 5 %)."
    for name, head in (("difference", "Δ dense"), ("control_difference", "Δ best control")):
        few = [line.facts for line in found if line.facts[f"{name}_indicative"]]
        if told := [_interval(facts, name) for facts in few if facts[f"{name}_low"] is not None]:
            yield f"{head} of fewer than 6 seeds, 95 % Student-t interval, which decides nothing: {'; '.join(told)}."
        if alone := sum(facts[f"{name}_low"] is None for facts in few):
            yield f"{head} of one seed has no interval ({alone} row{'s' * (alone > 1)})."
    known = [line for line in found if line.row.is_dense and line.row.first.published and line.facts["n"]]
    yield from dict.fromkeys(map(_published, known))


def _words(found: Sequence[Line], ways: Sequence[Column]) -> Iterable[str]:
    """What the heads of columns mean, of those that are there."""
    yield (
        "MACs are multiply-accumulates (FLOPs = 2 x MACs); shares are of the dense network's. Theoretical speed-up: "
        "dense MACs / MACs, counted."
    )
    if ways:
        yield (
            "Measured: dense latency / latency, of the first seed's network unless a number of seeds is given (the "
            "interval then spans all of theirs). No difference: within the A/A noise."
        )
    if any(line.facts["difference_n"] for line in found):
        yield "Δ: paired by seed, 95 % Student-t interval."
    if any(line.facts["control_difference"] is not None for line in found):
        yield "Best control: of the same budget, chosen on test, which favours it."
    if any(line.facts["detectable"] is not None for line in found):
        yield "Detectable: the smallest true difference to dense that so many seeds show in four of five tries."


def _misses(line: Line) -> bool:
    """Whether a row is right by its budget though it misses what was asked by more than the tolerance."""
    facts, budget = line.facts, line.row.first.cell["budget"]
    slack = 1.001 * budget["tolerance"] * budget["keep"]
    return not facts["is_dense"] and facts["status"] == "ok" and abs(facts["kept"] - budget["keep"]) > slack


def _interval(facts: Facts, name: str) -> str:
    low, high = facts[f"{name}_low"], facts[f"{name}_high"]
    against = f" against {facts['control']}" if name == "control_difference" else ""
    return f"{facts['method']} {_text.asked(facts)}{against} [{low:+.2f}, {high:+.2f}]"


def _published(line: Line) -> str:
    known = line.row.first.published
    said = f"Published weights claim {known['claimed']:.2f} ({known['source']}); measured {line.facts['mean']:.2f}."
    return f"{said} {known['note'].capitalize()}."


def _beside(found: Sequence[Line]) -> list[Table]:
    """A second table, of all other metrics, where there are any."""
    metrics = _scores.others(record for line in found for record in line.row.records)
    if not metrics:
        return []
    body = [
        (
            Entry(line.facts["method"]),
            Entry(_text.asked(line.facts)),
            *(Entry(_scores.shown(_scores.summary(line.row.counted, m), m)) for m in metrics),
            Entry(line.facts["status"]),
        )
        for line in found
    ]
    sets = _scores.images(record for line in found for record in line.row.records)
    many = (f"Images: {', '.join(f'{count} of {name}' for name, count in sets.items())}.",) if sets else ()
    heads = ("method", "keep asked", *metrics, "status")
    return [Table("Beside the headline, mean ± sd (n)", heads, tuple(body), many, level=4)]


def _taken(found: Sequence[Line], ways: Sequence[Column]) -> list[Table]:
    """A table of weights, latencies and memory, where any were measured."""
    if not ways:
        return []
    body = [
        (
            Entry(line.facts["method"]),
            Entry(_text.asked(line.facts)),
            Entry(_text.size(line.row.cost("bytes"))),
            *(Entry(_text.run(line.measured.get(c))) for c in ways),
        )
        for line in found
    ]
    heads = ("method", "keep asked", "weights", *(f"latency and memory, {title(c, ways)}" for c in ways))
    caption = "Weights, latency and memory (what loading and one batch add to a process that did both before)"
    return [Table(caption, heads, tuple(body), level=4)]


def title(c: Column, columns: Sequence[Column]) -> str:
    """A profile and its level; what else tells it from others of these: the machine, the input's shape, the threads."""
    alike = [other for other in columns if (other.profile, other.level) == (c.profile, c.level)]
    here = [other for other in alike if other.machine == c.machine]
    threads = {_threads(other) for other in here if other.shape == c.shape}
    more = [c.machine] * (len(alike) > 1) + [c.shape] * (len(here) > 1) + [_threads(c)] * (len(threads) > 1)
    return f"{c.profile} {c.level}" + (f" ({', '.join(more)})" if more else "")


def _threads(c: Column) -> str:
    """How many, as the caption has it: labels of earlier records do not say what "all" came to."""
    return next(iter(re.findall(r"\d+ thread\(s\)", c.caption)), "")
