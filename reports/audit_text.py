"""Tables go in; texts that do not say what the facts behind them say come out: part of ``audit``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from slimbench.reports import audit_claims
from slimbench.reports._text import BOLD, PLAIN
from slimbench.statistics import ENOUGH_SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from slimbench.reports.audit import Known
    from slimbench.reports.table import Entry, Table

    Facts = Mapping[str, Any]
    Wanted = Sequence[float | str | None]  # numbers in their order, then the words that a text ends in
    Reader = Callable[[Facts], Wanted]

_NUMBER = re.compile(r"([+-]?\d+(?:\.(\d+))?)(?:e([+-]\d+))?(?: ([kMG])\b)?")
_POWERS = {"": 0, "k": 3, "M": 6, "G": 9}
_SHARE = re.compile(r"([\d.e+-]+) % of [^,]+(?:, ([\d.e+-]+) % of params)?(?:, ([\d.e+-]+) epochs?)?$")
_DELTAS = {"Δ dense": "difference", "Δ best control": "control_difference"}
_TIMED, _TAKEN, _AREA = "measured speed-up", "latency and memory", "area under the curve"


def problems(tables: Sequence[Table], known: Known) -> Iterator[tuple[Table, str]]:
    """Each table with what is wrong in it; what stands below a table and has no facts of its own is read by that's."""
    above: Sequence[Facts] = ()
    for table, below in zip(tables, [*tables, None][1:], strict=True):
        own = [line for line in table.facts if line.get("group")]
        above = own or (above if table.level == 4 else ())
        if _is_of_rows(table, above):
            found = _of_rows(table, above, known)
        elif own:
            found = _grid(table, {line["ids"]: {**line, **known.unsaid(line)} for line in own})
        else:
            found = _of_claims(table, [line for line in below.facts if "gap" in line] if below else [], known)
        yield from ((table, what) for what in found)


def _is_of_rows(table: Table, facts: Sequence[Facts]) -> bool:
    """Whether each row is of the next fact: then no entry has to say of which records it is."""
    if any(entry.ids for row in table.body for entry in row) or any(map(_SHARE.match, table.heads)):
        return False
    return bool(facts) or "keep asked" in table.heads  # which is left out where all are dense networks


def _of_rows(table: Table, facts: Sequence[Facts], known: Known) -> Iterator[str]:
    """A table of one row a method and operating point; facts alone, as of a CSV, print nothing."""
    lines: dict[str, list[Facts]] = {}
    for line in facts:
        lines.setdefault(line["ids"], []).append(line)
    if len(lines) != len(table.body):
        if table.body:
            yield f"has {len(table.body)} rows, and facts of {len(lines)}"
        return
    metrics = {name.removeprefix("mean of ") for line in facts for name in line if name.startswith("mean of ")}
    for (first, *others), row in zip(lines.values(), table.body, strict=True):
        line = {**first, **known.unsaid(first)}
        for head, entry in zip(table.heads, row, strict=True):
            where = f"{line['method']}, {head}"
            if head in metrics:
                wanted: Wanted | None = [line.get(f"{what} of {head}") for what in ("mean", "sd", "n")]
            else:
                wanted = _wanted(head, entry.text, [line, *others])
            yield from _reads(where, entry.text, wanted)
            if head.endswith("mean ± sd (n)") and BOLD in entry.text and not line["is_best"]:
                yield f"{line['method']} is bold, and not beyond the spread"


def _wanted(head: str, text: str, of_row: Sequence[Facts]) -> Wanted | None:
    """What a cell under this head says of a row; None: nobody knows the head."""
    line, (kind, _, way) = of_row[0], head.partition(", ")
    if head in _OF_ROWS:
        return _OF_ROWS[head](line)
    if head in WORDS_ONLY:
        return [text]
    if head.endswith("mean ± sd (n)"):
        return _quality(line)
    if (name := head.removesuffix(" (n)")) in _DELTAS:
        name = _DELTAS[name]
        return [line[name], *([] if line[name] is None else [line[f"{name}_{end}"] for end in ("low", "high", "n")])]
    if head == "on val by rate (n)":  # of the dense network only where all rows are folded away
        return [line["repair_on_val"] if text or _rate(line) else ""]
    if head == "records":
        return [_ids(line.get("repair_tries") or line["ids"], text)]
    if kind in _OF_WAYS:
        found = [f for f in of_row if "profile" in f and way in _ways(f)]
        return _OF_WAYS[kind](found[0]) if found else []
    return None


# ------------------------------------------------------------------------------------------ one row's facts by head


