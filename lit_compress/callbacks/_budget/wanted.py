"""What the arguments of a budget ask for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

from lit_compress.callbacks._pruning.arguments import check_counts
from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.masks import exact_share
from lit_compress.pruning.selection.budget import Of

#: What is counted in units of the int8 file, and what selects the channels then.
COUNTED: dict[str, Of] = {"bytes": "parameters", "latency": "macs"}
#: The share for a budget of bytes before it is found.
UNKNOWN = Fraction(1, 2)


@dataclass(frozen=True)
class Wanted:
    """What a budget asks for.

    Attributes:
        of: What the target is a share of, ``bytes`` or ``latency``.
        target: The target.
        measured: Whether the shares of the layers are measured.
        round_to: Multiple of the filters that a layer keeps; ``auto`` measures it.
        batch: Batch size for times.
    """

    of: str
    target: Fraction | float
    measured: bool
    round_to: int | Literal["auto"]
    batch: int

    @property
    def share(self) -> Fraction:
        """The share to remove, before it is found for a budget of bytes."""
        return UNKNOWN if self.of == "bytes" else Fraction(self.target)

    @property
    def counted(self) -> Of:
        """What the selector counts."""
        return COUNTED.get(self.of, cast("Of", self.of))

    @property
    def multiple(self) -> int:
        """The multiple of filters, before it is measured."""
        return 1 if self.round_to == "auto" else self.round_to

    @property
    def unknown(self) -> bool:
        """Whether anything is to be measured."""
        return self.of in COUNTED or self.measured or self.round_to == "auto"


def wanted_of(
    target: float, of: str, measured: bool, round_to: int | Literal["auto"] | None, batch: int
) -> Wanted:
    """Return what the arguments of a budget ask for.

    Args:
        target: The target.
        of: What it is of.
        measured: Whether the shares of the layers are measured.
        round_to: Multiple of the filters that a layer keeps; None takes the default.
        batch: Batch size for times.

    Raises:
        InvalidArgumentError: If one of them is invalid.
    """
    if of == "bytes":
        _check_bytes(target)
        target = int(target)
    elif of == "latency" and not exact_share(target):
        raise InvalidArgumentError("with of: latency, target must be above 0, got 0")
    if round_to is None:
        round_to = "auto" if of == "latency" else 1
    wanted = Wanted(of, target if of == "bytes" else exact_share(target), measured, round_to, batch)
    check_counts(round_to=(wanted.multiple, 1), latency_batch=(batch, 1))
    return wanted


def is_measured(allocation: str, of: str, scope: str) -> bool:
    """Tell whether the shares of the layers are measured.

    Args:
        allocation: ``auto``, ``uniform`` or ``sensitivity``.
        of: What the target is of.
        scope: ``local`` or ``global``.

    Raises:
        InvalidArgumentError: If they do not go together.
    """
    if allocation == "sensitivity" and scope == "global":
        raise InvalidArgumentError(
            "allocation: sensitivity gives each layer a share of its own, and scope: global ranks "
            "all filters together: set scope to local"
        )
    if allocation == "sensitivity" and of not in ("parameters", "bytes"):
        raise InvalidArgumentError(
            "allocation: sensitivity weighs the error of a layer against its parameters, and of is "
            f"{of}: set it to parameters or bytes"
        )
    by_itself = allocation == "auto" and of == "bytes" and scope == "local"
    return by_itself or allocation == "sensitivity"


def _check_bytes(target: object) -> None:
    whole = isinstance(target, (int, float)) and not isinstance(target, bool)
    if not whole or target != int(target) or target < 1000:  # type: ignore[call-overload, operator]
        raise InvalidArgumentError(
            "with of: bytes, target must be a whole number of bytes of at least 1000, got "
            f"{target!r}"
        )
