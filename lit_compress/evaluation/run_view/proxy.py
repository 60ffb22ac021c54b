"""An object that reads as another one, and keeps to itself what is written to it."""

from __future__ import annotations

import inspect
from types import FunctionType, MethodType
from typing import Any

_MISSING = object()


class View:
    """Reads as another object: its attributes, its properties, its class in ``isinstance``.

    Properties and methods of the object's class run on the view, so that they too see what the
    view has of its own. What is set on the view stays on the view: the object does not change.

    Args:
        real: The object.
        own: Attributes that the view has instead of those of the object.
    """

    def __init__(self, real: Any, **own: Any) -> None:
        object.__setattr__(self, "view_real__", real)
        object.__setattr__(self, "view_own__", own)

    def __getattribute__(self, name: str) -> Any:
        real = object.__getattribute__(self, "view_real__")
        own = object.__getattribute__(self, "view_own__")
        if name in own:
            return own[name]
        if name == "__class__":
            return real.__class__
        if name == "__dict__":
            return {**vars(real), **own}
        if _is_of_view(type(self), name):
            return object.__getattribute__(self, name)
        attribute = inspect.getattr_static(type(real), name, _MISSING)
        if isinstance(attribute, property):
            return attribute.__get__(self, type(real))
        if isinstance(attribute, FunctionType) and name not in getattr(real, "__dict__", ()):
            return MethodType(attribute, self)
        return getattr(real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        real = object.__getattribute__(self, "view_real__")
        attribute = inspect.getattr_static(type(real), name, _MISSING)
        if isinstance(attribute, property) and attribute.fset is not None:
            attribute.fset(self, value)
        else:
            object.__getattribute__(self, "view_own__")[name] = value

    def __delattr__(self, name: str) -> None:
        object.__getattribute__(self, "view_own__").pop(name, None)

    def __eq__(self, other: object) -> bool:
        return bool(object.__getattribute__(self, "view_real__") == unviewed(other))

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "view_real__"))

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "view_real__"))

    def __deepcopy__(self, memo: dict[int, Any]) -> View:
        return self


def unviewed(value: Any) -> Any:
    """Return the object that a view reads as; any other value as it is."""
    return object.__getattribute__(value, "view_real__") if issubclass(type(value), View) else value


def own_attributes(view: View) -> dict[str, Any]:
    """Return the attributes that a view has instead of those of its object."""
    found: dict[str, Any] = object.__getattribute__(view, "view_own__")
    return found


def _is_of_view(kind: type, name: str) -> bool:
    """Tell whether a class of views defines a name itself."""
    return any(name in vars(base) for base in kind.__mro__ if issubclass(base, View))
