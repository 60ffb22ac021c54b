"""Select the layers that stay in float, by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from lit_compress.errors import PatternError

FIRST, LAST = "first", "last"


def select_layers(
    patterns: Sequence[str], layers: Sequence[str], weighted: Sequence[str], prefix: str = ""
) -> frozenset[str]:
    """Return the layers that at least one of the patterns matches.

    Args:
        patterns: ``first`` and ``last`` mean the first and the last layer with a weight. All others
            are shell patterns (:mod:`fnmatch`, case-sensitive) of layer names.
        layers: Names of all layers, in the order of the graph.
        weighted: Names of the layers with a weight, in the order of the graph.
        prefix: Prefix that the names have in the user's module, such as ``net.``. Patterns match
            names with the prefix. Default: empty.

    Returns:
        Names of the matching layers, without the prefix.

    Raises:
        PatternError: If a pattern matches no layer.

    Example:
        >>> layers = ["conv1", "conv2", "fc"]
        >>> sorted(select_layers(["first", "net.f*"], layers, layers, prefix="net."))
        ['conv1', 'fc']
    """
    selected: set[str] = set()
    for pattern in patterns:
        matches = [name for name in layers if fnmatchcase(prefix + name, pattern)]
        if pattern in (FIRST, LAST):
            matches = list(weighted[:1] if pattern == FIRST else weighted[-1:])
        if not matches:
            names = [prefix + name for name in layers]
            raise PatternError(
                f"skip: {pattern!r} matches no layer that is quantised; there are "
                f"{', '.join(get_close_matches(pattern, names, 3, 0.3) or names[:3]) or 'none'} "
                f"({len(layers)} in all), and 'first' and 'last'"
            )
        selected.update(matches)
    return frozenset(selected)
