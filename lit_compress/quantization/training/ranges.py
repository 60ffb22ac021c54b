"""The ranges that a network is trained with, which its file then has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Ranges:
    """What a calibration found: plain data, so that a checkpoint can hold it.

    Attributes:
        activations: By name of an activation, its scale and its zero point (0 to 255).
        factors: By name of a weight, what equalization multiplies it with.

    Example:
        >>> ranges = Ranges({"relu": (0.02, 0)}, {})
        >>> Ranges.of_state(ranges.state()) == ranges
        True
    """

    activations: dict[str, tuple[float, int]]
    factors: dict[str, Tensor]

    def state(self) -> dict[str, Any]:
        """Return plain types and tensors."""
        activations = {name: list(values) for name, values in self.activations.items()}
        return {"activations": activations, "factors": dict(self.factors)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Ranges:
        """Return the ranges of :meth:`state`.

        Args:
            state: What it returned.

        Raises:
            ValueError: If a scale is not above 0, a zero point is none, or a factor is no tensor.
        """
        activations = {
            str(name): (float(scale), int(zero_point))
            for name, (scale, zero_point) in state["activations"].items()
        }
        for name, (scale, zero_point) in activations.items():
            if not (0 < scale < float("inf") and 0 <= zero_point <= 255):
                raise ValueError(f"{name} has the scale {scale} and the zero point {zero_point}")
        factors = dict(state["factors"])
        if not all(isinstance(factor, Tensor) for factor in factors.values()):
            raise ValueError("a factor is not a tensor")
        return cls(activations, factors)
