"""What the callbacks that remove channels have in common."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback

from lit_compress.callbacks import FilterPruning, RulePruning
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.errors import InvalidArgumentError


@pytest.mark.parametrize("callback", [FilterPruning(0.5), RulePruning(target=0.5)])
def test_no_example_is_known_before_a_fit(callback: Callback) -> None:
    assert isinstance(callback, ChannelPruning)
    with pytest.raises(InvalidArgumentError, match="has no example input yet: start a fit"):
        callback._require_example()
