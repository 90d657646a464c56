"""Records of suites go in; what a first screen shows of them comes out: methods x operating points, and a picture.

A table is of one task and one resource: rows of two recipes, or of channels and single weights, never share one.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench.again import has
from slimbench.core import UserError
from slimbench.reports import _text, audit, render
from slimbench.reports.figures import Line, lines
from slimbench.reports.rows import rows
from slimbench.reports.table import Entry, Table, title
from slimbench.reports.tuned import SAID, tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from slimbench.core import MeasurementRecord, Record, Suite
    from slimbench.reports.rows import Column

LEFT = {"macs": "MACs", "params": "params", "prunable_nonzero": "weights"}

_WITHIN = 0.5  # per cent points of what was asked for: it rounds to that
SEEN = "Quality by method and share that is left: means over seeds, 95 % intervals, and the dense network's as a line"
FOLDED = "Differences with their intervals, reasons, and the records behind every number"


@dataclass(frozen=True)
class Summary:
    """One heading (task, network, recipe, settings) of a suite, or of several that differ in the rate of repair."""

    heading: str
    found: tuple[Line, ...]
    left_out: int = 0  # rows that were not tried at every rate

    @property
    def title(self) -> str:
        """The heading without what all of one task and recipe share."""
        return self.heading.partition(";")[0] + (SAID.replace("; ", "\n") if self.is_tuned else "")

    @property
    def is_tuned(self) -> bool:
        """Whether each row's rate of repair was chosen."""
        return self.heading.endswith(SAID)

    @property
    def dense(self) -> Line | None:
        """The row that all others are compared with."""
        return next((line for line in self.found if line.facts["is_dense"]), None)

    @property
    def way(self) -> Column | None:
        """The way of timing that timed most rows; of equals the first by name."""
        ways = sorted({way for line in self.compressed for way in line.measured}, key=lambda way: way.place)
        return max(ways, key=lambda way: sum(way in line.measured for line in self.compressed), default=None)

    @property
    def resources(self) -> list[str]:
        """Those that some budget names."""
        return list(dict.fromkeys(line.facts["resource"] for line in self.compressed))

    def point(self, line: Line) -> str:
        """An operating point in words: what rows of one column share; its epochs where that parts two."""
        return f"{_asked(line)}, {_text.epochs(line.facts)}" if self._parted[_asked(line)] else _asked(line)

    @functools.cached_property
    def _parted(self) -> dict[str, bool]:
        epochs: dict[str, set[float]] = defaultdict(set)
        for line in self.compressed:
            epochs[_asked(line)].add(line.facts["epochs_asked"])
        return {name: len(some) > 1 for name, some in epochs.items()}

    @property
    def compressed(self) -> list[Line]:
        """All rows but the dense one."""
        return [line for line in self.found if not line.facts["is_dense"]]


