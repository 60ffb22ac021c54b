"""Which ratios a scan tries, and which it chooses."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.errors import InvalidArgumentError
from lit_compress.sensitivity.levels import Bisection, check_levels, largest_tolerated

HALF = Fraction(1, 2)


def test_levels_are_the_decimals_that_were_written_rising() -> None:
    assert check_levels([0.3, 0, 1, 0.07, 0.3]) == (0, Fraction(7, 100), Fraction(3, 10), 1)
    with pytest.raises(InvalidArgumentError, match=r"levels must be numbers in \[0, 1\], got 2"):
        check_levels([2])


def test_the_largest_ratio_before_the_first_drop() -> None:
    drops = {Fraction(n, 10): drop for n, drop in ((1, 0.0), (2, 0.01), (3, 0.5), (4, 0.0))}
    assert largest_tolerated(drops, 0.01) == Fraction(2, 10)
    assert largest_tolerated(drops, 1) == Fraction(4, 10)
    assert largest_tolerated({Fraction(1, 10): float("nan")}, 1) == 0
    assert largest_tolerated({HALF: -0.2, Fraction(1): 0.0}, 0.0) == HALF
    assert largest_tolerated({}, 1) == 0


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 20), min_size=1),
    st.lists(st.floats(0, 1), min_size=21, max_size=21),
    st.floats(0, 1),
)
def test_bisection_chooses_what_all_levels_choose(
    numbers: set[int], drops: list[float], tolerance: float
) -> None:
    levels = [Fraction(number, 20) for number in sorted(numbers)]
    rising = {level: sorted(drops)[int(level * 20)] if level else 0.0 for level in levels}
    search, tried = Bisection(levels, tolerance), 0
    seen: dict[Fraction, float] = {}
    while (ratio := search.next) is not None:
        seen[ratio] = rising[ratio]
        search.tell(rising[ratio])
        tried += 1
    assert (
        search.found == largest_tolerated(rising, tolerance) == largest_tolerated(seen, tolerance)
    )
    assert tried <= len(levels).bit_length()
