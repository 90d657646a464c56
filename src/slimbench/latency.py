"""Networks of base and head go in; which of head's are slower comes out, with few false alarms.

A look is the median of eight sessions, in each of which both networks take turns by the profile's protocol. Equal
networks are not timed. An alarm needs two looks: each must show a loss above the threshold, which is the worst of the
A/A looks that the baseline took on this machine, and 3 % at least.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from slimbench import artifact, baseline, discover, identity, measure
from slimbench.baseline import Apart
from slimbench.core import UserError
from slimbench.fresh import apart
from slimbench.identity import digest
from slimbench.regression import Finding, is_the_machines, pairs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from slimbench.baseline import Baseline, Kept
    from slimbench.core import HardwareProfile, Measurement
    from slimbench.regression import Pair, Verdict
    from slimbench.store import Store

LOOKS = 30  # A/A looks of a baseline
ENOUGH_LOOKS = 20  # so that in two looks at each of fifty networks chance is above the worst of them one night in forty
SESSIONS = 8  # of a look: those of a quiet machine are 3 % apart, and 5 % shall be seen
_ATTEMPTS = 3
_ENOUGH_ALARMS = 3  # then the rest need not be confirmed: the night has its answer


@dataclass(frozen=True)
class Look:
    """How much slower head was than base (0.01: by 1 %), and why to doubt it, or None."""

    slower: float
    disturbed: str | None = None

    @classmethod
    def of(cls, sessions: Sequence[Look]) -> Look:
        """Their median, and the first doubt."""
        slower = statistics.median(seen.slower for seen in sessions)
        return cls(slower, next((seen.disturbed for seen in sessions if seen.disturbed), None))


def look(profile: HardwareProfile, head: Path, base: Path) -> Look:
    """Looks again where other work disturbed it, twice at most. Raises: UserError where a network cannot be timed."""
    return settled(lambda: Look.of(sessions(profile, head, base)))


def settled(again: Callable[[], Look]) -> Look:
    """The first look that nothing disturbed, or the last."""
    for _ in range(_ATTEMPTS):
        seen = again()
        if not seen.disturbed:
            break
    return seen


def sessions(profile: HardwareProfile, head: Path, base: Path) -> list[Look]:
    """One look's, each in a process of its own. Raises: UserError where a network cannot be timed.

    The protocol gives one network one copy, loaded last, and the other two: in every other session they change places.
    """
    try:
        return [_session(profile, head, base, is_swapped=bool(turn % 2)) for turn in range(SESSIONS)]
    except RuntimeError as error:
        raise UserError(f"{head.name} cannot be timed by {identity.label(profile)}: {error}") from error


def _session(profile: HardwareProfile, head: Path, base: Path, *, is_swapped: bool) -> Look:
    last, first = (base, head) if is_swapped else (head, base)
    taken: Measurement = apart(measure.timed, profile, last, first, "quick", anew=False)
    return Look((taken.ratio if is_swapped else 1 / taken.ratio) - 1, taken.disturbed)


def calibrate(profile: HardwareProfile, networks: Sequence[Path], looks: int, say: Callable[[str], object]) -> Apart:
    """A/A looks, at the networks in turn. Raises: UserError where fewer than ``ENOUGH_LOOKS`` were undisturbed."""
    label = identity.label(profile)
    if reason := profile.unavailable():
        raise UserError(f"The profile {label} is unavailable: {reason}.")
    if not networks:
        raise UserError("The store has no networks to time: say --looks 0 for a baseline without latencies.")
    quiet = []
    for i in range(looks):
        network = networks[i % len(networks)]
        seen = look(profile, network, network)
        say(f"A/A {i + 1}/{looks} by {label}: {_shown([seen])}")
        quiet += [] if seen.disturbed else [round(seen.slower, 5)]
    if len(quiet) < ENOUGH_LOOKS:
        raise UserError(
            f"Only {len(quiet)} of {looks} A/A looks were undisturbed, and {ENOUGH_LOOKS} are needed: "
            "quiet the machine, or say --looks 0 for a baseline without latencies."
        )
    return Apart(digest(measure.machine_of(profile)), tuple(quiet))


def is_slower(first: Look, again: Callable[[], Look], limit: float) -> tuple[bool | None, list[Look]]:
    """Whether two looks agree that head is slower, and the looks; None: other work disturbed one of them."""
    if first.disturbed or first.slower <= limit:
        return (None if first.disturbed else False), [first]
    second = again()
    return (None if second.disturbed else second.slower > limit), [first, second]


def compare(
    base: Baseline, head: Sequence[Kept], store: Store, file: Path, *, say: Callable[[str], object]
) -> list[Finding]:
    """A finding for each profile of the baseline and each network that it keeps and head has too."""
    timed = {cell.label for cell in baseline.timed_cells(base.cells)}
    pairs = [pair for pair in pairs_of(base.cells, head) if pair[0].label in timed and pair[1].artifact]
    found = []
    for profile, apart_by in base.apart.items():
        contest = _Contest(profile, apart_by, store, baseline.networks(file), say)
        changed = [pair for pair in pairs if pair[0].artifact != pair[1].artifact]
        equal = (pair for pair in pairs if pair not in changed)
        found += [contest.finding(pair, "the same network, to the bit", is_bad=False) for pair in equal]
        found += contest.findings(changed)
    return found


@dataclass(frozen=True)
class _Contest:
    """Head's networks against the baseline's, by one profile."""

    label: str
    apart: Apart
    store: Store
    networks: Path
    say: Callable[[str], object]

    def findings(self, pairs: Sequence[Pair]) -> list[Finding]:
        """Look at all, then again at the suspicious ones, worst first."""
        found, firsts, alarms = [], {}, 0
        for pair in pairs:
            if why := self._why_not(pair):
                found.append(self.finding(pair, why, is_bad=None))
                continue
            try:
                firsts[pair] = self._look(pair)
            except UserError as error:
                found.append(self._untimed(pair, error))
                continue
            self.say(f"{pair[0].proxy} by {self.label}: {_shown([firsts[pair]])}")
        for pair, first in sorted(firsts.items(), key=lambda item: -item[1].slower):
            if alarms == _ENOUGH_ALARMS and first.slower > self.apart.threshold:
                found.append(self.finding(pair, f"{_shown([first])}: not confirmed, since others were", is_bad=None))
                continue
            try:
                is_bad, looks = is_slower(first, partial(self._look, pair), self.apart.threshold)
            except UserError as error:
                found.append(self.finding(pair, f"{_shown([first])}, then {error}", is_bad=None))
                continue
            alarms += bool(is_bad)
            limits = f"threshold {_percent(self.apart.threshold)}, detectable: {_percent(self.apart.detectable)}"
            found.append(self.finding(pair, f"{_shown(looks)} ({limits})", is_bad=is_bad))
        return found

    def finding(self, pair: Pair, text: str, *, is_bad: bool | None) -> Finding:
        """None: it cannot be told."""
        verdict: Verdict = "cannot tell" if is_bad is None else "regression" if is_bad else "fine"
        return Finding("latency", f"{pair[0].proxy} by {self.label}", verdict, text)

    def _untimed(self, pair: Pair, error: UserError) -> Finding:
        """A network that cannot be timed, asked twice, is a regression where the baseline's can."""
        base = self.networks / pair[0].id
        try:
            sessions(self._profile, base, base)
        except UserError as others:
            return self.finding(pair, f"the baseline's network cannot be timed either: {others}", is_bad=None)
        try:
            self._look(pair)
        except UserError as again:
            return self.finding(pair, str(again), is_bad=None if is_the_machines(f"{error} {again}") else True)
        return self.finding(pair, f"{error} (at the second try it could)", is_bad=None)

    def _why_not(self, pair: Pair) -> str:
        """Why a pair cannot be compared here, or nothing."""
        try:
            if reason := self._profile.unavailable():
                return reason
            machine = measure.machine_of(self._profile)
        except UserError as error:
            return str(error)
        if digest(machine) != self.apart.machine:
            return "the baseline was timed on another machine, or with other versions"
        if not self.store.has_network(pair[1].id):
            return f"the network is not in {self.store.root}"
        manifest = self.networks / pair[0].id / "manifest.json"
        is_there = manifest.is_file() and artifact.sha256(manifest) == pair[0].artifact
        return "" if is_there else f"the baseline's network is not in {self.networks.name}/"

    def _look(self, pair: Pair) -> Look:
        return look(self._profile, self.store.artifact(pair[1].id), self.networks / pair[0].id)

    @property
    def _profile(self) -> HardwareProfile:
        return discover.make("hardware_profiles", self.label)  # type: ignore[no-any-return]


def _shown(looks: Sequence[Look]) -> str:
    doubts = (f" (disturbed: {seen.disturbed})" if seen.disturbed else "" for seen in looks)
    return ", then ".join(_percent(seen.slower) + doubt for seen, doubt in zip(looks, doubts, strict=True))


def _percent(slower: float) -> str:
    return f"{100 * slower:+.1f} %"
