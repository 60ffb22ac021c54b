from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lit_compress.attributes import replaced_attributes


def double(x: Any) -> Any:
    return 2 * x


def test_a_method_is_replaced_within_the_block_and_the_classes_own_is_found_after_it() -> None:
    layer = nn.Identity()
    before = dict(vars(layer))

    with replaced_attributes(layer, forward=double):
        within = layer(3)

    assert (within, layer(3)) == (6, 3)
    assert vars(layer) == before


def test_an_attribute_of_the_instance_gets_its_value_back() -> None:
    layer = nn.Dropout(0.5)

    with replaced_attributes(layer, p=0.0, training=False, extra=1):
        within = (layer.p, layer.training, layer.extra)

    assert within == (0.0, False, 1)
    assert (layer.p, layer.training) == (0.5, True)
    assert not hasattr(layer, "extra")


def test_blocks_can_be_nested() -> None:
    layer = nn.Identity()

    with replaced_attributes(layer, forward=double):
        with replaced_attributes(layer, forward=torch.neg):
            inner = layer(torch.tensor(3))
        outer = layer(3)

    assert (int(inner), outer, layer(3)) == (-3, 6, 3)


def test_an_error_in_the_block_restores_too() -> None:
    layer = nn.Identity()

    with pytest.raises(ValueError, match="stop"), replaced_attributes(layer, forward=double):
        raise ValueError("stop")

    assert layer(3) == 3
