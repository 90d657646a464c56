"""Two sets of records go in, base and head; findings and a verdict for CI come out.

Counts and ids must be equal. Scores: cells whose every sample scored as before are done with; only the others go to a
test. A proxy is a method at an operating point on a task, over its seeds; it is worse where a one-sided paired t-test
says so after Benjamini and Hochberg's procedure over all proxies that changed, and by more than half of what another
seed does. Latencies: see ``latency``.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from slimbench.baseline import in_words
from slimbench.identity import digest
from slimbench.statistics import ENOUGH_SEEDS, paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from slimbench.baseline import Kept

Verdict = Literal["fine", "regression", "cannot tell"]
Pair = tuple["Kept", "Kept"]  # base, head
FALSE_DISCOVERIES = 0.02  # where nothing got worse, the share of nights with an alarm; latency has as much
_POWER = 0.8
_MACHINES = (
    "stopped after its time limit",
    "killed by SIGKILL",
)  # failures that a busy or full machine may have caused
_WORTH = 0.5  # of the base's deviation over seeds: a smaller loss is none that anybody would see


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    kind: Literal["run", "counts", "scores", "latency"]
    what: str
    verdict: Verdict
    text: str


def exit_status(findings: Iterable[Finding]) -> int:
    """0: fine, 1: a regression, 2: could not tell."""
    verdicts = {finding.verdict for finding in findings}
    return 1 if "regression" in verdicts else 2 if "cannot tell" in verdicts else 0


def compare(base: Sequence[Kept], head: Sequence[Kept], *, is_same_machine: bool, commit: str = "") -> list[Finding]:
    """Everything but latencies. ``commit``: what the head's records must have been made at; empty: unknown."""
    pairs = pairs_of(base, head)
    return [
        *_runs(base, head, commit),
        *counts(pairs, is_same_machine=is_same_machine),
        *scores(pairs, proxies=len({cell.proxy for cell in base})),
    ]


