"""Attributes of a module, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_attributes(layer: nn.Module, **attributes: Any) -> Iterator[None]:
    """Give a module other attributes until the end of the block, then restore its own.

    The attributes are set on the instance, so they hide those of its class: with ``forward`` set,
    ``layer(...)`` calls the given function. After the block, also after an error in it, the
    instance has exactly the attributes that it had before: those it did not have are deleted
    again, so that the class's are found.

    Args:
        layer: The module. Methods and plain attributes can be replaced; a property of its class
            cannot, as Python looks it up first.
        **attributes: The values by name.

    Example:
        >>> from torch import nn
        >>> layer = nn.Identity()
        >>> with replaced_attributes(layer, forward=lambda x: x + 1):
        ...     layer(1)
        2
        >>> layer(1)
        1
    """
    own = vars(layer)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            own.pop(name, None)
        own.update(before)
