"""Anybody's table of pruning results (Markdown or CSV) goes in; what cannot be true of it comes out.

Columns are known by their heads. Looked at: deltas against base and pruned quality; kept or removed shares and
speed-ups against counts; counts that imply another base than the rest of the table; FLOPs among MACs; values that no
row can reach; ranks and bold print. A finding is made only where rounding of the printed digits cannot explain it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from slimbench.reports.audit import Problem
from slimbench.reports.printed import PrintedRow, Value, count_in, filled, read, roles_of, row_of, share_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def audit(path: Path) -> tuple[int, list[Problem]]:
    """How many rows a file's tables have, and what is wrong in them. Raises: UserError where there is no table."""
    grids = read(path)
    problems = [problem for i, grid in enumerate(grids, 1) for problem in _grid(i, grid)]
    return sum(len(grid) - 1 for grid in grids), problems


def _grid(number: int, grid: Sequence[Sequence[str]]) -> Iterator[Problem]:
    roles = roles_of(grid[0])
    rows = [row_of(f"table {number}, row {i}", roles, cells) for i, cells in enumerate(grid[1:], 1)]
    rows = filled(rows)
    for row in rows:
        for what in (*_delta(row), *_shares(row), *_speedup(row), *_reach(row), *_two_conventions(row)):
            yield Problem(row.where, what)
    kinds: dict[tuple[str, str], list[PrintedRow]] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    for part in kinds.values():
        for row, what in (*_bases(part, "macs"), *_bases(part, "params"), *_ranks(part)):
            yield Problem(row.where, what)


# ---------------------------------------------------------------------------------------------------- in one row


def _apart(said: Value, right: float, slack: float) -> bool:
    """Whether rounding of what was printed cannot explain a difference."""
    return abs(said.number - right) > (said.half + slack) * (1 + 1e-6)


def _delta(row: PrintedRow) -> Iterator[str]:
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


def _shares(row: PrintedRow) -> Iterator[str]:
    """Printed shares against counts, and kept against removed."""
    for name in ("macs", "params"):
        ours, base = count_in(row, name), row.get(f"base {name}")
        kept, removed = share_in(row, f"{name} kept"), share_in(row, f"{name} removed")
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


def _speedup(row: PrintedRow) -> Iterator[str]:
    """Theoretical speed-up = base / ours; twice or half as much is FLOPs over MACs."""
    said, ours, base = row.get("speedup"), count_in(row, "macs"), row.get("base macs")
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


def _two_conventions(row: PrintedRow) -> Iterator[str]:
    """MACs and FLOPs side by side must differ by two."""
    macs, flops = count_in(row, "macs"), count_in(row, "flops")
    if macs and flops and macs.number and abs(flops.number / macs.number / 2 - 1) > 0.02:
        yield f"mixed conventions: {_big(macs.number)} MACs and {_big(flops.number)} FLOPs, which are twice the MACs"


def _reach(row: PrintedRow) -> Iterator[str]:
    """Values that nothing can have, and operating points that were missed."""
    for role in ("base", "pruned"):
        value = row.get(role)
        if value and not 0 <= value.number <= 100:
            yield f"out of reach: {role} quality {value.number:g}"
    for role in ("macs kept", "params kept", "macs removed", "params removed"):
        value = share_in(row, role)
        if value and not 0 <= value.number <= 100:
            yield f"out of reach: {value.number:g} % of {role}"
    asked, got = row.get("asked"), row.get("speedup")
    if asked and got and asked.number > 1 and abs(got.number / asked.number - 1) > 0.1:
        yield f"out of reach: {asked.number:g}x was asked for, and {got.number:g}x is printed"


# --------------------------------------------------------------------------------------------------- across rows


def _bases(part: Sequence[PrintedRow], name: str) -> Iterator[tuple[PrintedRow, str]]:
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


def _base(row: PrintedRow, name: str) -> Value | None:
    """The base count that a row prints, or that its count and share imply: "12 M (30 %)" is what is left."""
    if base := row.get(f"base {name}"):
        return base
    ours = count_in(row, name)
    beside = next((value for value in row.values.get(name, ()) if value.is_percent), None)
    share = beside or share_in(row, f"{name} kept")
    if removed := share_in(row, f"{name} removed"):
        share = Value(100 - removed.number, removed.half)
    if not ours or not share or not share.number > 0:
        return None
    implied = 100 * ours.number / share.number
    return Value(implied, implied * (ours.half / max(ours.number, 1e-9) + share.half / share.number))


def _ranks(part: Sequence[PrintedRow]) -> Iterator[tuple[PrintedRow, str]]:
    """Ranks against quality, and bold print that is not the best, among rows of one target."""
    targets: dict[str, list[PrintedRow]] = defaultdict(list)
    for row in part:
        if row.get("pruned"):
            targets[row.texts.get("asked", "")].append(row)
    for rows in targets.values():
        scores = {id(row): value.number for row in rows if (value := row.get("pruned"))}
        for row in rows:
            rivals = [scores[id(other)] for other in rows if _is_bold(row) and _competes(other, row)]
            if rivals and max(rivals) > scores[id(row)]:
                yield row, f"wrong rank: bold, and another row has {max(rivals):g}"
        ranked = sorted((row for row in rows if row.get("rank")), key=lambda row: row.get("rank"))  # type: ignore[arg-type,return-value]
        for above, below in pairwise(ranked):
            if scores[id(above)] < scores[id(below)]:
                yield below, f"wrong rank: below a row of {scores[id(above)]:g}, and has {scores[id(below)]:g}"


def _is_bold(row: PrintedRow) -> bool:
    return "**" in row.texts["pruned"]


def _competes(other: PrintedRow, row: PrintedRow) -> bool:
    """Whether a row that is not bold had no easier point: at least as much speed-up, where it is printed."""
    theirs, ours = other.get("speedup"), row.get("speedup")
    return not _is_bold(other) and (not theirs or not ours or theirs.number >= 0.98 * ours.number)


def _big(count: float) -> str:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:g}"
