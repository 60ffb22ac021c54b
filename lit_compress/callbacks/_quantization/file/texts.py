"""Texts in a file: the size of its images, and the names of its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import Trainer

from lit_compress.artifact.runtime import CLASSES, SIZE
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.data_protocols import HasClasses
from lit_compress.evaluation.loaders import data_set, training_loaders, validation_loaders
from lit_compress.evaluation.trainer_access import datamodule


def check_classes(names: Sequence[str], shape: tuple[int, ...]) -> None:
    """Check that there is a name for each class.

    Args:
        names: The names that the user gave; none are right for every network.
        shape: Shape of the network's first output for a batch.

    Raises:
        InvalidArgumentError: If there are more or fewer.
    """
    if names and (len(shape) < 2 or shape[1] != len(names)):
        raise InvalidArgumentError(
            f"classes has {len(names)} names, and the network's outputs are of shape "
            f"{' x '.join(map(str, shape))}: give a name for each class, in the order of the "
            "labels"
        )


def class_names(
    trainer: Trainer, given: Sequence[str], shape: Callable[[], tuple[int, ...]]
) -> list[str]:
    """Return the names that were given, or those that the data have for as many outputs.

    Args:
        trainer: The run, for its data.
        given: The names that the user gave.
        shape: Returns the shape of the network's first output for a batch.
    """
    if given:
        return list(given)
    data: object = datamodule(trainer)
    if isinstance(data, HasClasses):
        return [str(name) for name in data.classes]
    loaders = validation_loaders(trainer) or training_loaders(trainer)
    found: Any = getattr(data_set(loaders[0]), "classes", None) if loaders else None
    if not isinstance(found, (list, tuple)) or not all(isinstance(n, str) for n in found):
        return []
    return list(found) if shape()[1:] == (len(found),) else []


def file_texts(size: Sequence[int], classes: Sequence[str]) -> dict[str, str]:
    """Return the text values that a file has, by their keys.

    Args:
        size: Shape of one example of the first input.
        classes: Names of the classes, if they are known.
    """
    texts = {SIZE: " ".join(map(str, size))}
    if classes:
        texts[CLASSES] = "\n".join(classes)
    return texts
