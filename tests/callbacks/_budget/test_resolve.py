"""What a budget leaves open is measured before the training."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import pytest
from conftest import ForeignModule

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.layer_times import Layer, LayerTimes

from .small import fit


def test_the_multiple_is_that_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_blocks(times: LayerTimes, layers: Sequence[Layer]) -> list[float]:
        return [float(ceil(layer.outputs / 4)) for layer in layers]

    monkeypatch.setattr(LayerTimes, "seconds", in_blocks)
    pruning = FilterPruning(0.3, schedule=Schedule(last=0), round_to="auto")
    fit(ForeignModule(), tmp_path, pruning, epochs=2)
    assert pruning.selector.round_to in (2, 4)
    assert pruning.arguments()["round_to"] == "auto"
