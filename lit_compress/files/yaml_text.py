"""Check YAML that anyone may have made, before a parser that follows its aliases reads it."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

#: Largest size in bytes, deepest nesting, and most values once all aliases are followed.
LARGEST, DEEPEST, MOST = 1 << 20, 64, 100_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class _Open:
    """A list or mapping whose end is not yet read."""

    anchor: str | None
    values: int = 1


def check_yaml(content: bytes | str) -> None:
    """Check that a YAML text is not made to exhaust its reader.

    Args:
        content: The text; bytes are UTF-8 or UTF-16.

    Raises:
        ValueError: If it is larger than 1 MiB, nested deeper than 64 levels, has more than 100,000
            values once its aliases are followed, or an alias within what it stands for.

    Example:
        >>> check_yaml("a: [1, 2]")
        >>> check_yaml("a: &a [*a]")
        Traceback (most recent call last):
        ...
        ValueError: line 1: the alias 'a' stands within itself
    """
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    sizes: dict[str, int] = {}
    stack = [_Open(None, 0)]
    try:
        for event in yaml.parse(content, Loader=_Loader):
            _count(event, stack, sizes)
    except yaml.YAMLError:
        return  # whoever reads it says what is wrong with it


def _count(event: yaml.Event, stack: list[_Open], sizes: dict[str, int]) -> None:
    line = f"line {event.start_mark.line + 1}"
    if isinstance(event, yaml.CollectionStartEvent):
        stack.append(_Open(event.anchor))
        if len(stack) > DEEPEST + 1:
            raise ValueError(f"{line}: it is nested deeper than {DEEPEST} levels")
    elif isinstance(event, yaml.CollectionEndEvent):
        done = stack.pop()
        _add(done.anchor, done.values, stack, sizes, line)
    elif isinstance(event, yaml.ScalarEvent):
        _add(event.anchor, 1, stack, sizes, line)
    elif isinstance(event, yaml.AliasEvent):
        if any(found.anchor == event.anchor for found in stack):
            raise ValueError(f"{line}: the alias {event.anchor[:40]!r} stands within itself")
        _add(None, sizes.get(event.anchor, 1), stack, sizes, line)


def _add(
    anchor: str | None, values: int, stack: list[_Open], sizes: dict[str, int], line: str
) -> None:
    if anchor is not None:
        sizes[anchor] = values
    stack[-1].values += values
    if stack[-1].values > MOST:
        raise ValueError(f"{line}: its aliases stand for more than {MOST:,} values")
