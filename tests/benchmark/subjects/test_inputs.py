"""Shapes and types of inputs, and what random ones may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.benchmark.subjects.inputs import Slot, random_arrays, slots_of, stored_arrays
from lit_compress.errors import InvalidArgumentError
from lit_compress.runtimes.interface import Input
from lit_compress.runtimes.onnx import NUMPY_TYPES

F4 = np.dtype(np.float32)


def taken(shape: tuple[object, ...], batched: bool = True, name: str = "x") -> Input:
    return Input(name, shape, F4, batched)  # type: ignore[arg-type]  # as a runtime gives them


def test_a_free_first_axis_is_the_batch() -> None:
    assert slots_of([taken((3, 8))], (), "a") == (Slot("x", (3, 8), F4),)


def test_a_fixed_first_axis_is_the_only_batch() -> None:
    assert slots_of([taken((4, 3), batched=False)], (), "a") == (Slot("x", (3,), F4, batch=4),)


def test_an_input_without_a_batch_beside_one_with_it() -> None:
    both = [taken((3,)), taken((7, 7), batched=False, name="table")]
    assert slots_of(both, (), "a")[1] == Slot("table", (7, 7), F4, whole=True)
    arrays = random_arrays(slots_of(both, (), "a"), 5)
    assert [array.shape for array in arrays] == [(5, 3), (7, 7)]


def test_open_sizes_are_given() -> None:
    both = [taken(("seq",)), taken(("seq",), name="mask")]
    assert [slot.shape for slot in slots_of(both, [(16,)], "a")] == [(16,), (16,)]
    assert [slot.shape for slot in slots_of(both, [(16,), (8,)], "a")] == [(16,), (8,)]


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        ([taken((3, "h"))], [], r"leaves sizes of its input x open \(3 x h\)"),
        ([taken((3, "h"))], [(4, 8)], "takes examples of shape 3 x h as x"),
        ([taken((3, 8))], [(3,)], "takes examples of shape 3 x 8 as x, and the given shape is 3"),
        ([taken((3,))], [(3,), (3,)], r"has 1 inputs \(x\), and 2 shapes"),
    ],
)
def test_shapes_that_do_not_suit(
    inputs: list[Input], given: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        slots_of(inputs, given, "a.onnx")


@given(st.sampled_from(sorted(NUMPY_TYPES)), st.integers(1, 5), st.sampled_from([None, 1, 9]))
def test_random_numbers_of_each_type(kind: str, batch: int, rows: int | None) -> None:
    slot = Slot("x", (2, 3), np.dtype(NUMPY_TYPES[kind]), rows=rows)
    (found,), (again,) = random_arrays([slot], batch), random_arrays([slot], batch)
    assert found.shape == (batch, 2, 3)
    assert found.dtype == slot.dtype
    np.testing.assert_array_equal(found, again)
    if slot.dtype.kind in "iu" and (rows or slot.dtype.itemsize > 1):
        assert found.min() >= 0
        assert found.max() < (rows or 2)


def test_stored_inputs_are_used_where_there_are_enough() -> None:
    slots = [Slot("x", (2,), F4), Slot("table", (3,), F4, whole=True)]
    arrays = [np.arange(8, dtype=np.float32).reshape(4, 2), np.ones(3, np.float32)]
    found = stored_arrays(slots, arrays, 3)
    assert found is not None
    np.testing.assert_array_equal(found[0], arrays[0][:3])
    np.testing.assert_array_equal(found[1], arrays[1])
    assert stored_arrays(slots, arrays, 5) is None
    assert stored_arrays(slots, arrays[:1], 1) is None
