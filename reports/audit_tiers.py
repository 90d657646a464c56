"""All rows of a budget with their records go in, best first; letters that say otherwise than paired tests come out."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from slimbench.reports.audit_records import gaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from slimbench.core import Record

    Facts = Mapping[str, Any]

_ALPHA = 0.05


def problems(ranked: Sequence[tuple[Facts, Sequence[Record]]]) -> Iterator[tuple[Facts, str]]:
    """Rows that share a letter and can be told apart, or the other way round; letters that are not in order."""
    letters = [re.findall(r"[a-z]\d*", line["tier"]) for line, _ in ranked]
    places: dict[str, list[int]] = defaultdict(list)
    for place, mine in enumerate(letters):
        for letter in mine:
            places[letter].append(place)
    in_order = sorted(places, key=lambda letter: (int(letter[1:] or 0), letter[0]))
    if [places[letter] for letter in in_order] != sorted(places.values()):
        yield ranked[0][0], f"tiers {' '.join(line['tier'] for line, _ in ranked)} do not follow the means"
    pairs = list(itertools.combinations(range(len(ranked)), 2))
    for (i, j), p in zip(pairs, _holm([_p(gaps(ranked[i][1], ranked[j][1])) for i, j in pairs]), strict=True):
        if (not set(letters[i]).isdisjoint(letters[j])) == (p < _ALPHA):
            said = "shares a tier with" if p < _ALPHA else "shares no tier with"
            yield ranked[i][0], f"{said} {ranked[j][0]['method']}, and p is {p:.2g} after Holm"


def _p(differences: Sequence[float]) -> float:
    """That differences around zero would be so far from it."""
    if not np.ptp(differences):
        return float(not differences[0])
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _holm(found: Sequence[float]) -> list[float]:
    """Corrected for how many there are: each by those that are left, none below one before it."""
    order = np.argsort(found, kind="stable")
    corrected = np.empty(len(found))
    corrected[order] = np.maximum.accumulate(np.asarray(found)[order] * np.arange(len(found), 0, -1))
    return [float(p) for p in np.minimum(corrected, 1.0)]
