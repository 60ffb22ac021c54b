"""What may vary: what a search file says, and what a sampler draws from it."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.errors import SearchError
from lit_compress.search.ranges import Range, read_range, read_ranges

from .told import study


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 9], Range("a", low=1, high=9)),
        ([0.3, 0.9], Range("a", low=0.3, high=0.9)),
        ({"low": "1e-4", "high": 0.1, "log": True}, Range("a", low=1e-4, high=0.1, log=True)),
        ({"low": 0.1, "high": 0.7, "step": 0.2}, Range("a", low=0.1, high=0.7, step=0.2)),
        ({"choices": ["x", None]}, Range("a", choices=("x", None))),
        ({"choices": [[1, 2], [3]]}, Range("a", choices=([1, 2], [3]))),
        ({"low": 1, "high": 2, "also": "b"}, Range("a", ("b",), low=1, high=2)),
    ],
)
def test_ranges_of_a_file(given: Any, expected: Range) -> None:
    assert read_range("a", given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.5, r"ranges: lr: expected a range, got 0\.5: write \[low, high\]"),
        ([1, 2, 3], "a list is low and high, and this one has 3"),
        ([0.9, 0.3], "low must be less than high, got 0.9 and 0.3"),
        (["a", "b"], "low is a number, got 'a'; for other values:.*choices"),
        ([True, 2], "low is a number, got True"),
        ([1, float("nan")], "high is a number, got nan"),
        ({"low": 1}, "a range needs low and high"),
        ({"low": 1, "high": 2, "logg": True}, "a range has no 'logg'"),
        ({"low": 1, "high": 2, "log": 1}, "log is true or false, got 1"),
        ({"low": 0, "high": 2, "log": True}, "log needs a low above 0"),
        ({"low": 0, "high": 1, "step": 0.3}, r"divide high - low = 1, got 0\.3"),
        ({"choices": ["a"]}, "at least two values"),
        ({"choices": ["a", "a"]}, "given twice"),
        ({"choices": [1, True]}, "given twice"),
        ({"choices": ["a", "b"], "low": 1}, "not both"),
        ({"low": 1, "high": 2, "also": [3]}, r"also names other settings.*got \[3\]"),
        ({"low": 1, "high": 2, "also": "lr"}, "lr: it is given twice"),
    ],
)
def test_ranges_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        read_ranges({"lr": given})


def test_a_search_without_ranges() -> None:
    with pytest.raises(SearchError, match="name the settings that may vary"):
        read_ranges(None)


RANGES = (
    Range("whole", low=1, high=9),
    Range("steps", low=8, high=64, step=8),
    Range("float", low=0.3, high=0.9),
    Range("log", low=1e-4, high=0.1, log=True),
    Range("named", choices=("sgd", "adam", None)),
    Range("lists", choices=(["a", "b"], [], {"c": 1})),
)


@pytest.mark.parametrize("one", RANGES, ids=lambda one: one.key)
def test_values_are_within_their_range_and_come_back(one: Range) -> None:
    """A list is stored as JSON, as Optuna stores single values alone."""
    made = study()
    for _ in range(20):
        trial = made.ask()
        value = one.suggest(trial)
        assert one.value(made.trials[trial.number].params[one.key]) == value
        if one.choices is not None:
            assert value in one.choices
        else:
            assert one.low <= value <= one.high
            assert isinstance(value, type(one.low))
            assert one.step is None or (value - one.low) % one.step == 0


def test_probes_are_values_of_the_range() -> None:
    assert RANGES[0].probes() == (1, 9, 5)
    assert RANGES[1].probes() == (8, 64, 32)
