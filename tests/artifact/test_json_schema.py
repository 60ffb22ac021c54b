"""The schema check, against the jsonschema library."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lit_compress.artifact.card import schema
from lit_compress.artifact.json_schema import (
    DESCRIPTIONS,
    SchemaError,
    _Checker,
    schema_errors,
)
from lit_compress.errors import InvalidArgumentError

FORMAT: dict[str, Any] = {
    "$defs": {"share": {"type": "number", "minimum": 0, "maximum": 1}},
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": ["integer", "null"], "exclusiveMinimum": 0},
        "b": {"anyOf": [{"$ref": "#/$defs/share"}, {"type": "null"}]},
        "c": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "d": {"type": "string", "minLength": 1, "pattern": "^[a-z]*$"},
    },
    "propertyNames": {"pattern": "^[a-z]$"},
    "additionalProperties": {"type": "string"},
}
LEAVES = st.sampled_from(
    [None, True, 0, 1, 2, -1, 0.5, 1.0, 1.5, "", "x", "X", [], {}, [True], [0]]
)
VALUES = st.one_of(LEAVES, st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "E"]), LEAVES))


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_the_same_values_are_valid(value: Any) -> None:
    assert (next(schema_errors(value, FORMAT), None) is None) == Draft202012Validator(
        FORMAT
    ).is_valid(value)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_the_same_places_are_named(value: Any) -> None:
    found = {error.path[:1] for error in schema_errors(value, FORMAT)}
    expected = {tuple(e.absolute_path)[:1] for e in Draft202012Validator(FORMAT).iter_errors(value)}
    assert found == expected


def test_the_error_of_the_alternative_that_was_meant() -> None:
    wanted = {"anyOf": [{"type": "null"}, {"properties": {"n": {"minimum": 2}}, "type": "object"}]}
    errors = list(schema_errors({"n": 1}, copy.deepcopy(wanted)))
    assert errors == [SchemaError(("n",), "1 is less than the minimum of 2")]


def test_keywords_that_are_not_known_are_not_passed_over() -> None:
    with pytest.raises(InvalidArgumentError, match=r"keyword 'uniqueItems', .* use one of .*anyOf"):
        list(schema_errors([], {"uniqueItems": True}))


def test_the_schema_of_the_card_is_known() -> None:
    def keywords(part: Any, at: str = "") -> set[str]:
        if isinstance(part, list):
            return set().union(*(keywords(item) for item in part))
        if not isinstance(part, dict):
            return set()
        names = at in ("properties", "$defs")
        below = (keywords(value, "" if names else key) for key, value in part.items())
        return (set() if names else set(part)).union(*below)

    assert keywords(schema()) <= DESCRIPTIONS | _Checker({})._keywords.keys()
