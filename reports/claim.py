"""What a claim is: data that ``benchmarks/papers/claims.py`` fills in and ``judging`` judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slimbench.reports.rows import Row

Figure = Literal["quality", "macs removed", "params removed", "speed", "memory", "training memory"]
SOME = object()  # in ``Select.where``: any value but None


@dataclass(frozen=True)
class Select:
    """Which rows: by declared names; what is empty fits all.

    Attributes:
        where: fields of the method, or several at once; a tuple holds every value that fits, ``SOME`` stands for any
            but None.
        keep: least and largest share that was asked for.
        params_keep: likewise of the parameters beside it; None: whether or not one was asked for.

    """

    method: str = ""
    where: Mapping[Any, Any] = field(default_factory=dict)
    family: str = ""
    tasks: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    keep: tuple[float, float] = (0.0, 1.0)
    params_keep: tuple[float, float] | None = None

    def fits(self, row: Row) -> bool:
        """Whether a row is one of these."""
        cell = row.first.cell
        method, task, budget = cell["method"], cell["task"], cell["budget"]
        return (
            self.method in {"", method["is"]}
            and self.family in {"", task["family"]}
            and (not self.tasks or task["is"] in self.tasks)
            and (not self.networks or task["network"] in self.networks)
            and _within(budget["keep"], self.keep)
            and (self.params_keep is None or _within(budget.get("params_keep"), self.params_keep))
            and all(_fits(_said(method, name), wanted) for name, wanted in self.where.items())
        )


def _within(share: float | None, limits: tuple[float, float]) -> bool:
    return share is not None and limits[0] <= share <= limits[1]


def _said(method: Mapping[str, Any], name: str | tuple[str, ...]) -> Any:
    return method.get(name) if isinstance(name, str) else tuple(method.get(part) for part in name)


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is SOME:
        return value is not None
    return value in wanted if isinstance(wanted, tuple) else value == wanted


@dataclass(frozen=True)
class Place:
    """Tasks and networks, none of them for any, and the least dense and compression epochs there."""

    tasks: tuple[str, ...]
    networks: tuple[str, ...] = ()
    epochs: tuple[float, float] = (0.0, 0.0)

    def holds(self, task: Mapping[str, Any]) -> bool:
        """Whether a cell's task is of this place."""
        return task["is"] in self.tasks and (not self.networks or task["network"] in self.networks)


@dataclass(frozen=True)
class Claim:
    """Something that a paper says, and what would count as seeing it again.

    Attributes:
        source: where it is said.
        criterion: when it passes, in words; ``least`` is its threshold, in the figure's unit.
        ours, theirs: the rows that are compared; of several of theirs the best. Without theirs the figure stands alone;
            without ours there is no suite for it, and ``criterion`` says why.
        within: what both have in common: the budget ("point"), task and network ("heading"), or task and recipe.
        figure: what is compared. quality: how much better, in the metric's unit, paired by seed; removed: per cent of
            the dense network's; speed, memory: theirs / ours, or dense / ours.
        differs: the one field of a method by which theirs may differ from ours; "": any.
        each: field of a method: every value that ours and theirs name has to be among the rows.
        profiles, batch: what speed and memory were measured by; empty, None: any.
        slack_sd: so many deviations of the seeds are forgiven.
        claimed: the number of the paper, in the figure's unit; ``convention``: of what.
        places: where a run is the paper's own (our full suite's, where ``recipe`` says so): any other is reduced.

    """

    says: str
    source: str
    criterion: str
    ours: Select | None
    theirs: Select | None = None
    within: Literal["point", "heading", "recipe"] = "point"
    figure: Figure = "quality"
    differs: str = ""
    each: str = ""
    profiles: tuple[str, ...] = ()
    batch: int | None = None
    least: float = 0.0
    slack_sd: float = 0.0
    claimed: float | None = None
    convention: str = ""
    places: tuple[Place, ...] = ()
    recipe: str = "paper"


@dataclass(frozen=True)
class Paper:
    """A paper: the methods that are its own, the method whose card tells the fidelity, and every claim."""

    name: str
    title: str
    methods: tuple[str, ...]
    claims: tuple[Claim, ...]
