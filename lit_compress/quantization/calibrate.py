"""Calibration: the activation ranges, from real batches that were looked at first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_compress.errors import CalibrationError
from lit_compress.quantization.pt2e import HistogramObserver, MinMaxObserver

Calibration = Literal["histogram", "minmax"]

CALIBRATIONS: dict[str, Any] = {"histogram": HistogramObserver, "minmax": MinMaxObserver}


def calibrate(prepared: nn.Module, batches: Iterable[Tensor]) -> int:
    """Run a prepared graph over the calibration batches.

    Args:
        prepared: Graph with observers in it.
        batches: Input batches of the network.

    Returns:
        The number of images seen.

    Raises:
        CalibrationError: If there is no batch, one is empty, or one holds NaN or infinity (such
            values would silently end in a wrong scale).
    """
    images = 0
    with torch.no_grad():
        for index, batch in enumerate(batches):
            _check(batch, index)
            prepared(batch)
            images += len(batch)
    if not images:
        raise CalibrationError(
            "calibration got no batches: give the fit validation (or training) data, and "
            "calibration_batches of at least 1"
        )
    return images


def _check(batch: Tensor, index: int) -> None:
    if not batch.numel():
        raise CalibrationError(f"calibration batch {index} is empty, of shape {tuple(batch.shape)}")
    bad = ~torch.isfinite(batch)
    if bad.any():
        raise CalibrationError(
            f"calibration batch {index} holds {int(bad.sum())} values that are NaN or infinite: "
            "mend the data or its transform"
        )
