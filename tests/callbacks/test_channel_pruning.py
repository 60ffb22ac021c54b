"""What the callbacks that remove channels have in common."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.callbacks import FilterPruning, RulePruning
from lit_compress.callbacks.channel_pruning import ChannelPruning, check_counts, one_of
from lit_compress.errors import InvalidArgumentError


def test_both_callbacks_are_of_it() -> None:
    for callback in (FilterPruning(0.5), RulePruning(target=0.5)):
        assert isinstance(callback, ChannelPruning)
        assert callback.original() is None


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_counts_are_whole_numbers_of_at_least_the_least(value: Any) -> None:
    check_counts(width=(1, 1), height=(5, 1))
    with pytest.raises(InvalidArgumentError, match="width must be a whole number of at least 1"):
        check_counts(height=(5, 1), width=(value, 1))


def test_choices_are_named() -> None:
    one_of("shrink", "end", ("every", "end"))
    with pytest.raises(InvalidArgumentError, match="shrink must be one of every, end, got 'no'"):
        one_of("shrink", "no", ("every", "end"))


@pytest.mark.parametrize("make", [FilterPruning, lambda *_: RulePruning(target=0.5)])
def test_nothing_is_known_before_a_fit(make: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="has not seen the network yet: start a fit"):
        make(0.5)._opened()
