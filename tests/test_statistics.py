"""Means, spreads and paired intervals, against answers worked out by hand."""

from __future__ import annotations

import math

import pytest

from slimbench.core import pack, unpack
from slimbench.statistics import alike, detectable, holm, paired, student, student_t, summarise, tiers


def test_sample_deviation():
    """Divided by n - 1."""
    summary = summarise([90.0, 92.0, 94.0])
    assert (summary.mean, summary.sd, summary.n) == (92.0, 2.0, 3)


def test_one_value_has_no_spread():
    """nan, not zero."""
    assert math.isnan(summarise([90.0]).sd)
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_student_quantiles():
    """From any table: 12.706 at one degree of freedom, 2.571 at five."""
    assert student_t(1) == pytest.approx(12.7062, abs=1e-4)
    assert student_t(5) == pytest.approx(2.5706, abs=1e-4)


def test_paired_difference_by_seed():
    """Differences 1 and 3: mean 2, interval 2 ± 12.7062 * sqrt(2) / sqrt(2); seeds that only one has do not count."""
    difference = paired({0: 91.0, 1: 93.0, 7: 0.0}, {0: 90.0, 1: 90.0, 2: 50.0})
    assert difference.mean == 2.0
    assert difference.low == pytest.approx(2 - 12.7062, abs=1e-4)
    assert difference.high == pytest.approx(2 + 12.7062, abs=1e-4)
    assert difference.is_indicative


def test_one_pair_decides_nothing():
    """Its interval is everything."""
    difference = paired({0: 91.0}, {0: 90.0})
    assert (difference.low, difference.high) == (-math.inf, math.inf)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_six_seeds_are_no_longer_indicative():
    """The smallest n at which a paired test can reach p < 0.05."""
    ours = {seed: 90.0 + seed for seed in range(6)}
    assert not paired(ours, dict.fromkeys(range(6), 90.0)).is_indicative


def test_per_sample_scores_pack_and_unpack():
    """Ten thousand hits and misses take a few kilobytes."""
    scores = [float(i % 7 != 0) for i in range(10_000)]
    assert list(unpack(pack(scores))) == scores
    assert len(pack(scores)) < 4000
    assert unpack("") == ()


def test_the_p_value_is_of_the_paired_t_test():
    """As scipy's, which is another road to it."""
    from scipy.stats import ttest_rel

    ours, theirs = [91.0, 90.5, 92.0, 91.2], [90.0, 90.4, 91.0, 91.3]
    found = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    right = ttest_rel(ours, theirs)
    assert found.p == pytest.approx(right.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(right.confidence_interval()))
    assert student([2.0, 2.0]).p == 0.0
    assert student([0.0, 0.0]).p == 1.0


def test_holm_by_hand():
    """Four p values: times 4, 3, 2 and 1, and never below the one before."""
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_what_so_many_seeds_can_show():
    """sd 0.3: 2.571 + 0.920 deviations of the mean of six; a deviation of zero shows everything, one seed nothing."""
    assert detectable(0.3, 6) == pytest.approx((2.5706 + 0.9195) * 0.3 / math.sqrt(6), abs=1e-4)
    assert detectable(0.0, 6) == 0.0
    assert detectable(0.3, 1) == math.inf


SEEDS = range(6)
NOISE = (0.1, -0.2, 0.15, 0.0, -0.1, 0.05)


def method(mean, sign=1):
    """Six seeds around a mean."""
    return {seed: mean + sign * NOISE[seed] for seed in SEEDS}


def test_tiers_tell_apart_what_differs():
    """Two that lie together share the first letter, the third is below."""
    assert tiers({"low": method(85.0), "best": method(90.0), "near": method(89.95, -1)}) == {
        "best": "a",
        "near": "a",
        "low": "b",
    }


def test_tiers_need_six_seeds_and_two_methods():
    """Below that there are none."""
    five = {seed: 90.0 + NOISE[seed] for seed in range(5)}
    assert tiers({"a": five, "b": method(80.0)}) == {}
    assert tiers({"a": method(90.0)}) == {}


def test_groups_overlap_where_the_middle_is_like_both():
    """a is apart from c alone: b belongs to both groups."""
    assert alike("abc", [("a", "c")]) == [["a", "b"], ["b", "c"]]
    assert alike("abc", []) == [["a", "b", "c"]]
    assert alike("ab", [("a", "b")]) == [["a"], ["b"]]
