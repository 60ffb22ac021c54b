"""What a network answers, found from the labels in its data."""

from __future__ import annotations

import numpy as np
import pytest

from lit_compress.artifact.answers import Answers, find_answers

IMAGES = np.zeros((8, 3, 6, 6), np.float32)
CLASS = np.arange(8) % 4
BITS = np.arange(8) % 2
LOGITS = np.linspace(-2, 2, 8, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("outputs", "label", "kind", "axis"),
    [
        (np.zeros((8, 4)), CLASS, "class", 1),
        (np.zeros((8, 4, 1, 1)), CLASS, "class", 1),
        (np.zeros((8, 4)), np.eye(4)[CLASS], "class", 1),
        (np.zeros((8, 4)), np.full((8, 4), 0.25), "class", 1),
        (np.zeros((1, 4)), np.full((1, 4), 0.25), "class", 1),
        (np.zeros((8, 4, 6, 6)), np.zeros((8, 6, 6), int) + 3, "class at each position", 1),
        (np.zeros((8, 4, 6, 6)), np.full((8, 1, 6, 6), 255), "class at each position", 1),
        (np.zeros((8, 5, 20)), np.zeros((8, 5), int) + 19, "class at each position", 2),
    ],
)
def test_classes_lie_along_the_axis_that_labels_do_not_have(
    outputs: np.ndarray, label: np.ndarray, kind: str, axis: int
) -> None:
    """Of (batch, classes, height, width) the arg-max was taken along the width."""
    assert find_answers(outputs, [IMAGES, label], [IMAGES]) == Answers(kind, axis)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [BITS, BITS[:, None], BITS.astype(np.float32), BITS * 2 - 1])
def test_one_logit_is_a_sign(label: np.ndarray) -> None:
    """A binary classifier with one logit agreed with everything: there is one class to choose."""
    assert find_answers(LOGITS, [IMAGES, label], [IMAGES]) == Answers("sign")
    between = find_answers((LOGITS + 2) / 4, [IMAGES, label], [IMAGES])
    assert between == Answers("side of 0.5")


def test_several_labels_of_one_image_are_signs() -> None:
    labels = np.array([[0, 1, 1], [1, 1, 0]], np.float32)
    assert find_answers(np.zeros((2, 3)) - 1, [labels]) == Answers("sign")


@pytest.mark.parametrize(
    ("outputs", "batch"),
    [
        (np.zeros((8, 4)), [IMAGES, np.random.rand(8, 4)]),
        (np.zeros((8, 4)), [IMAGES, np.random.rand(8, 4), CLASS]),
        (np.zeros((8, 1)), [IMAGES, np.arange(8.0)]),
        (np.zeros((8, 1)), [IMAGES, np.zeros(8, np.float32)]),
        (np.zeros((8, 4)), [IMAGES]),
        (np.zeros((8, 4)), [IMAGES, CLASS + 4]),
        (np.zeros((8, 3, 6, 6)), [IMAGES, IMAGES + 0.3]),
    ],
)
def test_regression_has_no_answers(outputs: np.ndarray, batch: list[np.ndarray]) -> None:
    assert find_answers(outputs, batch, [IMAGES]) is None


def test_inputs_are_not_labels() -> None:
    tokens = np.zeros((8, 5), int)
    outputs = np.zeros((8, 5, 20))
    assert find_answers(outputs, [tokens], [tokens]) is None
    assert find_answers(outputs, [tokens, tokens], [tokens]) == Answers("class at each position", 2)


def test_class_names_of_the_data_are_enough() -> None:
    assert find_answers(np.zeros((8, 4)), [IMAGES], [IMAGES], classes=4) == Answers("class")
    assert find_answers(np.zeros((8, 4)), [IMAGES], [IMAGES], classes=5) is None


def test_answers_are_read_from_outputs() -> None:
    outputs = np.array([[[0.0, 3.0], [1.0, 2.0]]])
    np.testing.assert_array_equal(Answers("class", 1).of(outputs), [[1, 0]])
    np.testing.assert_array_equal(Answers("class", 2).of(outputs), [[1, 1]])
    np.testing.assert_array_equal(
        Answers("side of 0.5").of(outputs), [[[False, True], [True, True]]]
    )
