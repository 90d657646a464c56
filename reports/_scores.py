"""Rows go in; what was scored beside the headline comes out: every other metric, each test set by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimbench.core import unpack
from slimbench.reports.rows import distinct
from slimbench.statistics import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slimbench.core import Record


def others(records: Iterable[Record]) -> list[str]:
    """Names of the metrics behind the headline, in the order of the first record that has them."""
    return next((list(record.quality)[1:] for record in records if record.quality), [])


def images(records: Iterable[Record]) -> dict[str, int]:
    """How many each test set that is scored by itself has: means over part of a set are not those of papers."""
    first = next((record.quality for record in records if record.quality), {})
    sets = {name.partition(" ")[2]: scores for name, scores in first.items() if name.startswith(("psnr", "ssim"))}
    return {name: len(unpack(scores.per_sample)) for name, scores in sets.items() if name and scores.per_sample}


def summary(records: Sequence[Record], metric: str) -> Summary | None:
    """One metric over networks; None where no record has it."""
    values = [record.quality[metric].value for record in distinct(records) if metric in record.quality]
    return summarise(values) if values else None


def shown(found: Summary | None, metric: str) -> str:
    """Mean, spread and number of networks; metrics that are at most 1 (SSIM) with four digits."""
    if found is None:
        return ""
    digits = 4 if metric.startswith("ssim") else 2
    spread = "" if found.n < 2 else f" ± {found.sd:.{digits}f}"
    return f"{found.mean:.{digits}f}{spread} ({found.n})"
