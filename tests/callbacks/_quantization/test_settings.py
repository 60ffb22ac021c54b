"""Settings outside their range are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.callbacks._quantization.settings import CHOICES, OPSETS, Settings
from lit_compress.errors import InvalidArgumentError


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must be one of"):
        Settings(**{name: "other"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration_batches": 0}, "calibration_batches must be at least 1, got 0"),
        ({"max_drop": -0.1, "monitor": "val_acc"}, r"max_drop must be at least 0, got -0\.1"),
        ({"max_drop": float("inf"), "monitor": "val_acc"}, "max_drop must be at least 0, got inf"),
        ({"max_drop": 0.01}, "max_drop needs a metric: set monitor"),
        ({"mean": (0.5,)}, "mean and std belong together"),
        ({"mean": (0.5,), "std": (0.1, 0.2)}, "must have a value for each channel"),
        ({"mean": (0.5,), "std": (0.0,)}, "std be above 0"),
        ({"mean": (), "std": ()}, "must have a value for each channel"),
        ({"mean": (0.5,), "std": (1.0,), "preprocess": "none"}, "preprocess: none forbids"),
        ({"opset": OPSETS[0] - 1}, "opset must be from 18 to 23, got 17"),
        ({"opset": OPSETS[1] + 1}, "opset must be from 18 to 23, got 24"),
    ],
)
def test_numbers_outside_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Settings(**options)


def test_the_ends_of_a_range_are_inside() -> None:
    assert Settings(opset=OPSETS[0]).opset == 18
    assert Settings(opset=OPSETS[1], max_drop=0.0, monitor="a", calibration_batches=1).opset == 23
