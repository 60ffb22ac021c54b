"""Measurements of earlier processes, in the cache folder of the user."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_compress.files.whole import write_whole


class Remembered:
    """A file of values by key: ``XDG_CACHE_HOME/lit_compress/NAME.json``, or in ``~/.cache``.

    A file that is missing or damaged has no values, and a folder that cannot be written gets none:
    what is measured again costs time and changes no result.

    Args:
        name: Name of the file, without its ending.
        most: Largest number of values that are kept, the latest ones.

    Example:
        >>> values = Remembered("example", most=2)
        >>> values.add({values.key("a"): 1, values.key("b"): 2, values.key("c"): 3})
        >>> values.read() == {values.key("b"): 2, values.key("c"): 3}
        True
    """

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most

    @staticmethod
    def key(*parts: Any) -> str:
        """Return the key of what a value depends on.

        Args:
            parts: Values that JSON can hold.
        """
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, Any]:
        """Return all values."""
        try:
            found = json.loads(self._file().read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def add(self, values: Mapping[str, Any]) -> None:
        """Add values, and forget the oldest ones if they become too many.

        Args:
            values: The values by key.
        """
        latest = list({**self.read(), **values}.items())[-self._most :]
        try:
            self._file().parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file(), json.dumps(dict(latest)).encode())
        except OSError:
            return

    def _file(self) -> Path:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(root) / "lit_compress" / f"{self._name}.json"
