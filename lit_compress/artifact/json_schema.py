"""Check parsed JSON against a schema, without any library: `load` needs numpy and a runtime alone.

Only the keywords that the card's schema uses are known (a part of JSON Schema, Draft 2020-12).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lit_compress.errors import InvalidArgumentError

#: Keywords that restrict nothing.
DESCRIPTIONS = frozenset({"$schema", "$defs", "title", "description"})


@dataclass(frozen=True)
class SchemaError:
    """One place where a value does not follow its schema.

    Attributes:
        path: Keys and indices that lead to the value.
        message: What was expected there, and what was found.
    """

    path: tuple[str | int, ...]
    message: str


def schema_errors(value: Any, schema: dict[str, Any]) -> Iterator[SchemaError]:
    """Yield the places where a value does not follow a schema.

    Args:
        value: Parsed JSON.
        schema: The schema. References begin with ``#/``.

    Raises:
        InvalidArgumentError: If the schema has a keyword that is not known here.

    Example:
        >>> schema = {"required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}}
        >>> [error.message for error in schema_errors({"n": -1}, schema)]
        ['-1 is less than the minimum of 0']
        >>> [error.message for error in schema_errors({}, schema)]
        ["'n' is a required property"]
    """
    return _Checker(schema).errors(value, schema, ())


class _Checker:
    """Checks values; each keyword of a schema has a method."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._keywords: dict[str, Callable[..., Iterator[SchemaError]]] = {
            "$ref": self._reference,
            "anyOf": self._any_of,
            "type": self._type,
            "required": self._required,
            "properties": self._properties,
            "propertyNames": self._property_names,
            "additionalProperties": self._additional_properties,
            "items": self._items,
            **dict.fromkeys(_LIMITS, self._limit),
        }

    def errors(self, value: Any, schema: dict[str, Any], path: Any) -> Iterator[SchemaError]:
        for keyword, wanted in schema.items():
            if keyword in DESCRIPTIONS:
                continue
            if keyword not in self._keywords:
                # Passed over, it would restrict nothing, and a wrong card would be read.
                raise InvalidArgumentError(
                    f"the schema has the keyword {keyword!r}, unknown here: use one of "
                    f"{', '.join(sorted(self._keywords))}, or add a method for it"
                )
            yield from self._keywords[keyword](value, wanted, path, keyword, schema)

    def _reference(self, value: Any, wanted: str, path: Any, *_: Any) -> Iterator[SchemaError]:
        schema = self._root
        for part in wanted.removeprefix("#/").split("/"):
            schema = schema[part]
        yield from self.errors(value, schema, path)

    def _any_of(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        found = [list(self.errors(value, schema, path)) for schema in wanted]
        if all(found):
            # The deepest one is of the alternative that was meant.
            yield max((errors[0] for errors in found), key=lambda error: len(error.path))

    def _type(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        names = [wanted] if isinstance(wanted, str) else wanted
        if not any(_is_type(value, name) for name in names):
            yield SchemaError(path, f"{value!r} is not of type {' or '.join(names)}")

    def _required(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        if isinstance(value, dict):
            for name in wanted:
                if name not in value:
                    yield SchemaError(path, f"{name!r} is a required property")

    def _properties(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        if isinstance(value, dict):
            for name, schema in wanted.items():
                if name in value:
                    yield from self.errors(value[name], schema, (*path, name))

    def _property_names(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        if isinstance(value, dict):
            for name in value:
                yield from self.errors(name, wanted, path)

    def _additional_properties(
        self, value: Any, wanted: Any, path: Any, keyword: str, schema: Any
    ) -> Iterator[SchemaError]:
        if isinstance(value, dict):
            for name in value:
                if name not in schema.get("properties", {}):
                    yield from self.errors(value[name], wanted, (*path, name))

    def _items(self, value: Any, wanted: Any, path: Any, *_: Any) -> Iterator[SchemaError]:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.errors(item, wanted, (*path, index))

    def _limit(
        self, value: Any, wanted: Any, path: Any, keyword: str, *_: Any
    ) -> Iterator[SchemaError]:
        kind, holds, message = _LIMITS[keyword]
        if _is_type(value, kind) and not holds(value, wanted):
            yield SchemaError(path, f"{value!r} {message} {wanted}")


#: By keyword, the type of value that it limits, the limit, and what is said of a value past it.
_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda value, limit: value >= limit, "is less than the minimum of"),
    "maximum": ("number", lambda value, limit: value <= limit, "is greater than the maximum of"),
    "exclusiveMinimum": ("number", lambda value, limit: value > limit, "is not greater than"),
    "minItems": ("array", lambda value, limit: len(value) >= limit, "has fewer items than"),
    "maxItems": ("array", lambda value, limit: len(value) <= limit, "has more items than"),
    "minLength": ("string", lambda value, limit: len(value) >= limit, "is shorter than"),
    "pattern": (
        "string",
        lambda value, pattern: re.search(pattern, value) is not None,
        "does not match",
    ),
}


def _is_type(value: Any, name: str) -> bool:
    """Tell whether a value is of a type of JSON Schema; true is no number, 1.0 is an integer."""
    if name == "null":
        return value is None
    if name == "boolean" or isinstance(value, bool):
        return name == "boolean" and isinstance(value, bool)
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    kinds: dict[str, Any] = {"number": (int, float), "string": str, "array": list, "object": dict}
    return isinstance(value, kinds[name])
