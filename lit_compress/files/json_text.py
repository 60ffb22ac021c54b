"""Read JSON that anyone may have made: what Python's parser accepts beyond the standard is not."""

from __future__ import annotations

import json
import math
from typing import Any

#: Deepest nesting, and most digits of a whole number: enough for 64 bits.
DEEPEST, DIGITS = 64, 20


def parse_json(text: str | bytes, infinite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text; bytes are UTF-8.
        infinite: Whether NaN and Infinity are read, which Python writes although JSON lacks them.

    Raises:
        ValueError: If it is not JSON, has a key twice, a number that is not finite or too long,
            half of a surrogate pair, or is nested too deeply.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: the key 'a' is given twice
    """
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        value = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_constant=None if infinite else _constant,
            parse_int=_whole,
            parse_float=_number,
        )
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    _check_depth(value)
    if "\\u" in decoded:
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:DIGITS]} is too large for a number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")
