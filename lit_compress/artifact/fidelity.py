"""How close the outputs of a converted network come to those of the float one."""

from __future__ import annotations

import math

import numpy as np

CEILING_DB = 200.0


def sqnr_db(reference: np.ndarray, converted: np.ndarray) -> float:
    """Return the signal to quantisation noise ratio in dB, at most 200 (equal outputs).

    ``10 log10(sum(reference**2) / sum((reference - converted)**2))``, over all elements. Outputs
    that are not finite give minus 200.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(np.subtract(reference, converted, dtype=np.float64)).sum())
    if not math.isfinite(noise) or not math.isfinite(signal):
        return -CEILING_DB
    if noise == 0:
        return CEILING_DB
    if signal == 0:
        return -CEILING_DB
    return float(np.clip(10 * math.log10(signal / noise), -CEILING_DB, CEILING_DB))


def agreement(reference: np.ndarray, converted: np.ndarray) -> float:
    """Return the share of rows whose largest element is at the same place."""
    return float(np.mean(reference.argmax(-1) == converted.argmax(-1)))
