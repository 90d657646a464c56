"""Anybody's table of pruning results (Markdown or CSV) goes in; what cannot be true of it comes out.

Columns are known by their heads. Looked at: deltas against base and pruned quality; kept or removed shares and
speed-ups against counts; counts that imply another base than the rest of the table; FLOPs among MACs; values that no
row can reach; ranks and bold print. A finding is made only where rounding of the printed digits cannot explain it.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from slimbench.core import UserError
from slimbench.reports.audit import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Value(NamedTuple):
    """A printed number: in base units, half of its last digit, whether it was a percentage."""

    number: float
    half: float
    is_percent: bool = False


_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_VALUE = re.compile(r"(?<![\w.])([+-]?\d+(?:,\d{3})*(?:\.\d+)?)\s*(%|[kKMGB](?![a-z]))?")
_QUALITY = r"acc|top-?1|top1|miou|psnr|map\b|quality"
_BASE = r"base|dense|original|unpruned|full|before"
_GONE = r"remov|reduc|cut|drop|prun\w* ?\(?(%|rat|perc)|↓|saved"
# Head patterns, the first that fits; None: looked for, not used.
_ROLES = (
    ("name", r"^(method|approach|algorithm|pruner|name)"),
    ("network", r"network|model\b|arch|backbone"),
    ("task", r"dataset|^data$|^task"),
    ("rank", r"^(rank|#|no\.?)$"),
    ("asked", r"target|asked"),
    ("drop", r"^(?!.*(flops|macs|param)).*(drop|loss\b|decrease)"),
    ("delta", r"delta|δ|diff|gain"),
    ("latency", r"latency|measured|runtime|\bms\b|fps"),
    ("speedup", r"speed-?up"),
    ("macs removed", rf"(flops|macs|mult).*({_GONE})|(remov|reduc)\w* (flops|macs)"),
    ("params removed", rf"param.*({_GONE})|(remov|reduc)\w* param"),
    ("macs kept", r"(flops|macs|mult).*(kept|keep|remain|left|ratio|%)|(remaining|kept) (flops|macs)"),
    ("params kept", r"(param).*(kept|keep|remain|left|ratio|%)|(remaining|kept) param"),
    ("base macs", rf"({_BASE}).*(flops|macs)|(flops|macs).*({_BASE})"),
    ("base params", rf"({_BASE}).*param|param.*({_BASE})"),
    ("macs", r"flops|macs|mult-?add"),
    ("params", r"param"),
    ("ratio", r"ratio|rate\b|sparsity"),
    ("base", rf"{_BASE}"),
    ("pruned", rf"prun|compress|after|result|final|{_QUALITY}"),
)


@dataclass(frozen=True)
class _Row:
    """One row by the roles of its columns: texts, and the numbers in them."""

    where: str
    texts: Mapping[str, str]
    values: Mapping[str, tuple[Value, ...]]

    def get(self, role: str) -> Value | None:
        """The first number of a column."""
        return next(iter(self.values.get(role, ())), None)

    @property
    def kind(self) -> tuple[str, str]:
        """Rows of one network on one task have one base."""
        return self.texts.get("network", ""), self.texts.get("task", "")


def audit(path: Path) -> tuple[int, list[Problem]]:
    """How many rows a file's tables have, and what is wrong in them. Raises: UserError where there is no table."""
    grids = read(path)
    problems = [problem for i, grid in enumerate(grids, 1) for problem in _grid(i, grid)]
    return sum(len(grid) - 1 for grid in grids), problems


def ours(path: Path) -> list[dict[str, Any]]:
    """The figures of a CSV that ``bench report`` wrote, with the ids of its records; nothing for any other file."""
    if path.suffix != ".csv":
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"group", "ids", "theoretical_speedup"} <= set(reader.fieldnames or ()):
            return []
        return [{name: _typed(name, text) for name, text in line.items()} for line in reader if line["group"]]


_CONSTANTS = {"True": True, "False": False, "": None}
_WORDS = {
    "group",
    "method",
    "network",
    "resource",
    "metric",
    "tier",
    "control",
    "control_ids",
    "profile",
    "machine",
    "status",
    "ids",
}


def _typed(name: str, text: str) -> Any:
    """A number where it is one; an id of digits alone is none."""
    if text in _CONSTANTS or name in _WORDS:
        return _CONSTANTS.get(text, text)
    try:
        return float(text)
    except ValueError:
        return text