def summaries(
    suites: Sequence[Suite], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> tuple[Summary, ...]:
    """The headings of a suite that have records; of several suites those that ran at several rates of repair.

    Raises: UserError where a table fails its audit.
    """
    mine = [record for record in records if any(has(suite, record) for suite in suites)]
    groups = rows(mine, measurements)
    if len(suites) > 1:
        chosen = tuned(groups).items()
        found = [
            Summary(name, tuple(lines(name, one.rows)), sum(map(len, one.left_out.values()))) for name, one in chosen
        ]
    else:
        found = [Summary(name, tuple(lines(name, group))) for name, group in groups.items()]
    kept = tuple(one for one in found if one.compressed)
    every = [table for one in kept for table in (*tables(one), _folded(one))]
    if problems := audit.tables(every, records, measurements):
        names = " + ".join(suite.name for suite in suites)
        raise UserError(f"The tables of {names} fail their audit: {'; '.join(map(str, problems[:5]))}.")
    return kept


def tables(one: Summary) -> list[Table]:
    """A table a resource: methods down, shares that are left across."""
    return [_table(one, resource) for resource in one.resources]


def _table(one: Summary, resource: str) -> Table:
    found = [line for line in one.compressed if line.facts["resource"] == resource]
    points = list(dict.fromkeys(map(one.point, found)))
    methods = sorted({line.facts["method"] for line in found})
    at = {(line.facts["method"], one.point(line)): line for line in found}
    fidelity = {line.facts["method"]: line.facts["fidelity"] for line in found}
    body = [
        (Entry(name), *(_entry(at.get((name, column))) for column in points), Entry(fidelity[name])) for name in methods
    ]
    every = [line for line in (one.dense, *one.compressed) if line]
    facts = tuple(dict(line.facts) for line in every)
    return Table(one.heading, ("method", *points, "fidelity"), tuple(body), (), facts)


def _asked(line: Line) -> str:
    facts = line.facts
    second = "" if facts["params_keep_asked"] is None else f", {100 * facts['params_keep_asked']:g} % of params"
    return f"{100 * facts['keep_asked']:g} % of {LEFT[facts['resource']]}{second}"


def reached(line: Line) -> str:
    """Mean ± sd (n), and what was kept where the share that was asked for, as a whole per cent, says otherwise."""
    text, asked = _text.quality(line.facts), 100 * line.facts["keep_asked"]
    if not text:
        return ""
    shares = sorted(100 * record.kept(line.facts["resource"]) for record in line.row.counted)
    least, most = f"{shares[0]:.1f}", f"{shares[-1]:.1f}"
    as_asked = line.row.is_met and all(abs(share - asked) < _WITHIN for share in shares)
    return text if as_asked else f"{text}, kept {least if least == most else f'{least} to {most}'} %"


def _entry(line: Line | None) -> Entry:
    """Mean ± sd (n), or what happened instead; whatever did not end well bears its reason."""
    if line is None:
        return Entry()
    return Entry(reached(line) or line.facts["status"], line.row.reasons, line.facts["ids"])


def markdown(suites: Sequence[str], one: Summary, picture: str, store: str = "reports") -> str:
    """The first screen: the tables, the picture, and folded away below them the reasons and the records."""
    metric = next(line.facts["metric"] for line in one.found if line.facts["metric"])
    few = [line.facts["difference_indicative"] for line in one.compressed if line.facts["difference_n"]]
    said = "Fewer than six seeds: indicative; nothing is ranked, nothing is bold." if few and all(few) else ""
    if any(few) and not said:
        said = "Rows of fewer than six seeds are indicative: they are not ranked, and nothing beside them is bold."
    dense = f"Dense: {_dense(one.dense)}." if one.dense else ""
    above = f"{metric} on test, mean ± sd (seeds). {dense} {_rates(one)} {said}".replace("  ", " ").strip()
    grids = "\n\n".join(map(render.grid, tables(one)))
    names = " and ".join(f"`{name}`" for name in suites)
    what = "tuned" if one.is_tuned else suites[0]
    made = f"Suite{'s' * one.is_tuned} {names}, {one.heading}. All columns: `bench report {what} --store {store}`."
    below = folded(FOLDED, _behind(one))
    return f"{above}\n\n{grids}\n\n{made}\n\n![{SEEN}]({picture})\n\n{below}"


def folded(title: str, text: str) -> str:
    """Markdown that opens on a click."""
    return f"<details markdown='1'><summary>{title}</summary>\n\n{text}\n\n</details>"


def _dense(line: Line) -> str:
    facts = line.facts
    return f"{_text.quality(facts)}, {_text.big(facts['macs'])} MACs, {_text.big(facts['params'])} params"


def _rates(one: Summary) -> str:
    """How often validation chose which rate; nothing where it chose none."""
    chosen = [line.facts["repair_rate"] for line in one.compressed if line.facts.get("repair_tries")]
    either = sum(_text.repair_rate(line.facts) == "either" for line in one.compressed)
    counts = Counter(rate for rate in chosen if rate is not None)
    if not counts:
        return ""
    words = [f"{n} row{'s' * (n > 1)} at {rate:g}" for rate, n in sorted(counts.items())]
    words += [f"{either} the same at every rate"] if either else []
    left = f"; left out: {one.left_out} not tried at every rate" if one.left_out else ""
    return f"Validation chose each row's rate of repair: {', '.join(words)}{left}."


def _behind(one: Summary) -> str:
    """Footnotes of each table, then the ids of each row; where there was a choice, at every rate that was tried."""
    timed = (
        [f"- Speeds in the picture, {title(one.way, [one.way])} (machine {one.way.machine}): {one.way.caption}."]
        if one.way
        else []
    )
    notes = [
        f"- {LEFT[resource]} [{i}]: {note}"
        for resource, table in zip(one.resources, tables(one), strict=True)
        for i, note in enumerate(table.notes, 1)
    ]
    return "\n".join([*timed, *notes, "", render.grid(_folded(one))]).strip()


def _folded(one: Summary) -> Table:
    """Every row's differences, and its ids; where there was a choice, at every rate that was tried."""
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {"method": lambda f: f["method"], "keep asked": _text.asked}
    if one.is_tuned:
        shown |= {"repair rate": _text.repair_rate, "on val by rate (n)": lambda f: f["repair_on_val"]}
    shown |= {
        "Δ dense (n)": lambda f: _text.whole_difference(f, "difference"),
        "Δ best control (n)": lambda f: _text.whole_difference(f, "control_difference"),
    }
    shown["records"] = lambda f: f.get("repair_tries") or f["ids"]
    body = tuple(tuple(Entry(text(line.facts)) for text in shown.values()) for line in one.found)
    return Table(one.heading, tuple(shown), body, (), tuple(dict(line.facts) for line in one.found))
