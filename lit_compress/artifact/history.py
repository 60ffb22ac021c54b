"""What a run looked like after each of its epochs, for the curves of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Layers:
    """What the layers of a network have that is not zero.

    Attributes:
        channels: By name of a layer, its output channels or features that are not all zero.
        weights: By name of a layer, the weights of it that are not zero.

    Example:
        >>> Layers({"conv1": 8}, {"conv1": 72}).channels["conv1"]
        8
    """

    channels: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)


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
        layers: What the layers have; None where it is that of the epoch before, see
            :func:`with_layers`.

    Example:
        >>> Epoch(0, seconds=2.5, parameters=1000).pruned
        False
    """

    epoch: int
    seconds: float
    parameters: int
    metric: float | None = None
    reached: tuple[float, ...] = ()
    pruned: bool = False
    macs: int | None = None
    layers: Layers | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the epoch as plain values."""
        return {**asdict(self), "reached": list(self.reached)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Epoch:
        """Return the epoch stored in plain values; unknown ones are ignored."""
        known = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        known["reached"] = tuple(known.get("reached", ()))
        return cls(**{**known, "layers": layers_from(known.get("layers"))})


def layers_from(data: Mapping[str, Any] | None) -> Layers | None:
    """Return the layers stored in plain values; None for None.

    Example:
        >>> layers_from({"channels": {"conv1": 8}})
        Layers(channels={'conv1': 8}, weights={})
    """
    if data is None:
        return None
    return Layers(dict(data.get("channels", {})), dict(data.get("weights", {})))


def with_layers(history: Iterable[Epoch]) -> tuple[Epoch, ...]:
    """Return the epochs, each with its layers.

    Args:
        history: Epochs as they are on a card, where most have those of the epoch before.

    Example:
        >>> history = (Epoch(0, 1.0, 9, layers=Layers({"conv1": 8})), Epoch(1, 1.0, 9))
        >>> [epoch.layers.channels for epoch in with_layers(history)]
        [{'conv1': 8}, {'conv1': 8}]
    """
    filled: list[Epoch] = []
    layers = Layers()
    for epoch in history:
        layers = epoch.layers or layers
        filled.append(replace(epoch, layers=layers))
    return tuple(filled)
