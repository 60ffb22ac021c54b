"""Samples of the validation set: fixed, in proportion, and of any batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.errors import ScanError
from lit_compress.sensitivity.sample import BATCH, draw, stratified


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.data())
def test_each_class_is_drawn_in_its_proportion(counts: list[int], data: st.DataObject) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(0).shuffle(labels)
    size = data.draw(st.integers(1, len(labels)))
    rows = stratified(labels, size, np.random.default_rng(1))
    assert len(set(rows.tolist())) == len(rows) == size
    assert rows.tolist() == sorted(rows.tolist())
    drawn = Counter(labels[rows].tolist())
    for label, count in enumerate(counts):
        assert abs(drawn[label] - count * size / len(labels)) < 1


def numbered(count: int, **options: Any) -> DataLoader:
    rows = torch.arange(count)
    return DataLoader(TensorDataset(rows.float()[:, None], rows % 3), **options)


def values(sample: Any) -> list[int]:
    return torch.cat([batch[0] for batch in sample]).flatten().int().tolist()


def test_the_whole_set_keeps_its_batches() -> None:
    for size in (None, 50, 51):
        sample = draw(numbered(50, batch_size=16), size)
        assert values(sample) == list(range(50))
        assert (len(sample), sample.size, sample.how) == (4, 50, "all 50 validation examples")


def test_a_sample_is_the_same_each_time_and_another_with_another_seed() -> None:
    loader = numbered(1800, batch_size=64)
    one, same, other = draw(loader, 600), draw(loader, 600), draw(loader, 600, seed=1)
    assert values(one) == values(same) != values(other)
    assert Counter(int(v) for b in one for v in b[1]) == {0: 200, 1: 200, 2: 200}
    assert [len(batch[0]) for batch in one] == [BATCH, 600 - BATCH]
    assert one.how == "600 of 1800 validation examples, each class in its proportion (seed 0)"


@pytest.mark.parametrize("generator", [None, torch.Generator()])
@pytest.mark.parametrize("size", [60, None])
def test_a_loader_that_shuffles_gives_the_same_sample_and_keeps_its_state(
    generator: torch.Generator | None, size: int | None
) -> None:
    """Labels were read in one order, and rows drawn in another."""
    loader = numbered(90, batch_size=8, shuffle=True, generator=generator)
    before, own = torch.get_rng_state(), generator and generator.get_state()
    first = draw(loader, size)
    assert torch.equal(torch.get_rng_state(), before)
    assert own is None or torch.equal(generator.get_state(), own)
    torch.rand(3)
    assert values(first) == values(draw(loader, size))
    labels = torch.cat([batch[1] for batch in first])
    assert set(Counter(labels.tolist()).values()) == {(size or 90) // 3}


def test_steps_cannot_change_the_sample() -> None:
    sample = draw(numbered(10, batch_size=10), None)
    for batch in (*sample, sample.batch(0)):
        batch[0].zero_()
    assert values(sample) == list(range(10))


def test_mappings_and_batches_without_labels() -> None:
    rows = [{"image": torch.rand(2, 3), "label": torch.tensor(i % 2)} for i in range(40)]
    sample = draw(DataLoader(rows, batch_size=7), 10)
    assert Counter(int(v) for b in sample for v in b["label"]) == {0: 5, 1: 5}
    assert "each class" in sample.how
    plain = draw(DataLoader(torch.rand(40, 3), batch_size=7), 10)
    assert (len(plain.batches[0]), plain.how) == (
        10,
        "10 of 40 validation examples, drawn evenly (seed 0)",
    )
    floats = draw(DataLoader(TensorDataset(torch.rand(9, 2), torch.rand(9)), batch_size=3), 4)
    assert "drawn evenly" in floats.how


@pytest.mark.parametrize(
    "batches",
    [
        [(torch.rand(4, width), torch.zeros(4).long()) for width in range(1, 11)],  # padded
        [(torch.rand(4, 2), ["a"] * 4) for _ in range(10)],
        [{"x": torch.rand(4, 2), "scale": 2.0} for _ in range(10)],
        [(torch.rand(4, 2), torch.rand(7, 2)) for _ in range(10)],
    ],
)
def test_batches_that_cannot_be_taken_apart_are_taken_whole(batches: list[Any]) -> None:
    sample = draw(batches, 10)
    assert sample.how == "3 whole batches, 12 examples"
    assert sample.size == 12
    assert draw(batches, None).how == "all 40 validation examples"


@pytest.mark.parametrize("loader", [[], DataLoader(TensorDataset(torch.empty(0, 2)))])
def test_no_data_is_refused(loader: Any) -> None:
    with pytest.raises(ScanError, match="there is no validation data to scan on"):
        draw(loader, 5)
