"""How much a trial loses, whichever way the metric is better."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch

from lit_compress.errors import InvalidArgumentError
from lit_compress.sensitivity.metric_drop import MetricDrop, metric_of_scan, tell_coarse_steps
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.table import Row


@pytest.mark.parametrize(("before", "after"), [(n, n - 1) for n in range(1, 101, 3)])
def test_a_drop_of_just_the_tolerance_is_tolerated(before: int, after: int) -> None:
    """In floats 0.93 - 0.92 may be more than 0.01."""
    options = ScanOptions(tolerance=0.01)
    single = torch.tensor([before / 100, after / 100]).tolist()
    judge = MetricDrop("acc", options, single[0])
    row = Row("a", Fraction(1, 2), 1, 2, {"acc": single[1]})
    assert judge.drop(row) <= 0.01


@pytest.mark.parametrize(
    ("monitor", "mode", "sign"),
    [
        ("val_loss", "auto", -1),
        ("val_acc", "auto", 1),
        ("val_mse", "auto", -1),
        ("val_loss", "max", 1),
        ("score", "min", -1),
    ],
)
def test_whether_more_is_better(monitor: str, mode: Any, sign: int) -> None:
    judge = MetricDrop(monitor, ScanOptions(mode=mode), 0.5)
    row = Row("a", Fraction(1, 2), 1, 2, {monitor: 0.25})
    assert judge.drop(row) == sign * 0.25
    lost = Row("a", Fraction(1, 2), 1, 2, {monitor: float("nan")})
    assert judge.drop(lost) == float("inf")


def test_a_metric_that_has_no_better_side_is_asked_for() -> None:
    with pytest.raises(InvalidArgumentError, match="auto cannot tell whether more or less"):
        MetricDrop("thing", ScanOptions(), 0.5)


def test_the_limit_is_where_the_tolerance_ends() -> None:
    assert MetricDrop("acc", ScanOptions(tolerance=0.1), 0.5).limit == pytest.approx(0.4)
    assert MetricDrop("loss", ScanOptions(tolerance=0.1), 0.5).limit == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("keys", "found"),
    [("val_loss val_acc", "val_acc"), ("loss test_f1", "test_f1"), ("size my_loss", "my_loss")],
)
def test_the_first_key_that_looks_like_a_metric_is_taken(keys: str, found: str) -> None:
    assert metric_of_scan(None, dict.fromkeys(keys.split(), 0.5)) == found


def test_a_given_key_must_be_logged() -> None:
    assert metric_of_scan("size", {"size": 1.0, "acc": 0.5}) == "size"
    with pytest.raises(InvalidArgumentError, match="'other' is not logged"):
        metric_of_scan("other", {"size": 1.0})
    with pytest.raises(InvalidArgumentError, match=r"give a monitor: .* \(size\)"):
        metric_of_scan(None, {"size": 1.0})


@pytest.mark.parametrize(("size", "told"), [(20, True), (100, False), (200, False)])
def test_few_examples_are_told(size: int, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    tell_coarse_steps("acc", 0.5, size, 0.01)
    assert ("measure on at least 100 examples" in caplog.text) == told
