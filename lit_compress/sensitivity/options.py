"""What a scan is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.importance import ImportanceName, importance_of
from lit_compress.sensitivity.targets import Unit, check_levels

LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Mode = Literal["auto", "max", "min"]


@dataclass(frozen=True)
class ScanOptions:
    """What a scan does; see :meth:`lit_compress.trainer.Trainer.scan` for the meaning of each."""

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
        for name, choices in (("granularity", get_args(Unit)), ("mode", get_args(Mode))):
            if getattr(self, name) not in choices:
                raise InvalidArgumentError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.tolerance, (int, float)) or not self.tolerance >= 0:
            raise InvalidArgumentError(
                f"tolerance must be a number of at least 0, got {self.tolerance!r}"
            )
        if self.images is not None and not _whole(self.images, 1):
            raise InvalidArgumentError(
                f"images must be a whole number of at least 1, or none for all, got {self.images!r}"
            )
        if not _whole(self.seed, 0):
            raise InvalidArgumentError(
                f"seed must be a whole number of at least 0, got {self.seed!r}"
            )
        for name in ("include", "exclude"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(pattern, str) for pattern in given):
                raise InvalidArgumentError(f"{name} must be a list of patterns, got {given!r}")
        if importance_of(self.importance).needs_gradient:
            raise InvalidArgumentError(
                f"importance {self.importance} needs gradients, and a scan computes none: use l1, "
                "l2, bn_scale, fpgm or random"
            )


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
