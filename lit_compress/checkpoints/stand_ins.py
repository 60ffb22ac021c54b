"""Reading a checkpoint that holds objects, without making them."""

from __future__ import annotations

import sys
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class StandIn:
    """Stands for an object of a file: its class is not imported, and nothing of it is run."""

    #: Name of the class in the file.
    named = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take any arguments."""

    def __setstate__(self, state: object) -> None:
        """Take any state."""

    def __repr__(self) -> str:
        return f"<{self.named}, not read>"


def holds_objects(path: str | Path) -> bool:
    """Tell whether a file holds more than torch's reader for untrusted files makes.

    Args:
        path: Path of a checkpoint that can be read.
    """
    return bool(_unsafe(path))


def load_with_stand_ins(file: str | Path | BytesIO) -> Any:
    """Return the content of a checkpoint on the CPU, with stand-ins for the objects in it.

    torch's own reader for untrusted files does the work: each name in the file that it does not
    know is given a class that does nothing.

    Args:
        file: Path of the checkpoint, or the checkpoint in memory.

    Raises:
        UnpicklingError: If the file holds something that torch's reader never makes.
    """
    names = _unsafe(file)
    with safe_globals([(_stand_in(name), name) for name in names]):
        return torch.load(file, map_location="cpu", weights_only=True)


def is_read(value: object) -> bool:
    """Tell whether a value of a file that holds objects was read as it was saved.

    An ordered dictionary may have been one of another class.
    """
    if isinstance(value, (list, tuple, set)):
        return all(map(is_read, value))
    if isinstance(value, dict):
        return not isinstance(value, OrderedDict) and all(map(is_read, value.values()))
    return not isinstance(value, StandIn) and not _is_class(value)


def class_of(value: object) -> str:
    """Return the class of an object of a file; of a collection, that of an object in it."""
    if isinstance(value, StandIn):
        return value.named
    if isinstance(value, type) and issubclass(value, StandIn):
        return value.named
    if isinstance(value, (list, tuple, set, dict)) and not isinstance(value, OrderedDict):
        parts = value.values() if isinstance(value, dict) else value
        return next((class_of(part) for part in parts if not is_read(part)), "")
    return "a dictionary" if isinstance(value, dict) else type(value).__qualname__


def _unsafe(file: str | Path | BytesIO) -> list[str]:
    """Return the names in a file that torch's reader does not make."""
    if not isinstance(file, BytesIO):
        return get_unsafe_globals_in_checkpoint(str(file))
    file.seek(0)
    found = get_unsafe_globals_in_checkpoint(file)
    file.seek(0)
    return found


def _is_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, StandIn)


def _stand_in(name: str) -> type:
    """Return the class that stands for a name of a file.

    torch's reader fills dictionaries only of the exact types that it knows, so a subclass of
    ``dict`` that the process knows becomes an ordered one.
    """
    module, _, attribute = name.rpartition(".")
    known = getattr(sys.modules.get(module), "__dict__", {}).get(attribute)
    if isinstance(known, type) and issubclass(known, dict):
        return _Dictionary
    return type("StandIn", (StandIn,), {"named": name})


class _Dictionary:
    """Makes an ordered dictionary in place of an object of another class."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict[Any, Any]()
