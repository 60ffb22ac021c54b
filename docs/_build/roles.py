"""Docstrings name functions as Sphinx does; on the site these names are plain code."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?([^`]+)`")
#: The section that griffe shows as code has the plural.
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class Roles(Extension):
    """Replaces ``:func:`name``` by the name as code, and ``Example:`` by ``Examples:``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", text)
