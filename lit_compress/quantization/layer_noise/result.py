"""What is known of the error that a layer causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_compress.artifact.fidelity import CEILING_DB


@dataclass(frozen=True)
class LayerNoise:
    """Error of the network's outputs if a single layer is quantised and all others stay float.

    The error is the signal to quantisation noise ratio (SQNR) in dB, see
    :func:`lit_compress.artifact.sqnr_db`; higher is better.

    Attributes:
        name: Name of the layer, of an input, or of a float operation whose output is quantised
            because a layer reads it.
        weight_db: SQNR with the weight of the layer quantised; None if it has no weight.
        activation_db: SQNR with the output of the layer quantised; None if the output stays float.

    Example:
        >>> noise = LayerNoise("features.0", weight_db=41.2, activation_db=33.0)
        >>> noise.worst_db, noise.fault
        (33.0, 'activation')
    """

    name: str
    weight_db: float | None
    activation_db: float | None

    @property
    def worst_db(self) -> float:
        """The lower one of ``weight_db`` and ``activation_db``."""
        return min(CEILING_DB if db is None else db for db in (self.weight_db, self.activation_db))

    @property
    def fault(self) -> Literal["weight", "activation"]:
        """Which one is lower: ``weight`` or ``activation``."""
        return "weight" if self.weight_db == self.worst_db else "activation"
