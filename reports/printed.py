"""A file goes in; its tables come out as rows of numbers by the role of their column, whoever printed them."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
# Roles by patterns of heads; the first that fits counts.
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
    ("base and pruned", rf"({_BASE}).*(prun|compress|after)"),  # two in one cell: not read
    ("base", rf"{_BASE}"),
    ("pruned", rf"prun|compress|after|result|final|{_QUALITY}"),
)


@dataclass(frozen=True)
class PrintedRow:
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
    "area_ids",
    "profile",
    "machine",
    "input",
    "weights",
    "claimed_note",
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


def roles_of(heads: Sequence[str]) -> list[str]:
    """The role of each column; of two of a kind the first counts."""
    roles: list[str] = []
    for head in heads:
        plain = re.sub(r"[*_`]", "", head).strip().lower()
        role = next((name for name, pattern in _ROLES if re.search(pattern, plain)), "")
        if role == "macs" and "flop" in plain and "macs" in roles and "mac" in heads[roles.index("macs")].lower():
            role = "flops"
        roles.append("" if role in roles else role)
    return roles


def row_of(where: str, roles: Sequence[str], cells: Sequence[str]) -> PrintedRow:
    texts = {role: cell for role, cell in zip(roles, cells, strict=True) if role}
    name = re.sub(r"[*`]", "", texts.get("name", cells[0])).strip()
    return PrintedRow(f"{where} ({name})", texts, {role: numbers(text) for role, text in texts.items()})


def numbers(text: str) -> tuple[Value, ...]:
    """The numbers in a cell: ``17.56 M (68.70 %)`` has a count and a percentage."""
    found = []
    for printed, unit in _VALUE.findall(text.replace("\u2212", "-")):
        digits = printed.replace(",", "")
        scale = _SCALE.get(unit.lower() if unit != "%" else "", 1.0)
        places = len(digits.partition(".")[2])
        found.append(Value(float(digits) * scale, 0.5 * 10**-places * scale, unit == "%"))
    return tuple(found)


def filled(rows: Sequence[PrintedRow]) -> list[PrintedRow]:
    """An empty network or task means the one above, and so does an empty base."""
    filled: list[PrintedRow] = []
    for row in rows:
        above = filled[-1] if filled else None
        texts, values = dict(row.texts), dict(row.values)
        for role in ("network", "task"):
            if above and not texts.get(role, "x").strip():
                texts[role] = above.texts[role]
        for role in ("base", "base macs", "base params"):
            if above and role in values and not values[role] and texts.get("network") == above.texts.get("network"):
                values[role] = above.values[role]
        filled.append(PrintedRow(row.where, texts, values))
    return filled


def count_in(row: PrintedRow, name: str) -> Value | None:
    """The count in a column, not the percentage beside it."""
    return next((value for value in row.values.get(name, ()) if not value.is_percent), None)


def share_in(row: PrintedRow, role: str) -> Value | None:
    """The percentage in a column; a number without a unit is one, a count like 72 M is none."""
    found = row.values.get(role, ())
    return next((value for value in found if value.is_percent), next((v for v in found if abs(v.number) < 1000), None))
