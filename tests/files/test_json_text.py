from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.files.json_text import parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def has_infinity(value: object) -> bool:
    if isinstance(value, float):
        return math.isinf(value)
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    return isinstance(value, list) and any(map(has_infinity, value))


@given(VALUES)
def test_values_come_back(value: object) -> None:
    text = json.dumps(value)
    if has_infinity(value):
        with pytest.raises(ValueError, match="not a JSON number"):
            parse_json(text)
    assert parse_json(text, infinite=True) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        ("NaN", "NaN is not a JSON number"),
        ("1e999", "too large"),
        ("1" * 5000, "5000 digits"),
        ("[" * 100 + "]" * 100, "nested deeper than 64"),
        ("[" * 99999, "nested deeper than 64"),
        ('"\\ud800"', "surrogates not allowed"),
        ("{", "Expecting"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_what_python_accepts_beyond_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_nan_is_read_where_it_is_allowed() -> None:
    assert math.isnan(parse_json("NaN", infinite=True))
