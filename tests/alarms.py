"""Recorded noise goes in; how often a night raises a false alarm, and how often a fault is found, come out.

``python tests/alarms.py`` writes the numbers into docs/nightly.md; a test holds them there. Nights are the worst there
are: every score and every network changed, and none got worse.
"""

from __future__ import annotations

import functools
import json
import random
import statistics
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from slimbench.baseline import Apart
from slimbench.latency import ENOUGH_LOOKS, LOOKS, SESSIONS, Look, is_slower, settled
from slimbench.regression import Proxy, _adjusted, is_worse

NOISE = json.loads(Path(__file__).with_name("noise.json").read_text())
DOCS = Path(__file__).parent.parent / "docs/nightly.md"
MARKS = ("<!-- alarms -->", "<!-- end of alarms -->")
PROXIES = 42  # of the nightly suite, and as many networks
NIGHTS = 250


# ---------------------------------------------------------------------------------------------------------- scores


@functools.cache
def deviations() -> tuple[list[float], list[float]]:
    """Each recorded proxy's spread over seeds, and how far seeds lay from their mean in units of it.

    Few seeds lie nearer to their own mean than to the true one, by the square root of 1 - 1 / n: that is put back.
    """
    groups = NOISE["scores"].values()
    spreads = [statistics.stdev(group) for group in groups]
    away = [
        (value - statistics.fmean(group)) / spread / (1 - 1 / len(group)) ** 0.5
        for group, spread in zip(groups, spreads, strict=True)
        for value in group
    ]
    return spreads, away


def scored(draw: random.Random, lost: float = 0.0) -> list[Proxy]:
    """A night's proxies, six seeds each; the first lost so many of its spreads."""
    spreads, away = deviations()
    night = []
    for i in range(PROXIES):
        spread = spreads[i % len(spreads)]
        base, head = ({s: spread * (draw.choice(away) - less) for s in range(6)} for less in (0.0, 0.0 if i else lost))
        night.append(Proxy(str(i), "", base, head, 1, 6))
    return night


def blamed(night: list[Proxy]) -> list[str]:
    """Proxies that are called worse."""
    return [p.name for p, q in zip(night, _adjusted(night), strict=True) if is_worse(p, q)]


def detectable() -> float:
    """The loss that a proxy is said to detect, in spreads."""
    return Proxy("", "", dict(enumerate((-1.2, -0.8, -0.1, 0.3, 0.7, 1.1))), {}, 1, 6).detectable(PROXIES) / 0.8854


# ------------------------------------------------------------------------------------------------------- latencies


@dataclass(frozen=True)
class Recording:
    """A/A looks of one machine.

    Attributes:
        looks: of each look, how much slower each session saw the one copy, and whether to doubt it.
        is_trusting: whether doubts are ignored, so that disturbed looks are judged like others.

    """

    title: str
    looks: tuple[tuple[Look, ...], ...]
    is_trusting: bool

    @classmethod
    def recorded(cls) -> list[Recording]:
        """Looks as they were, and with their doubts ignored."""
        every = []
        for kept in NOISE["latency"]:
            looks = tuple(
                tuple(
                    Look(slower, "other work" if doubt == "x" else None)
                    for doubt, slower in zip(doubts, seen, strict=True)
                )
                for _, doubts, *seen in kept["looks"]
            )
            title = f"{kept['cpu']}, {kept['cores']} cores, {kept['on']}, {len(looks)} looks"
            every += [cls(title, looks, False), cls(f"{title}, doubts ignored", looks, True)]
        return every

    @classmethod
    def quiet(cls) -> Recording:
        """Looks drawn from what undisturbed sessions said of their own noise: 95 % intervals at equal networks."""
        draw, widths = random.Random(0), NOISE["quiet"]["half_widths"]
        sessions = (Look(draw.gauss(0, draw.choice(widths) / 1.96)) for _ in range(500 * SESSIONS))
        looks = tuple(zip(*[sessions] * SESSIONS, strict=True))
        return cls(f"noise of {len(widths)} undisturbed sessions", looks, False)

    def look(self, draw: random.Random, slower: float = 0.0) -> Look:
        """One at a head that much slower: a recorded look's sessions; again where disturbed."""
        return settled(lambda: self._once(draw, slower))

    def _once(self, draw: random.Random, slower: float) -> Look:
        recorded = draw.choice(self.looks)
        is_whole = len(recorded) == SESSIONS  # older looks had fewer: their sessions are drawn from
        seen = Look.of(recorded if is_whole else [draw.choice(recorded) for _ in range(SESSIONS)])
        return Look((1 + seen.slower) * (1 + slower) - 1, None if self.is_trusting else seen.disturbed)

    def calibrated(self, draw: random.Random) -> Apart | None:
        """A baseline's looks; None where it would have been refused."""
        quiet = [seen.slower for seen in (self.look(draw) for _ in range(LOOKS)) if not seen.disturbed]
        return Apart("", tuple(quiet)) if len(quiet) >= ENOUGH_LOOKS else None

    def is_alarm(self, draw: random.Random, limit: float, slower: float = 0.0) -> bool:
        """At one network."""
        return bool(is_slower(self.look(draw, slower), lambda: self.look(draw, slower), limit)[0])


