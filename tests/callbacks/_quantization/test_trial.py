"""A trial does what the end of the fit does, on few batches, and leaves nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from conftest import ForeignModule
from lightning.pytorch import Trainer

from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.callbacks._quantization.trial import (
    FEW,
    few_batches,
    tried_bytes,
    try_conversion,
)
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.run_view.copies import clone


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary files are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("batches", "few"), [(1, 1), (2, 2), (10, FEW)])
def test_it_calibrates_with_a_few_batches(batches: int, few: int) -> None:
    assert few_batches(Settings(calibration_batches=batches)) == few


def test_it_tells_the_weights_that_stay_in_float(
    fitted: Trainer, foreign: ForeignModule, temporary: Path
) -> None:
    copy = clone(fitted, foreign)
    skipped = try_conversion(fitted, copy, Settings(monitor="my_acc", skip=("net.0",)))
    assert [weight.name for weight in skipped] == ["net.0"]
    assert try_conversion(fitted, copy, Settings()) == ()
    assert not list(temporary.iterdir())


def test_it_asks_which_way_a_metric_is_better_before_the_training(
    fitted: Trainer, foreign: ForeignModule
) -> None:
    settings = Settings(monitor="my_thing", max_drop=0.1)
    with pytest.raises(InvalidArgumentError, match="my_thing"):
        try_conversion(fitted, clone(fitted, foreign), settings)


def test_the_bytes_are_those_of_the_file(
    fitted: Trainer, foreign: ForeignModule, temporary: Path
) -> None:
    """The values of a file do not change its size."""
    copy, settings = clone(fitted, foreign), Settings()
    found = tried_bytes(fitted, copy, settings)
    assert not list(temporary.iterdir())
    conversion = Conversion(fitted, copy, settings.network(fitted, copy), settings)
    conversion.write(temporary / "model.onnx", None)
    assert found == pytest.approx((temporary / "model.onnx").stat().st_size, rel=0.02)
