"""Arguments that are wrong are told in one line; those that are right have a plain form."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress import Schedule
from lit_compress.callbacks._pruning.arguments import check_counts, check_patterns, one_of, plain
from lit_compress.errors import InvalidArgumentError


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_counts_are_whole_numbers_of_at_least_the_least(value: Any) -> None:
    check_counts(width=(1, 1), height=(5, 1))
    with pytest.raises(InvalidArgumentError, match="width must be a whole number of at least 1"):
        check_counts(height=(5, 1), width=(value, 1))


def test_choices_are_named() -> None:
    one_of("shrink", "end", ("every", "end"))
    with pytest.raises(InvalidArgumentError, match="shrink must be one of every, end, got 'no'"):
        one_of("shrink", "no", ("every", "end"))


def test_a_text_in_the_place_of_patterns_is_refused() -> None:
    check_patterns(include=["a"], exclude=())
    with pytest.raises(InvalidArgumentError, match=r"exclude must be a list of patterns.*got 'b'"):
        check_patterns(include=["a"], exclude="b")


def test_a_schedule_is_plain_values() -> None:
    assert plain(Schedule(1, 5, 2)) == {"first": 1, "last": 5, "every": 2, "shape": "cubic"}
