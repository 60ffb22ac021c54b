"""Errors as answers: what is wrong, what to do, and where."""

from __future__ import annotations

import pytest

from lit_compress.doctor.failures import CORRECT, answer_of, split
from lit_compress.errors import PatternError


@pytest.mark.parametrize(
    ("message", "found", "remedy"),
    [
        ("a is b: set a to c", "a is b", "set a to c"),
        (
            "it has none: add one, or use weights: last",
            "it has none",
            "add one, or use weights: last",
        ),
        ("it diverged (lower the rate)", "it diverged", "lower the rate"),
        ("it fails. Use tensors alone.", "it fails", "use tensors alone"),
        ("there is no x; there are y", "there is no x; there are y", CORRECT),
    ],
)
def test_a_message_is_split_at_its_remedy(message: str, found: str, remedy: str) -> None:
    assert split(message) == (found, remedy)


def test_an_error_of_ours_is_found_among_the_causes() -> None:
    outer = RuntimeError("outside")
    outer.__cause__ = PatternError("no layer x: name another")
    answer = answer_of(outer)
    assert (answer.verdict, answer.found, answer.remedy) == ("error", "no layer x", "name another")


def test_another_error_has_the_line_of_the_users_code() -> None:
    try:
        {}["key"]
    except KeyError as raised:
        answer = answer_of(raised, "give a key")
    assert answer.found == "KeyError: 'key'"
    assert answer.remedy.startswith("give a key (raised at ")
    assert "test_failures.py:" in answer.remedy
