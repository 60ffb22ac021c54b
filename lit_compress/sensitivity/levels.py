"""The ratios that a scan tries, and the largest one that a tolerance allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from lit_compress.errors import InvalidArgumentError


def check_levels(levels: Sequence[float]) -> tuple[Fraction, ...]:
    """Return the ratios of a scan as exact decimals, rising and each once.

    Args:
        levels: The ratios, in [0, 1].

    Raises:
        InvalidArgumentError: If there are none, or one is not a number in [0, 1].

    Example:
        >>> check_levels([0.5, 0.1])
        (Fraction(1, 10), Fraction(1, 2))
    """
    if not isinstance(levels, (list, tuple)) or not levels:
        raise InvalidArgumentError(f"levels must be a list of ratios, got {levels!r}")
    for level in levels:
        number = isinstance(level, (int, float)) and not isinstance(level, bool)
        if not number or not 0 <= level <= 1:
            raise InvalidArgumentError(f"levels must be numbers in [0, 1], got {level!r}")
    return tuple(sorted({Fraction(repr(float(level))) for level in levels}))


def largest_tolerated(drops: Mapping[Fraction, float], tolerance: float) -> Fraction:
    """Return the largest ratio up to which every drop is within the tolerance.

    Args:
        drops: Drop of the metric at each ratio; NaN counts as too much.
        tolerance: Largest drop that is accepted.

    Returns:
        The ratio, below 1; 0 if none is accepted.

    Example:
        >>> drops = {Fraction(1, 4): 0.0, Fraction(1, 2): 0.01, Fraction(3, 4): 0.2}
        >>> largest_tolerated(drops, tolerance=0.05)
        Fraction(1, 2)
    """
    best = Fraction(0)
    for ratio in sorted(drops):
        if drops[ratio] > tolerance or drops[ratio] != drops[ratio]:
            break
        if ratio < 1:
            best = ratio
    return best


class Bisection:
    """Finds the largest ratio within a tolerance by bisection, assuming that drops only rise.

    Args:
        levels: The ratios to choose from, rising. 0 and 1 are not tried.
        tolerance: Largest drop that is accepted.

    Example:
        >>> search = Bisection([Fraction(n, 8) for n in range(8)], tolerance=0.05)
        >>> while (ratio := search.next) is not None:
        ...     search.tell(0.0 if ratio <= Fraction(3, 8) else 0.2)
        >>> search.found
        Fraction(3, 8)
    """

    def __init__(self, levels: Sequence[Fraction], tolerance: float) -> None:
        self._levels = [level for level in levels if 0 < level < 1]
        self._tolerance = tolerance
        self._low, self._high = 0, len(self._levels)

    @property
    def next(self) -> Fraction | None:
        """The next ratio to try; None when the search is done."""
        if self._low >= self._high:
            return None
        return self._levels[(self._low + self._high) // 2]

    def tell(self, drop: float) -> None:
        """Record the drop at the ratio :attr:`next`, and choose another one.

        Args:
            drop: Drop of the metric.
        """
        middle = (self._low + self._high) // 2
        if drop <= self._tolerance:
            self._low = middle + 1
        else:
            self._high = middle

    @property
    def found(self) -> Fraction:
        """The largest of the tried ratios that is within the tolerance; 0 if none is."""
        return self._levels[self._low - 1] if self._low else Fraction(0)