def trained_otherwise(base: Mapping[str, Any], head: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Settings are part of every id: cells of others can be compared with nothing. ``base``: {} where it is unknown."""
    for settings in {digest(found): found for found in head}.values():
        if base and settings != base:
            options = " ".join(f"--{name} {value}" for name, value in sorted(base.items()))
            text = f"the records were trained in {in_words(settings)}, the baseline's in {in_words(base)}"
            yield Finding("run", "settings", "cannot tell", f"{text}: run the suite with {options} in an empty store")


def pairs_of(base: Iterable[Kept], head: Iterable[Kept]) -> list[Pair]:
    """Cells that both have, by label."""
    known = {cell.label: cell for cell in head}
    return [(cell, known[cell.label]) for cell in base if cell.label in known]


def by_proxy(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Pairs of all seeds together."""
    proxies: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        proxies[pair[0].proxy].append(pair)
    return proxies


def _runs(base: Sequence[Kept], head: Sequence[Kept], commit: str) -> list[Finding]:
    """Cells that only one side has, and records of another commit: they were not made tonight.

    A night that has made nothing at all is none that went well.
    """
    labels, known = {cell.label for cell in head}, {cell.label for cell in base}
    if known and not labels & known:
        text = f"none of the baseline's {len(known)} cells was made: the run broke off, or was of another suite"
        return [Finding("run", "cells", "regression", text)]
    found = [
        Finding("run", cell.label, "cannot tell", "there is no record of it: run its suite, or roll the baseline")
        for cell in base
        if cell.label not in labels
    ]
    found += [
        Finding("run", cell.label, "fine", "new: compared once the baseline is rolled")
        for cell in head
        if cell.label not in known
    ]
    if others := {cell.made_at for cell in head} - {commit} if commit else set():
        made = ", ".join(sorted(others))
        text = f"records were made at {made or 'no commit'}, and this is {commit}: run the suite in an empty store"
        found.append(Finding("run", "commit", "cannot tell", text))
    return found


def counts(pairs: Sequence[Pair], *, is_same_machine: bool) -> list[Finding]:
    """The exact gate: status, id, MACs and params of each cell.

    Which channels a method removes may hang on the last bit of a sum. On another machine, networks with other outputs
    and other counts are therefore no regression for sure. Nor is a cell that was not given the time or the memory.
    """
    found = []
    for base, head in pairs:
        text = _differs(base, head)
        is_sure = is_same_machine or base.outputs == head.outputs or head.status != base.status or base.id != head.id
        is_sure &= not is_the_machines(head.reason)
        verdict: Verdict = "regression" if is_sure else "cannot tell"
        if text and not is_sure and not head.reason:
            text += ", with other outputs, on another machine"
        found.append(Finding("counts", base.label, verdict if text else "fine", text or "equal"))
    return found


def is_the_machines(reason: str) -> bool:
    """Whether a busy or full machine may be why something failed."""
    return any(cause in reason for cause in _MACHINES)


def _differs(base: Kept, head: Kept) -> str:
    """What is not as it was; nothing where all is."""
    parts = []
    if head.status != base.status:
        parts.append(f"{base.status} became {head.status}" + (f": {head.reason}" if head.reason else ""))
    if base.id != head.id:
        parts.append(f"its id {base.id} became {head.id}: its version, data or settings differ")
    if base.is_done and head.is_done:
        for name in ("macs", "params"):
            was, now = getattr(base, name), getattr(head, name)
            if was != now:
                parts.append(f"{'MACs' if name == 'macs' else name} {was:,} became {now:,} ({now - was:+,})")
    return "; ".join(parts)


# -------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Proxy:
    """A method at an operating point on a task: how much each seed gained, in the metric's unit, better above 0."""

    name: str
    metric: str
    base: dict[int, float]  # value by seed
    head: dict[int, float]
    sign: int  # 1 where higher is better
    changed: int  # seeds in which any sample scored otherwise
    lost: int = 0  # seeds that one side has no score of

    @classmethod
    def of(cls, name: str, pairs: Sequence[Pair]) -> Proxy:
        """From the seeds that both sides have scored."""
        done = [(base, head) for base, head in pairs if base.is_done and head.is_done]
        base, head = ({pair[side].seed: pair[side].value for pair in done} for side in (0, 1))
        first = done[0][0] if done else pairs[0][0]
        changed = sum(ours.outputs != theirs.outputs for ours, theirs in done)
        lost = len(pairs) - len(done)
        return cls(name, first.metric, base, head, 1 if first.higher_is_better else -1, changed, lost)

    @property
    def gains(self) -> list[float]:
        """By seed."""
        return [self.sign * (self.head[seed] - self.base[seed]) for seed in sorted(self.base)]

    @property
    def spread(self) -> float:
        """The base's sample deviation over seeds; nan for one seed."""
        return statistics.stdev(self.base.values()) if len(self.base) > 1 else math.nan

    def p_worse(self) -> float:
        """One-sided, paired by seed, Student's t."""
        from scipy.special import stdtr

        gains = self.gains
        mean, sd = statistics.fmean(gains), statistics.stdev(gains)
        if sd == 0:
            return 0.0 if mean < 0 else 1.0
        return float(stdtr(len(gains) - 1, mean / (sd / math.sqrt(len(gains)))))

    def detectable(self, proxies: int) -> float:
        """The loss that the test finds with 80 % power, were it the only one of all proxies and they all changed.

        A change that does no harm moves a network as another seed would: gains then deviate by sqrt(2) times the base's
        spread.
        """
        from scipy.special import nctdtrinc, stdtrit

        freedom = len(self.base) - 1
        critical = stdtrit(freedom, 1 - FALSE_DISCOVERIES / proxies)
        away = nctdtrinc(freedom, 1 - _POWER, critical)  # in standard errors
        return float(away) * math.sqrt(2) * self.spread / math.sqrt(len(self.base))


def scores(pairs: Sequence[Pair], proxies: int) -> list[Finding]:
    """A finding for each proxy that has scores; ``proxies``: how many there are, changed or not."""
    every = [Proxy.of(name, group) for name, group in by_proxy(pairs).items()]
    every = [proxy for proxy in every if proxy.base]
    tested = [proxy for proxy in every if proxy.changed and len(proxy.base) >= ENOUGH_SEEDS]
    adjusted = dict(zip((proxy.name for proxy in tested), _adjusted(tested), strict=True))
    return [_score(proxy, adjusted.get(proxy.name), proxies) for proxy in every]


def _adjusted(tested: Sequence[Proxy]) -> list[float]:
    """p-values after Benjamini and Hochberg."""
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control([proxy.p_worse() for proxy in tested])] if tested else []


def _score(proxy: Proxy, p: float | None, proxies: int) -> Finding:
    seeds = len(proxy.base)
    seen = f"; detectable: {proxy.detectable(proxies):.2g}" if seeds >= ENOUGH_SEEDS else ""
    mean = statistics.fmean(proxy.base.values())
    if not proxy.changed:
        lost = f" in {seeds} of {seeds + proxy.lost} seeds" if proxy.lost else ""
        return Finding("scores", proxy.name, "fine", f"{proxy.metric} {mean:.2f}, every sample as it was{lost}{seen}")
    difference = paired(proxy.head, proxy.base)
    assert difference
    text = f"{proxy.metric} {mean:.2f} became {statistics.fmean(proxy.head.values()):.2f} ({difference.mean:+.2f}"
    if p is None:
        text += f"); {proxy.changed} of {seeds} seeds changed, and a test needs {ENOUGH_SEEDS} seeds"
        return Finding("scores", proxy.name, "cannot tell", text)
    text += (
        f" [{difference.low:+.2f}, {difference.high:+.2f}], p {p:.2g}){seen}; {proxy.changed} of {seeds} seeds changed"
    )
    return Finding("scores", proxy.name, "regression" if is_worse(proxy, p) else "fine", text)


def is_worse(proxy: Proxy, adjusted: float) -> bool:
    """Whether the loss is one that a test would seldom say of none, and one that is worth a word."""
    return adjusted <= FALSE_DISCOVERIES and -statistics.fmean(proxy.gains) >= _WORTH * proxy.spread
