"""What a scan refuses to be asked."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lit_compress.errors import InvalidArgumentError
from lit_compress.sensitivity.options import LEVELS, ScanOptions


def test_defaults_are_the_papers_levels_without_one() -> None:
    assert ScanOptions().levels == LEVELS == tuple(step / 10 for step in range(10))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": []}, "levels must be a list of ratios, got []"),
        ({"levels": 0.5}, "levels must be a list of ratios, got 0.5"),
        ({"levels": "0.5"}, "levels must be a list of ratios, got '0.5'"),
        ({"levels": [0, 1.1]}, "levels must be numbers in [0, 1], got 1.1"),
        ({"levels": [-0.1]}, "levels must be numbers in [0, 1], got -0.1"),
        ({"levels": [float("nan")]}, "levels must be numbers in [0, 1], got nan"),
        ({"levels": ["0.5"]}, "levels must be numbers in [0, 1], got '0.5'"),
        ({"levels": [True]}, "levels must be numbers in [0, 1], got True"),
        ({"granularity": "row"}, "granularity must be one of element, filter, original, got 'row'"),
        ({"mode": "up"}, "mode must be one of auto, max, min, got 'up'"),
        ({"tolerance": -1}, "tolerance must be a number of at least 0, got -1"),
        ({"tolerance": float("nan")}, "tolerance must be a number of at least 0, got nan"),
        ({"tolerance": "1%"}, "tolerance must be a number of at least 0, got '1%'"),
        ({"images": 0}, "images must be a whole number of at least 1, or null for all, got 0"),
        ({"images": 2.5}, "images must be a whole number of at least 1, or null for all, got 2.5"),
        ({"images": "9"}, "images must be a whole number of at least 1, or null for all, got '9'"),
        ({"images": True}, "images must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"include": "model.*"}, "include must be a list of patterns, got 'model.*'"),
        ({"exclude": [3]}, "exclude must be a list of patterns, got [3]"),
        ({"importance": "taylor"}, "importance taylor needs gradients, but a scan computes none"),
        ({"importance": "l3"}, "importance must be one of l1, l2"),
    ],
)
def test_bad_arguments_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}"):
        ScanOptions(**given)
