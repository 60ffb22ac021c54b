"""The options of a scan, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.importance import ImportanceName, importance_of
from lit_compress.sensitivity.levels import check_levels
from lit_compress.sensitivity.targets import Unit

#: Default of the ratios to try.
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

#: Whether a larger metric is better (``max``) or a smaller one; ``auto`` tells by its name.
Mode = Literal["auto", "max", "min"]


@dataclass(frozen=True)
class ScanOptions:
    """The options of a scan, checked when they are set.

    Attributes:
        granularity: ``element`` prunes single weights, ``filter`` channels with all tensor slices
            coupled to them, ``original`` filters of convolutions and elements of linear layers.
        levels: Ratios to try, in [0, 1].
        tolerance: Largest drop of the metric at which a ratio is accepted, at least 0.
        monitor: Key that ``validation_step`` logs; None takes the first that looks like a metric.
        mode: ``max`` if a larger metric is better, ``min`` if a smaller one is, ``auto`` to tell by
            its name, and to ask if the name does not say it.
        images: Number of validation examples to measure on, at least 1; None takes all.
        include: Patterns of the layers to try.
        exclude: Patterns of the layers not to try.
        importance: How channels are ranked with ``granularity="filter"``; none that needs
            gradients.
        curves: Whether to try every level and draw curves, or only the levels that the rules need.
        seed: Random seed of the validation sample, at least 0.

    Raises:
        InvalidArgumentError: If a value is none of these.

    Example:
        >>> ScanOptions(granularity="filter", levels=(0, 0.5)).tolerance
        0.01
    """

    granularity: Unit = "element"
    levels: Sequence[float] = LEVELS
    tolerance: float = 0.01
    monitor: str | None = None
    mode: Mode = "auto"
    images: int | None = 1024
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    importance: ImportanceName = "l2"
    curves: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_levels(self.levels)
        _check_choice("granularity", self.granularity, get_args(Unit))
        _check_choice("mode", self.mode, get_args(Mode))
        if not isinstance(self.tolerance, (int, float)) or not self.tolerance >= 0:
            raise InvalidArgumentError(
                f"tolerance must be a number of at least 0, got {self.tolerance!r}"
            )
        if self.images is not None and not _whole(self.images, 1):
            raise InvalidArgumentError(
                f"images must be a whole number of at least 1, or null for all, got {self.images!r}"
            )
        if not _whole(self.seed, 0):
            raise InvalidArgumentError(
                f"seed must be a whole number of at least 0, got {self.seed!r}"
            )
        _check_patterns("include", self.include)
        _check_patterns("exclude", self.exclude)
        if importance_of(self.importance).needs_gradient:
            raise InvalidArgumentError(
                f"importance {self.importance} needs gradients, but a scan computes none: use l1, "
                "l2, bn_scale, fpgm or random"
            )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_patterns(name: str, value: Sequence[str]) -> None:
    if isinstance(value, str) or not all(isinstance(pattern, str) for pattern in value):
        raise InvalidArgumentError(f"{name} must be a list of patterns, got {value!r}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
