import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.pruning.channels.tracing.labels import (
    Labels,
    Reason,
    compact,
    components,
    core,
    shared_core,
    spread,
    varying,
)

WHY = Reason("for a test")


def test_reason_reads_as_a_sentence() -> None:
    assert str(Reason("stays", "add", "net.a", "net.py", 7)) == "stays (add in net.a at net.py:7)"
    assert str(Reason("stays")) == "stays"


def test_tied_labels_are_one_channel() -> None:
    labels = Labels()
    first, second = labels.fresh(3), labels.fresh(3)
    labels.tie(first, second, WHY)
    roots, frozen = labels.resolve()
    assert roots.tolist() == [0, 1, 2, 0, 1, 2]
    assert (frozen == -1).all()


def test_label_tied_to_none_is_frozen() -> None:
    labels = Labels()
    first = labels.fresh(3)
    labels.tie(first, torch.tensor([0, -1, 2]), WHY)
    assert labels.resolve()[1].tolist() == [-1, 0, -1]


def test_first_reason_counts_for_the_whole_channel() -> None:
    labels = Labels()
    first, second = labels.fresh(2), labels.fresh(2)
    labels.freeze(second[:1], WHY)
    labels.freeze(first, Reason("later"))
    labels.tie(first, second, WHY)
    assert labels.resolve()[1].tolist() == [0, 1, 0, 1]


def test_freezing_nothing_gives_no_reason() -> None:
    labels = Labels()
    labels.freeze(None, WHY)
    labels.freeze(torch.tensor([-1]), WHY)
    assert labels.reasons == []


def test_along_ties_what_shares_an_index() -> None:
    labels = Labels()
    twin = labels.fresh(6).view(2, 3)
    labels.along(twin, 1, WHY)
    assert labels.resolve()[0].tolist() == [0, 1, 2, 0, 1, 2]


def test_along_an_expanded_dimension_repeats_one_label() -> None:
    labels = Labels()
    twin = spread(labels.fresh(3), torch.Size([2, 3, 4]), 1)
    assert labels.along(twin, 2, WHY).tolist() == [2] * 4
    assert len(set(labels.resolve()[0].tolist())) == 1


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components_are_those_of_a_naive_search(edges: list[tuple[int, int]]) -> None:
    pairs = np.array(edges, np.int64).reshape(-1, 2).T
    expected = list(range(20))
    for _ in range(20):
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert components(20, pairs).tolist() == expected


def test_twins_are_as_small_as_what_varies() -> None:
    twin = torch.arange(3, dtype=torch.int32).view(1, 3, 1).repeat(2, 1, 4)
    small = compact(twin)
    assert [step > 0 for step in small.stride()] == [False, True, False]
    assert torch.equal(small, twin)
    assert core(small).shape == (1, 3, 1)
    assert varying(small) == [1]


@pytest.mark.parametrize("dim", [0, 1])
def test_shared_core_keeps_what_one_needs(dim: int) -> None:
    first = spread(torch.arange(3), torch.Size([3, 3]), dim)
    second = spread(torch.arange(3), torch.Size([3, 3]), 1)
    assert {tuple(t.shape) for t in shared_core(first, second)} == {(1, 3) if dim else (3, 3)}
