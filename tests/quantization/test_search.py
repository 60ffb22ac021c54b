import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.quantization import LayerNoise, candidates, fewest_floats


@given(st.integers(1, 300), st.data())
def test_the_fewest_are_found_in_few_measurements(total: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(0, total - 1))
    seen: list[int] = []

    def drop(count: int) -> float:
        seen.append(count)
        return 0.0 if count >= needed else 1.0

    found = fewest_floats(total, drop, 0.5)
    assert (found.count, found.holds, found.drop) == (needed, True, 0.0)
    assert len(seen) == len(set(seen)) == found.evaluations
    assert found.evaluations <= 2 * math.log2(total) + 3


@given(st.lists(st.floats(0.6, 9), min_size=1, max_size=50))
def test_where_none_holds_the_least_that_was_measured_is_named(drops: list[float]) -> None:
    found = fewest_floats(len(drops), drops.__getitem__, 0.5)
    assert not found.holds
    assert found.drop == drops[found.count]
    assert found.evaluations <= 2 * math.log2(len(drops)) + 3


NOISE = (
    LayerNoise("input", None, 60),
    LayerNoise("a", 20, 40),
    LayerNoise("a/add", None, 10),
    LayerNoise("b", 50, 45),
    LayerNoise("c", 30, None),
)
READERS = {"input": ("a",), "a": ("a/add",), "a/add": ("b", "c"), "b": ("c",)}


def test_candidates_grow_by_the_worst_and_leave_one() -> None:
    sets = candidates(NOISE, READERS, ("a", "b", "c"))
    assert sets == [frozenset(), frozenset({"a/add", "b", "c"})]
    alone = candidates(NOISE[:2] + NOISE[3:], READERS, ("a", "b", "c"))
    assert alone == [frozenset(), frozenset({"a"}), frozenset({"a", "c"})]


@pytest.mark.parametrize("always", [frozenset({"a"}), frozenset({"a", "b", "c"})])
def test_what_is_in_float_already_is_in_every_candidate(always: frozenset[str]) -> None:
    sets = candidates(NOISE, READERS, ("a", "b", "c"), always)
    assert sets[0] == always
    assert all(always <= found for found in sets)
