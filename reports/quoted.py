"""A document goes in; the same with its quoted numbers as the stored records have them comes out.

A footnote that names records makes a quote of the number before it: ``1.20 points[^thin] ahead`` is checked against
``[^thin]: 0909ed5109b11a98 minus 9b90995b3eac55c9``. So prose says nothing that a record does not, and goes on saying
it when records are added. What could be another number than the one that is meant is refused, not guessed.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError
from slimbench.reports.rows import column, distinct, distinct_pairs, headline, what
from slimbench.statistics import Difference, paired, student

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from slimbench.core import Measurement, MeasurementRecord, Record
    from slimbench.store import Store

Span = tuple[int, int]

# blocks of code and comments hold neither footnotes nor quotes; words in code and links hold no quotes
_BLOCKS = r"^ {0,3}(?P<fence>```+|~~~+)[^\n`]*\n.*?^ {0,3}(?P=fence)[^\n]*$|<!--.*?-->"
_WORDS = r"(?P<ticks>`+)[^`\n]+(?P=ticks)(?!`)|\[[^\]^][^\]\n]*\]\([^()\n]*\)|https?://\S+"
_FOOTNOTE = re.compile(
    r"^[ >]{0,3}\[\^(?P<name>[^\]\n]+)\]:(?P<said>.*(?:\n(?![ >]{0,3}\[\^|[ \t]*$|#).+)*)", re.MULTILINE
)
_HEXADECIMAL = re.compile(r"\b[0-9a-f]{16}\b|\b(?=\w*\d)(?=\w*[a-fA-F])[0-9a-fA-F]{8,}\b")
_IDS = r"[0-9a-f]{16}(?: [0-9a-f]{16})*"
_SAID = re.compile(rf"(?:(?P<what>.+?) of )?(?P<ours>{_IDS})(?: minus (?P<theirs>{_IDS}))?(?: on (?P<column>.+?))?\.?")
_N = r"[+\u2212-]?\d+\.\d+"
_INTERVAL = rf"\((?P<low>{_N})\s+to\s+(?P<high>{_N})[^()]*\)|\[(?P<least>{_N}),\s*(?P<most>{_N})\]"
# right before a footnote, but for a unit
_QUOTED = re.compile(
    rf"(?<![\w.,/\u2012-\u2015\u2212+-])(?P<number>{_N})(?:\s*(?:points?|times|dB|%|x|ms|MB))?(?:\s*(?:{_INTERVAL}))?$"
)
_INSIDE = re.compile(r"(?:±\s*|\d\s+to\s+|[(\[][^()\[\]]*\d[^()\[\]]*)$")  # before it: it ends a spread or a range
_BEHIND = re.compile(r"\s*(?:±|[(\[](?!\^)[^()\[\]]*\d)")
_PART = re.compile(r"\n[ \t]*\n|^[ \t>]*(?:[-*+]|\d+[.)])[ \t]|^#.*$|\||\[\^[^\]\n]+\]", re.MULTILINE)
_DISTURBED = ", disturbed"
_SHARES = ("macs", "params", "nonzero")
_TIMED = ("speed", "noise", "latency", "dense latency", "memory", "dense memory")
_HOW = (
    "say `IDS`, `METRIC of IDS`, `val of IDS`, `macs of IDS` (their share, in %), one of these with `minus IDS`, "
    f"or `speed of ID on PROFILE LEVEL` (or {', '.join(_TIMED[1:])}), each id in full"
)


@dataclass(frozen=True)
class _Quote:
    """What one footnote says: of which records, less those of which others, and how they were timed."""

    name: str
    what: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    column: str


@dataclass(frozen=True)
class _Records:
    """A store whose timings are read once."""

    store: Store

    @functools.cached_property
    def timings(self) -> list[MeasurementRecord]:
        return sorted(self.store.timings(), key=lambda m: (m.finished, m.id))


def has_quotes(text: str) -> bool:
    """Whether some footnote of a document names records."""
    return bool(_quotes(_without(text, _BLOCKS)))


def quoted_into(text: str, store: Store) -> str:
    """``text`` with each quoted number, and the interval behind it, as the records of ``store`` have them.

    Numbers keep their decimals and their kind of sign. Raises: UserError for a footnote whose records are not there, do
    not have what it says or cannot be compared, and where it is not sure which number it stands behind.
    """
    for (start, end), new in sorted(edits(text, store).items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def edits(text: str, store: Store) -> dict[Span, str]:
    """Where each quoted number stands in ``text``, and what belongs there. Raises: UserError."""
    footnotes, plain, records = _without(text, _BLOCKS), _without(text, f"{_BLOCKS}|{_WORDS}"), _Records(store)
    found: dict[Span, str] = {}
    for quote in _quotes(footnotes):
        value = _found(quote, records)
        if not (markers := _markers(plain, quote.name)):
            raise UserError(f"The footnote [^{quote.name}] names records, but stands behind nothing.")
        for marker in markers:
            found |= _numbers(plain, marker, quote.name, value)
    return found


def _without(text: str, what_is: str) -> str:
    """As long, with blanks for what is not looked at."""
    apart = re.compile(what_is, re.DOTALL | re.MULTILINE)
    return apart.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _quotes(text: str) -> list[_Quote]:
    """The footnotes that name records. Raises: UserError for one that says it in other words."""
    found = [(one["name"], " ".join(one["said"].replace("`", "").split())) for one in _FOOTNOTE.finditer(text)]
    return [_parsed(name, said) for name, said in found if _HEXADECIMAL.search(said)]


def _parsed(name: str, said: str) -> _Quote:
    if not (parts := _SAID.fullmatch(said)):
        raise UserError(f"The footnote [^{name}] names records in words that cannot be checked: {_HOW}.")
    ours, theirs = tuple(parts["ours"].split()), tuple((parts["theirs"] or "").split())
    return _Quote(name, parts["what"] or "", ours, theirs, parts["column"] or "")


def _markers(plain: str, name: str) -> list[Span]:
    """Where a footnote stands in the text; not where it is written."""
    written = {one.start("name") - len("[^") for one in _FOOTNOTE.finditer(plain)}
    markers = (match.span() for match in re.finditer(rf"\[\^{re.escape(name)}\]", plain))
    return [(start, end) for start, end in markers if start not in written]


def _numbers(plain: str, marker: Span, name: str, found: Difference) -> dict[Span, str]:
    """The number before a marker and the ends of its interval: where they stand, and what belongs there."""
    start = max((part.end() for part in _PART.finditer(plain, 0, marker[0])), default=0)
    if _BEHIND.match(plain, marker[1]):
        raise UserError(f"A number in brackets stands behind [^{name}]: put an interval before the footnote.")
    quoted = _QUOTED.search(plain[start : marker[0]])
    if not quoted or _INSIDE.search(plain[start : start + quoted.start()]):
        before = plain[start : marker[0]].strip()[-40:]
        raise UserError(
            f"It is not sure which number [^{name}] is of ({before!r}): put it right behind a number with decimals, "
            "its unit (points, times, dB, %) or its interval, (LOW to HIGH) or [LOW, HIGH]."
        )
    ends = {"number": found.mean, "low": found.low, "high": found.high, "least": found.low, "most": found.high}
    there = {end: value for end, value in ends.items() if quoted[end]}
    if not all(map(math.isfinite, there.values())):
        raise UserError(f"[^{name}] is of one value, which has no interval: take it out of the text.")
    return {
        (start + quoted.start(end), start + quoted.end(end)): _rounded(value, quoted[end])
        for end, value in there.items()
    }


def _rounded(value: float, like: str) -> str:
    """With as many decimals and that kind of sign; never a negative zero."""
    places = len(like.partition(".")[2])
    text = f"{round(value, places) + 0.0:.{places}f}"
    if like.startswith("+") and not text.startswith("-"):
        return f"+{text}"
    return text.replace("-", "\u2212") if like.startswith("\u2212") else text


def _found(quote: _Quote, records: _Records) -> Difference:
    if quote.what in _TIMED:
        return _measured(quote.what, _timing(quote, records), quote.name)
    if quote.column:
        raise UserError(f"[^{quote.name}] says how it was timed, but {quote.what or 'a score'} is not timed: {_HOW}.")
    ours, theirs = (_side(quote, ids, records.store) for ids in (quote.ours, quote.theirs))
    if not theirs:
        return student(list(_values(quote, distinct(ours.values())).values()))
    if ours.keys() != theirs.keys():
        raise UserError(f"[^{quote.name}] compares seeds {sorted(ours)} with seeds {sorted(theirs)}: name the same.")
    metrics = {next(iter(record.quality)) for record in (*ours.values(), *theirs.values())}
    if len(metrics) > 1:
        raise UserError(f"[^{quote.name}] takes {' from '.join(sorted(metrics))}: name records of one metric.")
    if unlike := _unlike(*(next(iter(side.values())).cell for side in (ours, theirs))):
        raise UserError(f"[^{quote.name}] compares {unlike}: name records of one task on the same data.")
    found = paired(*(_values(quote, side.values()) for side in distinct_pairs(ours.values(), theirs.values())))
    assert found is not None  # there are seeds, and they are the same
    return found


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Of two cells, what no difference of scores is of, in words; their networks and recipes may differ."""
    tasks = [cell["task"] for cell in (ours, theirs)]
    if any(tasks[0][name] != tasks[1][name] for name in ("is", "family")):
        return f"{tasks[0]['label']} with {tasks[1]['label']}"
    return "" if ours["data"] == theirs["data"] else f"data {ours['data'][:6]} with data {theirs['data'][:6]}"