def _asked(f: Facts) -> str:
    second = "" if f["params_keep_asked"] is None else f", {f['params_keep_asked']:g} params"
    return "" if f["is_dense"] else f"{f['keep_asked']:g} {f['resource']}{second}"


def _count(name: str) -> Reader:
    """A count and its share of the dense network's, in per cent."""
    return lambda f: [f[name], None if f["is_dense"] or f[f"{name}_kept"] is None else 100 * f[f"{name}_kept"]]


def _delta(name: str, against: Callable[[Facts], str]) -> Reader:
    """A difference; its interval where that decides something."""

    def read(f: Facts) -> Wanted:
        if f[name] is None:
            return []
        interval = [] if f[f"{name}_indicative"] else [f[f"{name}_low"], f[f"{name}_high"]]
        return [f[name], *interval, against(f)]

    return read


def _rate(f: Facts) -> Wanted:
    if f["is_dense"] or not f.get("repair_tries") or f["mean"] is None:
        return []
    return ["either" if f["repair_rate"] is None else f["repair_rate"]]


def _claimed(f: Facts) -> Wanted:
    note = f["claimed_note"] or ""
    return [f["claimed"], f"({note})" if f["is_dense"] and note else note]


def _speed(f: Facts) -> Wanted:
    """The ratio, its interval, its seeds and what it says; a text that says nothing ends in a bracket."""
    if f["is_dense"]:
        return [1.0, f["p50_ms"], 100 * f["noise"]]
    low, high, seeds = f["measured_low"], f["measured_high"], f["measured_seeds"]
    said = "seeds)" if seeds > 1 else "]"
    if high < 1 - f["noise"]:
        said = "slower than dense"
    elif low <= 1 + f["noise"]:
        said = "no difference"
    return [f["measured_speedup"], low, high, *([seeds] if seeds > 1 else []), said]


def _realised(f: Facts) -> Wanted:
    return [] if f["is_dense"] else [f["measured_speedup"] / f["timed_theoretical_speedup"]]


