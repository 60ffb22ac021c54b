import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.artifact import agreement, sqnr_db
from lit_compress.artifact.answers import Answers
from lit_compress.artifact.fidelity import median_sqnr_db, sketch, sketch_db


@given(st.floats(0.5, 100), st.floats(1e-4, 0.4))
def test_sqnr_of_a_known_error(signal: float, share: float) -> None:
    reference = np.full((3, 4), signal)
    assert sqnr_db(reference, reference * (1 + share)) == pytest.approx(-20 * math.log10(share))


def test_sqnr_at_the_ends() -> None:
    ones = np.ones((2, 2))
    assert sqnr_db(ones, ones) == 200
    assert sqnr_db(ones * 0, ones) == -200
    assert sqnr_db(ones, ones * np.nan) == -200


def test_agreement_is_the_share_of_equal_arg_max() -> None:
    left = np.array([[1, 2], [3, 1], [0, 5], [1, 0]])
    right = np.array([[1, 9], [1, 3], [0, 1], [5, 0]])
    assert agreement(left, right) == 0.75


def test_one_huge_output_does_not_hide_the_others() -> None:
    """A faulty pixel gave one image huge outputs: 30 dB in all, and noise for all other images."""
    reference = np.array([[1.0, 2.0], [2.0, 1.0], [1e4, 1e4]])
    converted = np.array([[2.0, 1.0], [1.0, 2.0], [1e4, 1e4]])
    assert sqnr_db(reference, converted) > 70
    assert median_sqnr_db(reference, converted) == pytest.approx(10 * math.log10(5 / 2))
    assert median_sqnr_db(reference * [[0], [0], [1]], converted) is None


def test_signs_agree_where_they_are_equal() -> None:
    left, right = np.array([[1.0], [-1.0], [2.0]]), np.array([[0.1], [0.1], [-3.0]])
    assert agreement(left, right, Answers("sign")) == pytest.approx(1 / 3)


@given(st.integers(0, 2**32 - 1), st.sampled_from([20.0, 40.0, 60.0]), st.integers(1, 300))
def test_a_sketch_tells_the_noise(seed: int, level: float, width: int) -> None:
    random = np.random.default_rng(seed)
    outputs = random.normal(size=(32, width)) + 5
    noise = random.normal(size=outputs.shape)
    noise *= np.sqrt(np.square(outputs).sum() / np.square(noise).sum()) * 10 ** (-level / 20)
    found = sketch_db(sketch([outputs]), [outputs + noise])
    assert found == pytest.approx(sqnr_db(outputs, outputs + noise), abs=8)


@given(st.integers(0, 2**32 - 1))
def test_equal_outputs_have_equal_sketches(seed: int) -> None:
    outputs = np.random.default_rng(seed).normal(size=(8, 5, 3)).astype(np.float32) * 1e6
    assert sketch_db(sketch([outputs]), [outputs]) > 120
    assert sketch_db(sketch([outputs * 0]), [outputs * 0]) == 200
    assert sketch_db(sketch([outputs * 0]), [outputs]) < 10


def test_fewer_than_a_quarter_of_the_inputs_may_differ() -> None:
    """Where a sum lies between two steps, some processors round to one and some to the other."""
    outputs = np.random.default_rng(0).normal(size=(32, 10))
    told = sketch([outputs, outputs[0, :3]])
    for count in (7, 8):
        others = outputs.copy()
        others[:count] += 1
        assert (sketch_db(told, [others, outputs[0, :3]]) > 100) is (count < 8)
    assert sketch_db(told, [outputs, outputs[0, :3] * 2]) < 10
    assert sketch_db(told, [outputs * np.nan, outputs[0, :3]]) == -200


def test_a_sketch_of_other_shapes_is_refused() -> None:
    told = sketch([np.ones((4, 3))])
    with pytest.raises(ValueError, match="1 sketches of 2 outputs"):
        sketch_db(told, [np.ones((4, 3))] * 2)
    with pytest.raises(ValueError, match="16 numbers in place of 20"):
        sketch_db(told, [np.ones((5, 3))])
    with pytest.raises(ValueError, match="base64"):
        sketch_db(["!"], [np.ones((4, 3))])
