"""A document goes in; the same with its quoted numbers as the stored records have them comes out.

A footnote that names records makes a quote of the number before it: ``1.20 points ahead[^thin]`` is checked against
``[^thin]: 0909ed5109b11a98 minus 9b90995b3eac55c9``. So prose says nothing that a record does not, and goes on saying
it when records are added. Code in fences is left alone, and so are footnotes without records.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimbench.core import UserError
from slimbench.reports.rows import column, headline
from slimbench.statistics import Difference, paired, student

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from slimbench.core import Record
    from slimbench.store import Store

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_DEFINED = re.compile(r"^\[\^(?P<name>[^\]\s]+)\]: *(?P<said>.+(?:\n {2,}.+)*)", re.MULTILINE)
_IDS = r"[0-9a-f]{16}(?: [0-9a-f]{16})*"
_NAMES_RECORDS = re.compile(r"\b[0-9a-f]{16}\b")
_SAID = re.compile(rf"(?:(?P<what>.+?) of )?(?P<ours>{_IDS})(?: minus (?P<theirs>{_IDS}))?(?: on (?P<column>.+?))?\.?")
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?!\w)")
_INTERVAL = re.compile(r"\((?P<low>-?\d+\.\d+)\s+to\s+(?P<high>-?\d+\.\d+)[^()]*\)")
_PART = re.compile(
    r"\n[ \t]*\n|^[ \t]*(?:[-*+]|\d+\.)[ \t]|^\||^#", re.MULTILINE
)  # a paragraph, an item, a row of a table
_SHARES = ("macs", "params", "nonzero")
_HOW = (
    "say `IDS`, `METRIC of IDS`, `val of IDS`, `macs of IDS` (their share, in %), one of these with `minus IDS`, "
    "or `speed of ID on PROFILE LEVEL`"
)


@dataclass(frozen=True)
class _Quote:
    """What one footnote says: of which records, less those of which others, and how they were timed."""

    name: str
    what: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    column: str


def has_quotes(text: str) -> bool:
    """Whether some number in a document is quoted from records."""
    return bool(_quotes(text))


def quoted_into(text: str, store: Store) -> str:
    """``text`` with each quoted number, and the interval behind it, as the records of ``store`` have them.

    Numbers keep their decimals. Raises: UserError for a footnote whose records are not there, or do not have what it
    says, or that stands behind no number.
    """
    edits: dict[tuple[int, int], str] = {}
    for quote in _quotes(text):
        found = _found(quote, store)
        if not (markers := list(_markers(text, quote.name))):
            raise UserError(f"The footnote [^{quote.name}] names records, but stands behind nothing.")
        for marker in markers:
            for span, value in _numbers(text, marker, quote, found):
                new = _rounded(value, text[slice(*span)])
                if edits.setdefault(span, new) != new:
                    raise UserError(
                        f"Two footnotes say different things of one number, [^{quote.name}] is one of them."
                    )
    for (start, end), new in sorted(edits.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _quotes(text: str) -> list[_Quote]:
    """The footnotes that name records. Raises: UserError for one that says it in other words."""
    plain = _FENCED.sub("", text)
    return [
        _parsed(defined["name"], " ".join(defined["said"].split()))
        for defined in _DEFINED.finditer(plain)
        if _NAMES_RECORDS.search(defined["said"])
    ]


def _parsed(name: str, said: str) -> _Quote:
    if not (parts := _SAID.fullmatch(said)):
        raise UserError(f"The footnote [^{name}] names records in words that cannot be checked: {_HOW}.")
    ours, theirs = tuple(parts["ours"].split()), tuple((parts["theirs"] or "").split())
    return _Quote(name, parts["what"] or "", ours, theirs, parts["column"] or "")


def _markers(text: str, name: str) -> Iterator[int]:
    """Where a footnote stands in the text, outside of code."""
    fences = [match.span() for match in _FENCED.finditer(text)]
    marker = rf"\[\^{re.escape(name)}\]"
    for match in re.finditer(rf"(?!^{marker}:){marker}", text, re.MULTILINE):
        if not any(start <= match.start() < end for start, end in fences):
            yield match.start()


def _numbers(text: str, marker: int, quote: _Quote, found: Difference) -> Iterator[tuple[tuple[int, int], float]]:
    """Spans of the number before a marker and of its interval's ends, each with its value."""
    start = max((part.end() for part in _PART.finditer(text, 0, marker)), default=0)
    numbers = list(_NUMBER.finditer(text, start, marker))
    for interval in _INTERVAL.finditer(text, start, marker):
        if numbers and interval.end("high") == numbers[-1].end():
            if not math.isfinite(found.high):
                raise UserError(f"[^{quote.name}] is of one seed, which has no interval: take it out of the text.")
            yield interval.span("low"), found.low
            yield interval.span("high"), found.high
            numbers = numbers[:-2]
    if not numbers:
        raise UserError(f"There is no number with decimals before [^{quote.name}] in its paragraph, item or row.")
    yield numbers[-1].span(), found.mean


