"""How close the outputs of a converted network are to those of the float network."""

from __future__ import annotations

import math

import numpy as np

#: Largest magnitude of :func:`sqnr_db`, reached for equal outputs.
CEILING_DB = 200.0


def sqnr_db(reference: np.ndarray, converted: np.ndarray) -> float:
    """Return the signal to quantisation noise ratio (SQNR) in dB.

    ``10 log10(sum(reference**2) / sum((reference - converted)**2))`` over all elements, clipped to
    [-200, 200]. Equal outputs give 200; outputs that are not finite give -200.

    Args:
        reference: Outputs of the float network, of any shape.
        converted: Outputs of the converted network, of the same shape.

    Example:
        >>> import numpy as np
        >>> reference = np.array([3.0, 4.0])
        >>> round(sqnr_db(reference, reference * 1.01), 6)
        40.0
        >>> sqnr_db(reference, reference)
        200.0
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
    """Return the share of rows whose largest element is at the same index, in [0, 1].

    Args:
        reference: Outputs of the float network; the last axis holds the classes.
        converted: Outputs of the converted network, of the same shape.

    Example:
        >>> import numpy as np
        >>> agreement(np.array([[1, 2], [4, 3]]), np.array([[1, 3], [3, 4]]))
        0.5
    """
    return float(np.mean(reference.argmax(-1) == converted.argmax(-1)))
