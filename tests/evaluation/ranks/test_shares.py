"""Shares of a loader: together they are all of it, batch by batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import stripes
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lit_compress.evaluation.ranks.shares import Share, share_of, why_whole


@pytest.mark.parametrize("world", [1, 2, 3, 9])
@pytest.mark.parametrize("size", [None, 4])
def test_the_batches_of_all_shares_are_those_of_the_loader(world: int, size: int | None) -> None:
    whole = DataLoader(stripes(30, 0), batch_size=size)
    assert why_whole(whole) is None
    expected = list(whole)[:7]
    found: dict[int, Any] = {}
    for rank in range(world):
        share = Share(rank, world)
        part = share_of(whole, share, 7)
        assert len(part) == len(share.numbers(7))
        found |= dict(zip(share.numbers(7), part, strict=True))
    assert len(found) == 7
    for number, batch in enumerate(expected):
        assert all(map(torch.equal, batch, found[number]))


def test_a_loader_of_the_users_own_is_not_shared() -> None:
    class Own(DataLoader):
        pass

    class Batches(BatchSampler):
        pass

    data = stripes(8, 0)
    batches = Batches(SequentialSampler(data), 2, drop_last=False)
    assert why_whole(Own(data)) == "its loader is not a plain DataLoader"
    assert why_whole(DataLoader(data, batch_sampler=batches)) == (
        "its loader has a batch_sampler of its own"
    )
