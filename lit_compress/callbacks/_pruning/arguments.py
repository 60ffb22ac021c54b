"""Checks of constructor arguments, and their plain form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.schedule import Schedule


def check_counts(**counts: tuple[int, int]) -> None:
    """Check that arguments are whole numbers, none below its smallest value.

    Args:
        counts: By name, the value and the smallest value allowed.

    Raises:
        InvalidArgumentError: If one is not.
    """
    for name, (value, low) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InvalidArgumentError(
                f"{name} must be a whole number of at least {low}, got {value!r}"
            )


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that an argument is one of its choices.

    Raises:
        InvalidArgumentError: If it is not.
    """
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def plain(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as plain values."""
    return asdict(schedule)


def check_patterns(**arguments: Sequence[str]) -> None:
    """Check that arguments are lists of patterns, and not single strings.

    Raises:
        InvalidArgumentError: If one is not a list.
    """
    for name, patterns in arguments.items():
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            raise InvalidArgumentError(
                f'{name} must be a list of patterns, such as ["model.*"], got {patterns!r}'
            )
