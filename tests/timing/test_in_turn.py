"""Rounds that a time allows. What is timed in turn is tested by tests/measure/test_latency.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lit_compress.timing.in_turn import FEWEST, affordable_rounds


@given(st.floats(0, 100), st.floats(0.1, 1000), st.integers(FEWEST, 200))
def test_no_more_rounds_than_wanted_and_no_more_time_than_given(
    each: float, seconds: float, wanted: int
) -> None:
    found = affordable_rounds(each, seconds, wanted)
    assert FEWEST <= found <= wanted
    assert found == FEWEST or found * each <= seconds * (1 + 1e-9)
    assert found == wanted or (found + 1) * each > seconds * (1 - 1e-9)
