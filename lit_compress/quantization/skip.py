"""Which layers stay in float, by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from lit_compress.errors import PatternError

FIRST, LAST = "first", "last"


def select_layers(
    patterns: Sequence[str], layers: Sequence[str], weighted: Sequence[str], prefix: str = ""
) -> frozenset[str]:
    """Return the layers that any of the patterns means.

    Args:
        patterns: ``first`` and ``last`` are the first and last layer with a weight; any other is a
            pattern of layer names, as in the shell.
        layers: Names to choose from, in the order of the graph.
        weighted: Those with a weight.
        prefix: What comes before the names in the user's module.

    Raises:
        PatternError: If a pattern matches none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in layers if fnmatchcase(prefix + name, pattern)]
        if pattern in (FIRST, LAST):
            found = list(weighted[:1] if pattern == FIRST else weighted[-1:])
        if not found:
            near = get_close_matches(pattern, [prefix + name for name in layers], 3, 0.3)
            raise PatternError(
                f"skip: {pattern!r} matches no layer that is quantised; there are "
                f"{', '.join(near or [prefix + name for name in layers[:3]]) or 'none'} "
                f"({len(layers)} in all), and 'first' and 'last'"
            )
        chosen.update(found)
    return frozenset(chosen)
