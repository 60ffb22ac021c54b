"""What the callbacks that remove channels have in common."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.callbacks import FilterPruning, RulePruning
from lit_compress.callbacks.channel_pruning import ChannelPruning
from lit_compress.errors import InvalidArgumentError


def test_both_callbacks_are_of_it() -> None:
    for callback in (FilterPruning(0.5), RulePruning(target=0.5)):
        assert isinstance(callback, ChannelPruning)
        assert callback.original() is None


@pytest.mark.parametrize("make", [FilterPruning, lambda *_: RulePruning(target=0.5)])
def test_nothing_is_known_before_a_fit(make: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="has not seen the network yet: start a fit"):
        make(0.5)._opened()