def _mega(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def _quality(f: Facts) -> Wanted:
    return [] if f["mean"] is None else [f["mean"], f["sd"], f["n"]]


_OF_WAYS: dict[str, Reader] = {  # heads that name a way of timing behind a comma, but where a table is of one
    _TIMED: _speed,
    _TAKEN: lambda f: [f["p50_ms"], f["p90_ms"], _mega(f["peak_bytes"])],
}
_OF_ROWS: dict[str, Reader] = {
    "method": lambda f: [f["method"]],
    "keep asked": lambda f: [_asked(f)],
    "kept": lambda f: [None if f["is_dense"] else f["kept"]],
    "round to": lambda f: [f["round_to"]],
    "MACs (kept)": _count("macs"),
    "params (kept)": _count("params"),
    "nonzero": lambda f: [f["nonzero"]],
    "weights": lambda f: [_mega(f["bytes"])],
    "repair rate": _rate,
    "tier": lambda f: [f["tier"] or ""],
    "Δ dense": _delta("difference", lambda f: ""),
    "Δ best control": _delta("control_difference", lambda f: f"({f['control']})"),
    "Δ at other rates (n)": lambda f: [f["repair_elsewhere"] if _rate(f) else ""],
    "detectable": lambda f: [f["detectable"]],
    "theoretical speed-up": lambda f: [f["theoretical_speedup"]],
    "measured / theoretical": _realised,
    "fidelity": lambda f: [f["fidelity"]],
    "dense epochs": lambda f: ["published" if f["weights"] else f["dense_epochs"]],
    "search epochs": lambda f: [f["search_epochs"]],
    "compression epochs": lambda f: [f["compression_epochs"]],
    "offline": lambda f: [f["offline"] or ""],
    "claimed": _claimed,
    "status": lambda f: [f["status"]],
}
WORDS_ONLY = {"task": "a heading in short; the row's own columns are read, and its ids say its records"}


def _ways(line: Facts) -> set[str]:
    """How heads may name its way of timing: as far as it has to be told from others."""
    profile, machine, shape = line["profile"], line["machine"], line["input"]
    told = (machine, f"{machine}, {shape}", f"{machine}, {shape}, {line['threads']} thread(s)")
    return {"", profile, *(f"{profile} ({more})" for more in told)}


def _ids(ids: str, text: str) -> str:
    """Whole, or their first eight digits, as a text has them."""
    return ids if max(map(len, text.split()), default=0) > 8 else " ".join(name[:8] for name in ids.split())


# ------------------------------------------------------------------------------------------------------- claims

_OURS = "ours, interval (n)"
_OF_CLAIMS: dict[str, Reader] = {
    "paper": lambda f: [f["paper"]],
    "claim": lambda f: [f["claim"]],
    "claimed": lambda f: [] if f["claimed"] is None else [f["claimed"], f"({f['convention']})"],
    "passes when": lambda f: [f["criterion"]],
    "fidelity": lambda f: [f["fidelity"]],
    "source": lambda f: [f["source"]],
    "where": lambda f: [f["where"]],
    "ours": lambda f: [f"{f['method']} {_asked(f)}".strip()],
    "against": lambda f: [f["against"] or ""],
    "figure": lambda f: [f["figure"]],
    _OURS: lambda f: [f["ours"], f["low"], f["high"], f["n"]],
    "gap to claimed": lambda f: [f["gap"]],
    "gap in standard errors": lambda f: [f["errors"]],
    "recipe": lambda f: [f["recipe"]],
    "verdict": lambda f: [f.get("in words") or f["verdict"]],
}


def _of_claims(table: Table, behind: Sequence[Facts], known: Known) -> Iterator[str]:
    """A table of one row a claim, with what decided it, or of one row a finding. ``behind``: the findings below it."""
    facts = [line for line in table.facts if "claim" in line]
    if "verdict" in table.heads and behind:
        yield from _decided(table, behind, known)
    if facts and len(facts) != len(table.body):
        yield f"has {len(table.body)} rows, and facts of {len(facts)}"
        return
    for line, row in zip(facts, table.body, strict=False):
        for head, entry in zip(table.heads, row, strict=True):
            reader = _OF_CLAIMS.get(head)
            wanted = [_ids(line["ids"], entry.text)] if head == "records" else reader and reader(line)
            yield from _reads(f"{line['claim']}, {head}", entry.text, wanted)


def _decided(table: Table, behind: Sequence[Facts], known: Known) -> Iterator[str]:
    """Whether each claim's verdict, and the figures beside it, are those of the findings that decide."""
    for row in table.body:
        texts = {head: entry.text for head, entry in zip(table.heads, row, strict=True)}
        claim, verdict = texts["claim"], texts["verdict"]
        used, right = known.decided(claim, [line for line in behind if line["claim"] == claim])
        if verdict.partition(" (")[0] != right:
            yield f"{claim}: {verdict!r} is printed, and its findings say {right}"
        seeds = min((line["n"] for line in used), default=ENOUGH_SEEDS)
        limits = {
            "reduced recipe": any(line["recipe"].startswith("reduced: ") for line in used),
            f"indicative: {seeds} seed{'s' * (seeds > 1)}": seeds < ENOUGH_SEEDS,
        }
        for limit, is_one in limits.items():
            if is_one != (re.search(rf"[(;] ?{limit}[;)]", verdict) is not None):
                yield f"{claim}: {verdict!r} is printed, and {limit!r} is {'' if is_one else 'not '}to be told"
        if table.facts:
            continue  # which the row's other columns are read by
        yield from _figures(f"{claim}, {_OURS}", texts[_OURS], used)
        if told := audit_claims.claim(claim):
            for head in ("paper", "claimed"):
                yield from _reads(f"{claim}, {head}", texts[head], _OF_CLAIMS[head](told))
        elif not used:
            yield f"{claim}: no paper of ours claims it"


def _figures(where: str, text: str, used: Sequence[Facts]) -> Iterator[str]:
    """Of the findings that decide, one after another with where they are from, or the range of several."""
    if len(used) > 1 and len({line["unit"] for line in used}) == 1:
        ours, versions = [line["ours"] for line in used], sorted({_version(line) for line in used})
        yield from _reads(where, text, [min(ours), max(ours), len(ours), "".join(versions)])
        return
    parts = text.split("; ") if text else []
    if len(parts) != len(used):
        yield f"{where}: {text!r} is printed for {len(used)} findings"
    for part, line in zip(parts, used, strict=False):
        of = [version] if (version := _version(line)) else []
        yield from _reads(where, part, [*_OF_CLAIMS[_OURS](line), ", ".join([*of, _shorter(line["where"], part)])])


def _shorter(where: str, text: str) -> str:
    """Where a finding is from, as a text ends in it: what parts it from others is left out where those are not told."""
    label, _, own = where.partition(" (")
    said = text[text.rfind(label) :] if label in text else ""
    parts = said.removeprefix(label).removeprefix(" (").removesuffix(")").split(", ")
    return said if said and set(parts) <= {"", *own.removesuffix(")").split(", ")} else where


def _version(line: Facts) -> str:
    """Of the method, once it has had more than one."""
    return f"v{line['version']}" if line["version"] > 1 else ""


# -------------------------------------------------------------------------------------------------------- grids


def _grid(table: Table, by_ids: Mapping[str, Facts]) -> Iterator[str]:
    """A table of methods down and points or tasks across, whose entries name the records that they are of."""
    for row in table.body:
        lines = {head: by_ids.get(e.ids) for head, e in zip(table.heads, row, strict=True) if e.ids}
        if not any(lines.values()):
            yield f"{row[0].text} is of no records"
        for head, entry in zip(table.heads, row, strict=True):
            where = f"{row[0].text}, {head}"
            if entry.ids:
                yield from _point(where, row[0].text, head, entry, lines[head])
            elif head != "method":  # that of each entry's records
                yield from _beside(where, head, entry.text, lines)


def _beside(where: str, head: str, text: str, lines: Mapping[str, Facts | None]) -> Iterator[str]:
    """What a row says beside its entries: of all of them, or the area of the task of one letter."""
    known = [line for line in lines.values() if line]
    if head.endswith(_AREA):
        letter = head.partition(":")[0]
        line = next((line for task, line in lines.items() if task.partition(":")[0] == letter), None)
        yield from _reads(where, text, _area(line) if line else [])
    elif head in _OF_GRID:
        for line in known:
            yield from _reads(where, text, [_OF_GRID[head](line)])
    elif text:
        yield f"{where}: {text!r} is of no records"


def _point(where: str, method: str, head: str, entry: Entry, line: Facts | None) -> Iterator[str]:
    share = _SHARE.match(head)
    if line is None or line["method"] != method or (share and not _is_at(line, *share.groups())):
        yield f"{where}: its records are of {line['method'] if line else 'no row'}"
    elif not share:  # across tasks: the difference to the dense network, its interval where that decides something
        yield from _reads(where, entry.text, [*_delta("difference", lambda f: "")(line), line["difference_n"]])
    elif line["mean"] is None:
        yield from _reads(where, entry.text, [line["status"]])
    else:
        kept = (line["least_kept"], line["most_kept"])[: 1 + (" to " in entry.text)] if ", kept " in entry.text else ()
        yield from _reads(where, entry.text, [*_quality(line), *kept])


def _asked_for(f: Facts) -> str:
    """An operating point and how long it may train."""
    return f"{_asked(f)}, {f['epochs_asked']:g} epoch{'' if f['epochs_asked'] == 1 else 's'}"


_OF_GRID: dict[str, Callable[[Facts], str]] = {"keep asked": _asked_for, "fidelity": lambda f: f["fidelity"]}


def _is_at(line: Facts, keep: str, params: str | None, epochs: str | None) -> bool:
    """Whether a row stands at the operating point of a head; its epochs are told only where they part two."""
    second = line["params_keep_asked"]
    said = None if second is None else f"{100 * second:g}"
    return (f"{100 * line['keep_asked']:g}", said) == (keep, params) and epochs in {None, f"{line['epochs_asked']:g}"}


def _area(f: Facts) -> Wanted:
    if f["area"] is None:
        return []
    return [f["area"], f["area_low"], f["area_high"], f["area_n"], f["area_from"], f["area_to"]]


# ------------------------------------------------------------------------------------------------------- texts


def _reads(where: str, text: str, wanted: Wanted | None) -> Iterator[str]:
    """Whether a text's numbers are these, to the digits that it has, and it ends in these words."""
    if wanted is None:
        if text:
            yield f"{where}: {text!r} is read by nobody"
        return
    values = [value for value in wanted if value is not None and not isinstance(value, str)]
    words = "".join(value for value in wanted if isinstance(value, str))
    bare = text.replace(BOLD, "").replace(PLAIN, "").replace("p90", "")
    rest = bare.removesuffix(words)
    found = _NUMBER.findall(rest)
    if len(found) != len(values) or not bare.endswith(words) or (rest and not values):
        yield f"{where}: {text!r} is printed for {', '.join(map(str, [*values, words][: len(values) + bool(words)]))}"
    for (said, decimals, power, scale), value in zip(found, values, strict=False):
        unit = 10.0 ** (int(power or 0) + _POWERS[scale])
        if abs(float(said) * unit - value) > 0.5 * unit * 10.0 ** -len(decimals) * (1 + 1e-6):
            yield f"{where}: {said} is printed for {value:g}"
