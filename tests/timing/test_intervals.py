"""Intervals of medians. Those of whole comparisons are in tests/measure/test_latency.py."""

from __future__ import annotations

import numpy as np
import pytest

from lit_compress.timing.intervals import RESOLUTION, bootstrap, median_interval, speedup


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        values = random.normal(5, 1, 40)
        low, high = median_interval(values, bootstrap(random, 40), confidence=0.95)
        held += low <= 5 <= high
    assert 180 <= held <= 199


def test_more_confidence_is_a_wider_interval() -> None:
    random = np.random.default_rng(0)
    values, draws = random.normal(5, 1, 40), bootstrap(random, 40)
    narrow, wide = (median_interval(values, draws, c) for c in (0.95, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_speedup_is_widened_by_the_resolution() -> None:
    draws = bootstrap(np.random.default_rng(0), 10)
    found = speedup("other", np.full(10, 2.0), draws, 0.99)
    assert (found.over, found.ratio, found.significant) == ("other", 2.0, True)
    assert found.interval == pytest.approx((2 / (1 + RESOLUTION), 2 * (1 + RESOLUTION)))
