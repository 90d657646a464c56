"""The alarm budget over recorded noise: false alarms are rare, faults are found, and the docs say what is so."""

from __future__ import annotations

import random

import pytest

import alarms
from slimbench.latency import Look


@pytest.mark.parametrize("recorded", alarms.Recording.every(), ids=lambda recorded: f"trusting={recorded.is_trusting}")
def test_at_most_one_false_alarm_in_twenty_nights(recorded):
    """Were everything to change each night for no worse: scores and latencies together."""
    got = alarms.rates(recorded)
    assert got.alarms <= 1 / 20, got


def test_planted_losses_are_found_in_recorded_noise():
    """Of twice what the proxy can detect."""
    assert alarms.found_scores() >= 0.95


def test_slower_networks_are_found_as_often_as_is_said():
    """At the detectable slowdown four times in five, in each recording that made baselines; one more standard error off
    is chance."""
    got = [alarms.rates(recorded) for recorded in alarms.Recording.every()]
    made = [rates for rates in got if rates.made == 1]
    assert made
    assert all(rates.seen == pytest.approx(0.8, abs=0.08) for rates in made), made


def quiet(sd: float) -> alarms.Recording:
    """A machine whose sessions deviate by so much, in looks of its own."""
    draw = random.Random(0)
    return alarms.Recording("", tuple(tuple(Look(draw.gauss(0, sd)) for _ in range(4)) for _ in range(100)), False)


def test_five_per_cent_is_found_on_a_quiet_machine():
    """Nine times in ten where equal networks are 1 % apart in a session, and seldom where they are 5 %."""
    assert alarms.rates(quiet(0.01)).five >= 0.9
    assert alarms.rates(quiet(0.05)).five < 0.5


def test_the_docs_say_what_is_so():
    """``python tests/alarms.py`` writes it."""
    assert alarms.in_docs() == alarms.table()
