"""What a network answers: a class, a class at each position, or a sign; found from the labels.

The share of equal answers means something only where the outputs stand for answers. Shapes alone do
not say so: four outputs may be four classes, or the corners of a box. The labels in the validation
batches do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: What is compared; the values that ``agreement_on`` has on a card.
Kind = Literal["class", "class at each position", "sign", "side of 0.5"]

#: Labels that mean "not labelled" in segmentation.
IGNORED = 255


@dataclass(frozen=True)
class Answers:
    """How to read the answers from the outputs of a network.

    Attributes:
        kind: What an answer is.
        axis: Axis of the outputs that holds the classes; unused if the answer is a sign.
    """

    kind: Kind
    axis: int = 1

    def of(self, outputs: np.ndarray) -> np.ndarray:
        """Return the answers.

        Args:
            outputs: Outputs of a network; the first axis is the batch.

        Example:
            >>> Answers("class").of(np.array([[1, 2], [4, 3]]))
            array([1, 0])
            >>> Answers("sign").of(np.array([[0.5], [-1.0]]))
            array([[ True],
                   [False]])
        """
        if self.kind in ("class", "class at each position"):
            return np.asarray(outputs.argmax(self.axis))
        return np.asarray(outputs > (0.5 if self.kind == "side of 0.5" else 0))


#: The answers of a classifier with outputs of shape (batch, classes).
CLASSES = Answers("class")


def find_answers(
    outputs: np.ndarray,
    batch: Sequence[np.ndarray],
    inputs: Iterable[np.ndarray] = (),
    classes: int = 0,
) -> Answers | None:
    """Find out from the labels what a network answers.

    Args:
        outputs: Outputs of the network; the first axis is the batch.
        batch: All arrays of a batch of data, labels and inputs.
        inputs: Inputs of the network, which are no labels.
        classes: Number of classes that the data state; 0 if they state none.

    Returns:
        The answers; None if no label says that the outputs are classes or signs.

    Example:
        >>> images, labels = np.zeros((8, 3, 4, 4)), np.arange(8) % 5
        >>> find_answers(np.zeros((8, 5)), [images, labels], [images])
        Answers(kind='class', axis=1)
        >>> find_answers(np.zeros((8, 4)), [images, np.random.rand(8, 4)], [images]) is None
        True
    """
    labels = _without_inputs(batch, inputs)
    alike = [label for label in labels if _form(label.shape) == _form(outputs.shape)]
    if alike:
        return _from_values(outputs, alike[-1])
    for label in labels:
        if (axis := _class_axis(outputs.shape, label)) is not None:
            return Answers("class at each position" if label[0].size > 1 else "class", axis)
    if classes > 1 and outputs.ndim == 2 and outputs.shape[1] == classes:
        return CLASSES
    return None


def _without_inputs(batch: Sequence[np.ndarray], inputs: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays that are not inputs: of those alike, inputs come before labels."""
    left = Counter((array.shape[1:], array.dtype.kind) for array in inputs)
    labels = []
    for array in batch:
        key = array.shape[1:], array.dtype.kind
        left[key] -= 1
        if left[key] < 0 and array.ndim:
            labels.append(array)
    return labels


def _from_values(outputs: np.ndarray, label: np.ndarray) -> Answers | None:
    """Return the answers if a label has a number for each output: 0 or 1, or shares of 1."""
    label = label.reshape(len(label), *outputs.shape[1:])
    values = set(np.unique(label).tolist())
    several = outputs.ndim > 1 and outputs.shape[1] > 1
    shares = several and bool(np.all(label >= 0)) and np.allclose(label.sum(1, dtype=float), 1)
    if shares:
        return Answers("class" if outputs[0].size == outputs.shape[1] else "class at each position")
    signs = values <= {0, 1} or values <= {-1, 1}
    if not signs or (len(values) < 2 and label.dtype.kind == "f"):
        return None
    between = bool(np.all((outputs >= 0) & (outputs <= 1)))
    return Answers("side of 0.5" if between else "sign")


def _class_axis(shape: tuple[int, ...], label: np.ndarray) -> int | None:
    """Return the axis of the outputs that whole numbers in a label count along."""
    if label.dtype.kind not in "iu":
        return None
    known = label[(label >= 0) & (label != IGNORED)]
    for axis in dict.fromkeys((1, len(shape) - 1)):
        if axis < 1 or axis >= len(shape) or shape[axis] < 2:
            continue
        rest = (*shape[:axis], *shape[axis + 1 :])
        if _form(rest) == _form(label.shape) and known.max(initial=0) < shape[axis]:
            return axis
    return None


def _form(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the batch and without axes of length 1."""
    return tuple(size for size in shape[1:] if size != 1)