def read(path: Path) -> list[list[list[str]]]:
    """The tables of a file, each a list of rows of texts, heads first. Raises: UserError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): give a table in Markdown or CSV.") from error
    grids = [list(csv.reader(text.splitlines()))] if path.suffix == ".csv" else _markdown(text)
    grids = [[row for row in grid if any(cell.strip() for cell in row)] for grid in grids]
    grids = [grid for grid in grids if len(grid) > 1 and len(grid[0]) > 1]
    if not grids:
        raise UserError(f"{path} holds no table: give one in Markdown, or a .csv with a line of heads.")
    for grid in grids:
        if ragged := next((i for i, row in enumerate(grid) if len(row) != len(grid[0])), None):
            raise UserError(f"{path}: row {ragged} has {len(grid[ragged])} cells, its table {len(grid[0])} heads.")
    return grids


def _markdown(text: str) -> list[list[list[str]]]:
    """Runs of lines with bars; the line of dashes below the heads is left out."""
    grids: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if "|" not in line:
            grids.append([])
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            grids[-1].append(cells)
    return grids


def _grid(number: int, grid: Sequence[Sequence[str]]) -> Iterator[Problem]:
    roles = _roles(grid[0])
    rows = [_row(f"table {number}, row {i}", roles, cells) for i, cells in enumerate(grid[1:], 1)]
    rows = _filled(rows)
    for row in rows:
        for what in (*_delta(row), *_shares(row), *_speedup(row), *_reach(row), *_two_conventions(row)):
            yield Problem(row.where, what)
    kinds: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    for part in kinds.values():
        for row, what in (*_bases(part, "macs"), *_bases(part, "params"), *_ranks(part)):
            yield Problem(row.where, what)


def _roles(heads: Sequence[str]) -> list[str]:
    """The role of each column; of two of a kind the first counts."""
    roles: list[str] = []
    for head in heads:
        plain = re.sub(r"[*_`]", "", head).strip().lower()
        role = next((name for name, pattern in _ROLES if re.search(pattern, plain)), "")
        if role == "macs" and "flop" in plain and "macs" in roles and "mac" in heads[roles.index("macs")].lower():
            role = "flops"
        roles.append("" if role in roles else role)
    return roles


def _row(where: str, roles: Sequence[str], cells: Sequence[str]) -> _Row:
    texts = {role: cell for role, cell in zip(roles, cells, strict=True) if role}
    name = re.sub(r"[*`]", "", texts.get("name", cells[0])).strip()
    return _Row(f"{where} ({name})", texts, {role: numbers(text) for role, text in texts.items()})


def numbers(text: str) -> tuple[Value, ...]:
    """The numbers in a cell: ``17.56 M (68.70 %)`` has a count and a percentage."""
    found = []
    for printed, unit in _VALUE.findall(text.replace("\u2212", "-")):
        digits = printed.replace(",", "")
        scale = _SCALE.get(unit.lower() if unit != "%" else "", 1.0)
        places = len(digits.partition(".")[2])
        found.append(Value(float(digits) * scale, 0.5 * 10**-places * scale, unit == "%"))
    return tuple(found)


def _filled(rows: Sequence[_Row]) -> list[_Row]:
    """An empty network or task means the one above, and so does an empty base."""
    filled: list[_Row] = []
    for row in rows:
        above = filled[-1] if filled else None
        texts, values = dict(row.texts), dict(row.values)
        for role in ("network", "task"):
            if above and not texts.get(role, "x").strip():
                texts[role] = above.texts[role]
        for role in ("base", "base macs", "base params"):
            if above and role in values and not values[role] and texts.get("network") == above.texts.get("network"):
                values[role] = above.values[role]
        filled.append(_Row(row.where, texts, values))
    return filled


# ---------------------------------------------------------------------------------------------------- in one row


def _apart(said: Value, right: float, slack: float) -> bool:
    """Whether rounding of what was printed cannot explain a difference."""
    return abs(said.number - right) > (said.half + slack) * (1 + 1e-6)


def _delta(row: _Row) -> Iterator[str]:
    base, pruned = row.get("base"), row.get("pruned")
    if base is None or pruned is None:
        return
    right, slack = pruned.number - base.number, base.half + pruned.half
    digits = max(_places(base), _places(pruned))
    if (said := row.get("delta")) and _apart(said, right, slack):
        yield f"wrong delta: {said.number:+g} is printed, {pruned.number:g} - {base.number:g} is {right:+.{digits}f}"
    drop = row.get("drop")
    if drop and _apart(drop, -right, slack) and _apart(drop, right, slack):  # some print drops as negative numbers
        yield f"wrong drop: {drop.number:g} is printed, {base.number:g} - {pruned.number:g} is {-right:.{digits}f}"


def _places(value: Value) -> int:
    return max(0, len(f"{2 * value.half:.6f}".rstrip("0").partition(".")[2]))


def _shares(row: _Row) -> Iterator[str]:
    """Printed shares against counts, and kept against removed."""
    for name in ("macs", "params"):
        ours, base = _count(row, name), row.get(f"base {name}")
        kept, removed = row.get(f"{name} kept"), row.get(f"{name} removed")
        if kept and removed and _apart(kept, 100 - removed.number, removed.half):
            yield f"impossible ratio: {kept.number:g} % of {name} kept and {removed.number:g} % removed"
        if ours is None or base is None or not base.number:
            continue
        share = 100 * ours.number / base.number
        slack = share * (ours.half / max(ours.number, 1e-9) + base.half / base.number)
        for said, right, word in ((kept, share, "kept"), (removed, 100 - share, "removed")):
            if said and _apart(said, right, slack):
                yield (
                    f"impossible ratio: {said.number:g} % of {name} {word} is printed, and "
                    f"{_big(ours.number)} of {_big(base.number)} is {right:.1f} %"
                )


def _count(row: _Row, name: str) -> Value | None:
    """The count in a column, not the percentage beside it."""
    return next((value for value in row.values.get(name, ()) if not value.is_percent), None)


def _speedup(row: _Row) -> Iterator[str]:
    """Theoretical speed-up = base / ours; twice or half as much is FLOPs over MACs."""
    said, ours, base = row.get("speedup"), _count(row, "macs"), row.get("base macs")
    if not said or not ours or not base or not ours.number:
        return
    right = base.number / ours.number
    slack = right * (ours.half / ours.number + base.half / base.number)
    if not _apart(said, right, slack):
        return
    for factor in (2.0, 0.5):
        if abs(said.number / (right * factor) - 1) < 0.04:
            yield (
                f"mixed conventions: a speed-up of {said.number:g} is printed and the counts divide to {right:.2f}: "
                "one of them is in FLOPs (2 a multiply-add), the other in MACs"
            )
            return
    yield f"impossible ratio: a speed-up of {said.number:g} is printed, and the counts divide to {right:.2f}"


def _two_conventions(row: _Row) -> Iterator[str]:
    """MACs and FLOPs side by side must differ by two."""
    macs, flops = _count(row, "macs"), _count(row, "flops")
    if macs and flops and macs.number and abs(flops.number / macs.number / 2 - 1) > 0.02:
        yield f"mixed conventions: {_big(macs.number)} MACs and {_big(flops.number)} FLOPs, which are twice the MACs"


def _reach(row: _Row) -> Iterator[str]:
    """Values that nothing can have, and operating points that were missed."""
    for role in ("base", "pruned"):
        value = row.get(role)
        if value and not 0 <= value.number <= 100:
            yield f"out of reach: {role} quality {value.number:g}"
    for role in ("macs kept", "params kept", "macs removed", "params removed"):
        value = row.get(role)
        if value and not 0 <= value.number <= 100:
            yield f"out of reach: {value.number:g} % of {role}"
    asked, got = row.get("asked"), row.get("speedup")
    if asked and got and asked.number > 1 and abs(got.number / asked.number - 1) > 0.1:
        yield f"out of reach: {asked.number:g}x was asked for, and {got.number:g}x is printed"


# --------------------------------------------------------------------------------------------------- across rows


def _bases(part: Sequence[_Row], name: str) -> Iterator[tuple[_Row, str]]:
    """Rows of one network that stand on another base than most; a base that is printed counts before one implied."""
    bases = [(row, base) for row in part if (base := _base(row, name))]
    if len(bases) < 2:
        return
    usual = statistics.median_low(base.number for _, base in bases)
    for row, base in bases:
        ratio = base.number / usual
        if any(abs(ratio / factor - 1) < 0.02 for factor in (2.0, 0.5)) and name == "macs":
            yield (
                row,
                f"mixed conventions: a base of {_big(base.number)}, and {_big(usual)} in other rows: FLOPs and MACs",
            )
        elif abs(ratio - 1) > 0.02 + base.half / usual:
            yield row, f"impossible ratio: implies a base of {_big(base.number)} {name}, other rows {_big(usual)}"


def _base(row: _Row, name: str) -> Value | None:
    """The base count that a row prints, or that its count and share imply: "12 M (30 %)" is what is left."""
    if base := row.get(f"base {name}"):
        return base
    ours = _count(row, name)
    share = next((value for value in row.values.get(name, ()) if value.is_percent), None) or row.get(f"{name} kept")
    if removed := row.get(f"{name} removed"):
        share = Value(100 - removed.number, removed.half)
    if not ours or not share or not share.number > 0:
        return None
    implied = 100 * ours.number / share.number
    return Value(implied, implied * (ours.half / max(ours.number, 1e-9) + share.half / share.number))


def _ranks(part: Sequence[_Row]) -> Iterator[tuple[_Row, str]]:
    """Ranks against quality, and bold print that is not the best, among rows of one target."""
    targets: dict[str, list[_Row]] = defaultdict(list)
    for row in part:
        if row.get("pruned"):
            targets[row.texts.get("asked", "")].append(row)
    for rows in targets.values():
        scores = {id(row): value.number for row in rows if (value := row.get("pruned"))}
        best = max(scores.values())
        bold = [row for row in rows if "**" in row.texts["pruned"]]
        if bold and len(bold) < len(rows) and max(scores[id(row)] for row in bold) < best:
            yield bold[0], f"wrong rank: bold, and another row has {best:g}"
        ranked = sorted((row for row in rows if row.get("rank")), key=lambda row: row.get("rank"))  # type: ignore[arg-type,return-value]
        for above, below in pairwise(ranked):
            if scores[id(above)] < scores[id(below)]:
                yield below, f"wrong rank: below a row of {scores[id(above)]:g}, and has {scores[id(below)]:g}"


def _big(count: float) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:g}"
