"""What pruning leaves of the budget is for int8."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lit_compress.artifact import Metric
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._quantization.allowed import left_of_budget
from lit_compress.callbacks._quantization.settings import Settings


def run(monitor: str = "acc", baseline: float | None = 0.9) -> Any:
    pruner = FilterPruning(0.5, monitor=monitor, max_drop=0.02, mode="max")
    pruner.contract.baseline = baseline
    return SimpleNamespace(callbacks=[pruner])


def metric(value: float) -> Metric:
    return Metric("acc", value, "val", 100)


@pytest.mark.parametrize(("value", "left"), [(0.89, 0.02), (0.91, 0.04), (0.86, -0.01)])
def test_both_limits_are_one(value: float, left: float) -> None:
    settings = Settings(monitor="acc", max_drop=0.01)
    assert left_of_budget(run(), settings, metric(value)) == pytest.approx(left)


def test_other_metrics_and_no_limit_change_nothing() -> None:
    settings = Settings(monitor="acc", max_drop=0.01)
    assert left_of_budget(run("loss"), settings, metric(0.5)) == 0.01
    assert left_of_budget(run(baseline=None), settings, metric(0.5)) == 0.01
    assert left_of_budget(run(), settings, None) == 0.01
    assert left_of_budget(run(), Settings(monitor="acc"), metric(0.5)) is None
