import pytest

from lit_compress.report import StepAccuracy, gap_table


def test_gap_is_training_minus_validation() -> None:
    assert StepAccuracy("pruned", 3, 0.95, 0.9).gap == pytest.approx(0.05)
    assert StepAccuracy("pruned", 3, 0.95, None).gap is None


def test_table() -> None:
    steps = [
        StepAccuracy("reference", 0, 0.9, 0.875),
        StepAccuracy("overfitted", 12, 0.99992, None),
    ]
    assert gap_table(steps, "val_acc").splitlines() == [
        "val_acc     epochs  training  validation      gap",
        "----------  ------  --------  ----------  -------",
        "reference        0    0.9000      0.8750  +0.0250",
        "overfitted      12    0.9999           -        -",
    ]
