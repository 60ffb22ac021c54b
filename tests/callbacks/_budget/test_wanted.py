"""What the arguments of a budget ask for."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._budget.wanted import UNKNOWN, Wanted, wanted_of
from lit_compress.errors import InvalidArgumentError


@pytest.mark.parametrize("round_to", [0, -1, 1.5, "fast"])
def test_other_multiples_are_refused(round_to: object) -> None:
    with pytest.raises(InvalidArgumentError, match="round_to"):
        FilterPruning(0.3, round_to=round_to)  # type: ignore[arg-type]


def test_what_a_budget_asks_for() -> None:
    latency = Wanted("latency", Fraction(1, 4), False, "auto", 1)
    size = Wanted("bytes", 20_000, True, 8, 1)
    plain = Wanted("filters", Fraction(1, 2), False, 1, 1)
    assert [one.counted for one in (latency, size, plain)] == ["macs", "parameters", "filters"]
    assert [one.share for one in (latency, size, plain)] == [
        Fraction(1, 4),
        UNKNOWN,
        Fraction(1, 2),
    ]
    assert [one.multiple for one in (latency, size, plain)] == [1, 8, 1]
    assert [one.unknown for one in (latency, size, plain)] == [True, True, False]


def test_only_a_budget_of_time_rounds_by_itself() -> None:
    found = [wanted_of(0.5, of, False, None, 1).round_to for of in ("filters", "macs", "latency")]
    assert found == [1, 1, "auto"]
    assert wanted_of(0.5, "latency", False, 4, 1).round_to == 4
