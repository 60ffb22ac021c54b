"""Two passes have equal sums only if a network took the same numbers in the same places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_compress.evaluation.last_validation.input_sums import InputSums


def sums(*batches: Tensor) -> InputSums:
    found = InputSums()
    for batch in batches:
        found.add({"images": batch})
    return found


IMAGES = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "other",
    [
        IMAGES.flip(3),  # a random flip has the same numbers
        IMAGES.flip(0),
        IMAGES.roll(1, 2),
        IMAGES + 1e-6,
        IMAGES.double(),
        IMAGES.view(4, 3, 100),
        IMAGES[:3],
    ],
)
def test_other_inputs_have_other_sums(other: Tensor) -> None:
    assert not sums(IMAGES).equal(sums(other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.bool])
def test_equal_inputs_have_equal_sums(dtype: torch.dtype) -> None:
    batch = IMAGES.mul(100).to(dtype)
    turned = batch.contiguous(memory_format=torch.channels_last)  # the same numbers
    assert sums(batch, batch[:1]).equal(sums(turned, batch[:1]))
    assert not sums(batch, batch[:1]).equal(sums(batch))


def test_what_cannot_be_added_equals_nothing() -> None:
    found = sums(torch.eye(3).to_sparse())
    assert not found.equal(found)
