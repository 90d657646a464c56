"""Tables go in; texts that do not say what the facts behind them say come out: part of ``audit``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from slimbench.reports._text import BOLD, PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.reports.table import Entry, Table

    Facts = Mapping[str, Any]

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]\d+)?")
_SHARE = re.compile(r"([\d.e+-]+) % of ")  # heads of operating points
_DELTAS = {"Δ dense": "difference", "Δ best control": "control_difference"}
_TIMED, _TAKEN = "measured speed-up", "latency and memory"


def problems(tables: Iterable[Table]) -> Iterator[tuple[Table, str]]:
    """Each table with what is wrong in it; what stands below a table and has no facts of its own is read by that's."""
    above: Sequence[Facts] = ()
    for table in tables:
        own = [line for line in table.facts if line.get("group")]
        above = own or (above if table.level == 4 else ())
        yield from ((table, what) for what in (_of_rows(table, above) if _is_of_rows(table, above) else _grid(table)))


def _is_of_rows(table: Table, facts: Sequence[Facts]) -> bool:
    """Whether each row is of the next fact: then no entry has to say of which records it is."""
    alone = not any(entry.ids for row in table.body for entry in row)
    return alone and "keep asked" in table.heads and len(table.body) == len({line["ids"] for line in facts})


def _of_rows(table: Table, facts: Sequence[Facts]) -> Iterator[str]:
    """A table of one row a method and operating point."""
    lines: dict[str, list[Facts]] = {}
    for line in facts:
        lines.setdefault(line["ids"], []).append(line)
    for of_row, row in zip(lines.values(), table.body, strict=True):
        line = of_row[0]
        for head, entry in zip(table.heads, row, strict=True):
            where = f"{line['method']}, {head}"
            yield from _reads(where, entry.text, _wanted(head, of_row))
            if head.endswith("mean ± sd (n)") and BOLD in entry.text and not line["is_best"]:
                yield f"{line['method']} is bold, and not beyond the spread"


def _wanted(head: str, of_row: Sequence[Facts]) -> Sequence[float | None] | None:
    """The numbers that a cell under this head begins with; None: not looked at."""
    line = of_row[0]
    if head.endswith("mean ± sd (n)"):
        return _quality(line)
    if head == "theoretical speed-up":
        return [line["theoretical_speedup"]]
    if head in _DELTAS:
        return [line[_DELTAS[head]]]
    if (name := head.removesuffix(" (n)")) in _DELTAS:
        name = _DELTAS[name]
        interval = [line[f"{name}_low"], line[f"{name}_high"]] if line[f"{name}_low"] is not None else []
        return [line[name]] if line[name] is None else [line[name], *interval, line[f"{name}_n"]]
    if f"mean of {head}" in line:
        spread = line[f"sd of {head}"]
        return [line[f"mean of {head}"], *([] if spread is None else [spread])]
    if head == "measured / theoretical":
        return [None if line["is_dense"] else line["measured_speedup"] / line["theoretical_speedup"]]
    for start, names in ((_TIMED, ("measured_speedup",)), (_TAKEN, ("p50_ms", "p90_ms"))):
        kind, _, way = head.partition(", ")
        if kind == start:
            found = [f for f in of_row if "profile" in f and way in _ways(f)]
            if line["is_dense"] and start == _TIMED:
                return [1.0, found[0]["p50_ms"]] if found else [None]
            return [found[0][name] for name in names] if found else [None]
    return None


def _ways(line: Facts) -> set[str]:
    """How heads may name its way of timing: as far as it has to be told from others."""
    profile, machine = line["profile"], line["machine"]
    return {"", profile, f"{profile} ({machine})", f"{profile} ({machine}, {line['input']})"}


def _quality(line: Facts) -> Sequence[float | None]:
    return [None] if line["mean"] is None else [line["mean"], *([] if line["sd"] is None else [line["sd"]]), line["n"]]


def _grid(table: Table) -> Iterator[str]:
    """A table of methods down and points or tasks across, whose entries name the records that they are of."""
    by_ids = {line["ids"]: line for line in table.facts if line.get("group")}
    for row in table.body:
        for head, entry in zip(table.heads, row, strict=True):
            if entry.ids:
                yield from _point(f"{row[0].text}, {head}", row[0].text, head, entry, by_ids)
            elif by_ids and _SHARE.match(head) and entry.text:
                yield f"{row[0].text}, {head}: {entry.text!r} is of no records"


def _point(where: str, method: str, head: str, entry: Entry, by_ids: Mapping[str, Facts]) -> Iterator[str]:
    line, share = by_ids.get(entry.ids), _SHARE.match(head)
    if (
        line is None
        or line["method"] != method
        or (share and float(share[1]) != float(f"{100 * line['keep_asked']:g}"))
    ):
        yield f"{where}: its records are of {line['method'] if line else 'no row'}"
    elif not share:  # across tasks: the difference to the dense network, its interval where that decides something
        interval = [] if line["difference_indicative"] else [line["difference_low"], line["difference_high"]]
        yield from _reads(where, entry.text, [line["difference"], *interval, line["difference_n"]])
    elif line["mean"] is not None:
        yield from _reads(where, entry.text, _quality(line))


def _reads(where: str, text: str, wanted: Sequence[float | None] | None) -> Iterator[str]:
    """Whether a text's first numbers are these, to the digits that it has; None: there is to be none."""
    if wanted is None:
        return
    found = _NUMBER.findall(text.replace(BOLD, "").replace(PLAIN, "").replace("p90", ""))
    values = [value for value in wanted if value is not None]
    if len(found) < len(values) or (found and not values):
        yield f"{where}: {text!r} is printed for {', '.join(map(str, values)) or None}"
    for said, value in zip(found, values, strict=False):
        digits, _, power = said.partition("e")
        step = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
        if abs(float(said) - value) > 0.5 * step * (1 + 1e-6):
            yield f"{where}: {said} is printed for {value:g}"