def _rounded(value: float, like: str) -> str:
    """With as many decimals; never a negative zero."""
    places = len(like.partition(".")[2])
    return f"{round(value, places) + 0.0:.{places}f}"


def _found(quote: _Quote, store: Store) -> Difference:
    if quote.what == "speed":
        return _speed(quote, store)
    if quote.column:
        raise UserError(f"[^{quote.name}] says how it was timed, but only a speed is timed: {_HOW}.")
    ours, theirs = (_values(quote, ids, store) for ids in (quote.ours, quote.theirs))
    if not quote.theirs:
        return student(list(ours.values()))
    if ours.keys() != theirs.keys():
        raise UserError(f"[^{quote.name}] compares seeds {sorted(ours)} with seeds {sorted(theirs)}: name the same.")
    found = paired(ours, theirs)
    assert found is not None  # there are seeds, and they are the same
    return found


def _values(quote: _Quote, ids: Sequence[str], store: Store) -> dict[int, float]:
    """By seed, what the footnote says of each record."""
    values: dict[int, float] = {}
    for of_it in ids:
        record = store.record(of_it)
        if record is None:
            raise UserError(f"[^{quote.name}] names the record {of_it}, which {store.root} does not have.")
        value = _value(record, quote.what)
        if value is None:
            said = quote.what or "score"
            raise UserError(f"[^{quote.name}] quotes the {said} of {of_it}, which ended as {record.status} without it.")
        if (seed := record.cell["seed"]) in values:
            raise UserError(f"[^{quote.name}] names two records of seed {seed} on one side.")
        values[seed] = value
    return values


def _value(record: Record, what: str) -> float | None:
    if what in _SHARES:
        return 100 * getattr(record.cost, what) / getattr(record.dense_cost, what) if record.cost else None
    if what == "val":
        return next((scores.value for scores in record.val_quality.values()), None)
    if not what:
        return next(iter(headline([record]).values()), None)
    return record.quality[what].value if what in record.quality else None


def _speed(quote: _Quote, store: Store) -> Difference:
    """Dense latency / latency, with the interval of the timing."""
    if len(quote.ours) != 1 or quote.theirs:
        raise UserError(f"[^{quote.name}] quotes a speed of several networks: a timing is of one.")
    taken = {
        f"{(where := column(m)).profile} {where.level}, machine {where.machine}": m.measurement
        for m in sorted(store.timings(), key=lambda m: (m.finished, m.id))
        if m.cell_id == quote.ours[0] and m.measurement
    }
    fitting = [m for place, m in taken.items() if quote.column in {place, place.partition(", machine ")[0]}]
    if len(fitting) != 1:
        places = "; ".join(taken) or "nothing"
        raise UserError(f"[^{quote.name}] needs `on` and one of what {quote.ours[0]} was timed on: {places}.")
    return Difference(fitting[0].ratio, fitting[0].ratio_low, fitting[0].ratio_high, 1)
