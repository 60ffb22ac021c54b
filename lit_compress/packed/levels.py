"""Weights of 4 bits: 16 levels for each output channel, and the int8 weights that they stand for.

A weight is ``(code * step + 128) >> 8``, limited to -128 ... 127, where ``code`` is from -8 to 7.
Zero stays zero. The int8 weights keep the scales of the file, so no other tensor changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Codes of 4 bits.
LOWEST, HIGHEST = -8, 7
#: A step of 1, in the units of the file.
ONE = 256
#: Steps that are tried: from 1, where weights up to 7 are exact, to where 7 steps reach 127.
STEPS = np.arange(ONE, 19 * ONE, 8)


@dataclass(frozen=True)
class Channels:
    """Where the output channels of a tensor lie.

    The channel of element ``i`` is ``i // inner % count``.

    Attributes:
        count: Number of channels.
        inner: Number of elements from one channel to the next.
    """

    count: int
    inner: int

    def of(self, size: int) -> np.ndarray:
        """Return the channel of each of ``size`` elements.

        Example:
            >>> Channels(count=2, inner=2).of(8).tolist()
            [0, 0, 1, 1, 0, 0, 1, 1]
        """
        return np.arange(size) // self.inner % self.count


def to_codes(weights: np.ndarray, channels: Channels) -> tuple[np.ndarray, np.ndarray]:
    """Round int8 weights to 16 levels, with the step that has the smallest squared error.

    Zero stays zero, and no weight becomes larger than the largest one of its channel.

    Args:
        weights: int8 weights, one axis.
        channels: Their output channels.

    Returns:
        The codes (int8, -8 to 7), and the step of each channel (uint16, in 1/256).

    Example:
        >>> weights = np.array([-14, 0, 7, 14, 127, -127, 0, 60], np.int8)
        >>> codes, steps = to_codes(weights, Channels(count=2, inner=4))
        >>> codes.tolist()
        [-6, 0, 3, 6, 7, -7, 0, 3]
        >>> to_weights(codes, steps, Channels(count=2, inner=4)).tolist()
        [-14, 0, 7, 14, 127, -127, 0, 55]
    """
    owner = channels.of(weights.size)
    wide = weights.astype(np.int64)
    values = np.arange(-128, 128)
    counts = np.bincount(owner * 256 + wide + 128, minlength=channels.count * 256)
    counts = counts.reshape(channels.count, 256)
    rounded = _expand(_codes(values[:, None], STEPS), STEPS)
    errors = counts.astype(np.float64) @ (rounded - values[:, None]) ** 2
    # No weight may grow: files for processors without VNNI have small ones, so that sums fit.
    largest = (np.abs(values) * (counts > 0)).max(1)
    grown = np.abs(rounded[np.minimum(128 + largest, 255)]) > largest[:, None]
    grown |= np.abs(rounded[128 - largest]) > largest[:, None]
    steps = STEPS[np.where(grown, np.inf, errors).argmin(1)]
    return _codes(wide, steps[owner]).astype(np.int8), steps.astype(np.uint16)


def to_weights(codes: np.ndarray, steps: np.ndarray, channels: Channels) -> np.ndarray:
    """Return the int8 weights of codes; see :func:`to_codes`."""
    table = _expand(np.arange(LOWEST, HIGHEST + 1), steps.astype(np.int64)[:, None]).astype(np.int8)
    grid = codes.view(np.int8).reshape(-1, channels.count, channels.inner)
    index = np.arange(channels.count)[None, :, None]
    weights: np.ndarray = table[index, grid - np.int8(LOWEST)].reshape(-1)
    return weights


def _codes(weights: np.ndarray, steps: np.ndarray) -> np.ndarray:
    codes: np.ndarray = np.clip(np.rint(weights * ONE / steps), LOWEST, HIGHEST).astype(np.int64)
    return codes


def _expand(codes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.clip((codes * steps + ONE // 2) >> 8, -128, 127)
    return weights
