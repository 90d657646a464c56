"""Means, spreads and paired intervals, against answers worked out by hand."""

from __future__ import annotations

import math

import pytest

from slimbench.core import pack, unpack
from slimbench.statistics import paired, student_t, summarise


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
