"""Numbers of channels of a network that is wider or narrower than the published one."""

from __future__ import annotations

from math import isfinite

from lit_compress.errors import InvalidArgumentError


def check_width(width: float) -> None:
    """Check a factor of the number of channels.

    Raises:
        InvalidArgumentError: If it is not above 0.
    """
    if isinstance(width, bool) or not isfinite(width) or width <= 0:
        raise InvalidArgumentError(
            f"model.width must be above 0, got {width}: 0.5 halves the number of channels"
        )


def scaled(count: int, width: float, multiple: int) -> int:
    """Return a number of channels times the width, as the nearest multiple; at least one of it.

    Example:
        >>> scaled(116, 0.4, 4)
        48
    """
    return max(round(count * width / multiple), 1) * multiple