# -------------------------------------------------------------------------------------------------------- the rates


@dataclass(frozen=True)
class Rates:
    """Of one recording, in shares: of baselines that were made, of nights with an alarm, of faults that were found.

    Attributes:
        detectable: the slowdown that baselines said they would see, on average.
        seen: how often that slowdown was found; ``five``: how often 5 % was.

    """

    title: str
    made: float
    alarms: float
    detectable: float
    seen: float
    five: float


@functools.cache
def score_alarms() -> list[bool]:
    """Of each night, whether a proxy is blamed."""
    draw = random.Random(0)
    return [bool(blamed(scored(draw))) for _ in range(NIGHTS)]


def found_scores(times: float = 2.0, nights: int = 200) -> float:
    """The share of nights in which a proxy that lost so many times what it can detect is blamed."""
    draw = random.Random(1)
    return statistics.fmean("0" in blamed(scored(draw, times * detectable())) for _ in range(nights))


def rates(recorded: Recording) -> Rates:
    """By simulation; ``alarms``: of scores and latencies together."""
    draw = random.Random(0)
    baselines = [recorded.calibrated(draw) for _ in range(NIGHTS)]
    made = [apart for apart in baselines if apart]
    scores = score_alarms()
    if not made:
        return Rates(recorded.title, 0.0, statistics.fmean(scores), *[float("nan")] * 3)
    timed = [any(recorded.is_alarm(draw, apart.threshold) for _ in range(PROXIES)) for apart in made]
    return Rates(
        recorded.title,
        len(made) / NIGHTS,
        statistics.fmean(map(any, zip(scores, timed, strict=False))),
        statistics.fmean(apart.detectable for apart in made),
        statistics.fmean(recorded.is_alarm(draw, apart.threshold, apart.detectable) for apart in made),
        statistics.fmean(recorded.is_alarm(draw, apart.threshold, 0.05) for apart in made),
    )


def table() -> str:
    """What docs/nightly.md says."""
    rows = [
        ["scores", "", _share(statistics.fmean(score_alarms())), "twice the detectable loss", _share(found_scores())],
    ]
    for recorded in [Recording.quiet(), *Recording.recorded()]:
        got = rates(recorded)
        what = f"{_share(got.detectable)}, the detectable slowdown; 5 %"
        found = f"{_share(got.seen)}; {_share(got.five)}" if got.made else "-"
        rows.append(
            [f"and latencies: {got.title}", _share(got.made), _share(got.alarms), what if got.made else "-", found]
        )
    return tabulate(
        rows, ["noise", "baselines made", "nights with a false alarm", "planted", "found"], tablefmt="github"
    )


def _share(part: float) -> str:
    return f"{100 * part:.1f} %"


def in_docs() -> str:
    """What stands there now."""
    return DOCS.read_text().partition(MARKS[0])[2].partition(MARKS[1])[0].strip()


if __name__ == "__main__":
    before, _, rest = DOCS.read_text().partition(MARKS[0])
    DOCS.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