def _side(quote: _Quote, ids: Sequence[str], store: Store) -> dict[int, Record]:
    """By seed, records of one row that ended well. Raises: UserError."""
    found: dict[int, Record] = {}
    for of_it in ids:
        record = store.record(of_it)
        if record is None:
            why = f" ({store.warnings[-1]})" if store.warnings else ""
            raise UserError(f"[^{quote.name}] names the record {of_it}, which {store.root} does not have{why}.")
        if record.status != "ok" or not record.quality:
            raise UserError(f"[^{quote.name}] names {of_it}, which ended as {record.status}: it has nothing to quote.")
        if record.cell["seed"] in found:
            raise UserError(f"[^{quote.name}] names two records of seed {record.cell['seed']} on one side.")
        found[record.cell["seed"]] = record
    if len({what(record) for record in found.values()}) > 1:
        raise UserError(f"[^{quote.name}] names records on one side that differ in more than the seed.")
    return found


def _values(quote: _Quote, side: Iterable[Record]) -> dict[int, float]:
    values = {record.cell["seed"]: (record.id, _value(record, quote.what)) for record in side}
    if missing := [of_it for of_it, value in values.values() if value is None]:
        raise UserError(f"[^{quote.name}] quotes {quote.what!r} of {min(missing)}, which does not have it: {_HOW}.")
    return {seed: value for seed, (_, value) in values.items() if value is not None}


