import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.artifact import agreement, sqnr_db
from lit_compress.artifact.answers import Answers
from lit_compress.artifact.fidelity import median_sqnr_db


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
