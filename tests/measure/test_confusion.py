"""Which class is taken for which, and where that is not known."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.measure.confusion import Confusion


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), min_size=1))
def test_it_counts_pairs_of_label_and_answer(batches: list[list[tuple[int, int]]]) -> None:
    found = Confusion()
    expected = [[0] * 4 for _ in range(4)]
    for batch in batches:
        labels = torch.tensor([label for label, _ in batch])
        scores = torch.nn.functional.one_hot(torch.tensor([answer for _, answer in batch]), 4)
        found.add((torch.zeros(len(batch), 2), labels), scores.float())
        for label, answer in batch:
            expected[label][answer] += 1
    assert found.table == tuple(map(tuple, expected))


LABELS, SCORES = torch.tensor([0, 1]), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("batch", "outputs"),
    [
        ({"x": 1, "y": LABELS}, SCORES),
        ((SCORES,), SCORES),
        ((SCORES, LABELS.float()), SCORES),
        ((SCORES, LABELS), [SCORES]),
        ((SCORES, LABELS), torch.zeros(2, 3, 4)),
        ((SCORES, LABELS), torch.zeros(3, 3)),
        ((SCORES, torch.tensor([0, 3])), SCORES),
        ((SCORES, torch.tensor([-100, 1])), SCORES),
        ((SCORES, LABELS), torch.zeros(2, 101)),
        ((SCORES, LABELS), torch.zeros(2, 4)),
        (None, SCORES),
    ],
)
def test_what_is_no_classification_has_none(batch: Any, outputs: Any) -> None:
    found = Confusion()
    found.add((SCORES, LABELS), SCORES)
    found.add(batch, outputs)
    found.add((SCORES, LABELS), SCORES)
    assert found.table is None