def _value(record: Record, name: str) -> float | None:
    if name in _SHARES:
        return 100 * getattr(record.cost, name) / getattr(record.dense_cost, name) if record.cost else None
    if name == "val":
        return next((scores.value for scores in record.val_quality.values()), None)
    if not name:
        return headline([record])[record.cell["seed"]]
    return record.quality[name].value if name in record.quality else None


def _timing(quote: _Quote, records: _Records) -> Measurement:
    """Raises: UserError unless the footnote names one, and says so where it was disturbed."""
    if len(quote.ours) != 1 or quote.theirs:
        raise UserError(f"[^{quote.name}] quotes the {quote.what} of several networks: a timing is of one.")
    taken = {
        f"{(where := column(m)).profile} {where.level}, machine {where.machine}": m.measurement
        for m in records.timings
        if m.cell_id == quote.ours[0] and m.measurement
    }
    asked = quote.column.removesuffix(_DISTURBED)
    fitting = [m for place, m in taken.items() if asked in {place, place.partition(", machine ")[0]}]
    if len(fitting) != 1:
        places = "; ".join(taken) or "nothing"
        raise UserError(f"[^{quote.name}] needs `on` and one of what {quote.ours[0]} was timed on: {places}.")
    if bool(fitting[0].disturbed) != quote.column.endswith(_DISTURBED):
        said = f"was disturbed ({why})" if (why := fitting[0].disturbed) else "was not disturbed"
        raise UserError(
            f"[^{quote.name}]: that timing {said}; end the footnote with{'' if why else 'out'} `{_DISTURBED}`."
        )
    return fitting[0]


def _measured(name: str, one: Measurement, footnote: str) -> Difference:
    """Speed is dense latency / latency, noise how far dense against itself reached in %; times in ms, memory in MB."""
    if name == "speed":
        return Difference(one.ratio, one.ratio_low, one.ratio_high, 1)
    value = {
        "noise": 100 * one.noise,
        "latency": one.p50_ms,
        "dense latency": one.dense_p50_ms,
        "memory": one.peak_bytes and one.peak_bytes / 1e6,
        "dense memory": one.dense_peak_bytes and one.dense_peak_bytes / 1e6,
    }[name]
    if value is None:
        raise UserError(f"[^{footnote}] quotes the {name}, which that timing does not have.")
    return student([value])
