"""What a budget leaves open is measured before the training."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._budget.resolve import UNKNOWN, Wanted
from lit_compress.errors import InvalidArgumentError
from lit_compress.layer_times import Layer, LayerTimes


def test_the_multiple_is_that_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_blocks(times: LayerTimes, layers: Sequence[Layer]) -> list[float]:
        return [float(ceil(layer.outputs / 4)) for layer in layers]

    monkeypatch.setattr(LayerTimes, "seconds", in_blocks)
    pruning = FilterPruning(0.3, schedule=Schedule(last=0), round_to="auto")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[pruning],
        default_root_dir=str(tmp_path),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = ForeignModule()
    trainer.fit(module, loader(16), loader(16, 1))
    assert pruning.selector.round_to in (2, 4)
    assert pruning.arguments()["round_to"] == "auto"


@pytest.mark.parametrize("round_to", [0, -1, 1.5, "fast"])
def test_other_multiples_are_refused(round_to: object) -> None:
    with pytest.raises(InvalidArgumentError, match="round_to"):
        FilterPruning(0.3, round_to=round_to)  # type: ignore[arg-type]


def test_what_a_budget_asks_for() -> None:
    latency = Wanted("latency", Fraction(1, 4), False, "auto", 1)
    size = Wanted("bytes", 20_000, True, 8, 1)
    plain = Wanted("filters", Fraction(1, 2), False, 1, 1)
    assert [one.counted for one in (latency, size, plain)] == ["macs", "parameters", "filters"]
    assert [one.share for one in (latency, size, plain)] == [
        Fraction(1, 4),
        UNKNOWN,
        Fraction(1, 2),
    ]
    assert [one.multiple for one in (latency, size, plain)] == [1, 8, 1]
    assert [one.unknown for one in (latency, size, plain)] == [True, True, False]
