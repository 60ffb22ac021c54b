"""What a run looked like after each of its epochs, for the curves of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run.

    Attributes:
        epoch: Number of the epoch, from 0.
        seconds: Time of the epoch with its validation, in seconds.
        parameters: Number of weights that are left.
        metric: The monitored metric; None if the epoch had no validation.
        reached: Share that each pruning callback has reached, in [0, 1], in their order.
        pruned: Whether a callback pruned at the beginning of the epoch.
        macs: Multiply-accumulates per image that are left; None if no callback counts them.
        channels: By name of a layer, its output channels or features that are not all zero. Empty
            where they are those of the epoch before, see :func:`with_layers`.
        weights: By name of a layer, the weights of it that are not zero. Empty as ``channels``.

    Example:
        >>> Epoch(0, seconds=2.5, parameters=1000, channels={"conv1": 8}).pruned
        False
    """

    epoch: int
    seconds: float
    parameters: int
    metric: float | None = None
    reached: tuple[float, ...] = ()
    pruned: bool = False
    macs: int | None = None
    channels: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the epoch as plain values."""
        return {**asdict(self), "reached": list(self.reached)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Epoch:
        """Return the epoch stored in plain values; unknown ones are ignored."""
        known = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        return cls(**{**known, "reached": tuple(known.get("reached", ()))})


def with_layers(history: Iterable[Epoch]) -> tuple[Epoch, ...]:
    """Return the epochs, each with its channels and weights.

    Args:
        history: Epochs as they are on a card, where most have those of the epoch before.

    Example:
        >>> history = (Epoch(0, 1.0, 9, channels={"conv1": 8}), Epoch(1, 1.0, 9))
        >>> [epoch.channels for epoch in with_layers(history)]
        [{'conv1': 8}, {'conv1': 8}]
    """
    filled: list[Epoch] = []
    for epoch in history:
        if not epoch.channels and filled:
            before = filled[-1]
            epoch = replace(epoch, channels=before.channels, weights=before.weights)
        filled.append(epoch)
    return tuple(filled)
