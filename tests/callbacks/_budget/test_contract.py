"""What a network may lose, in both directions of a metric."""

from __future__ import annotations

import io

import pytest
import torch

from lit_compress.callbacks._budget.contract import Contract, Kept


@pytest.mark.parametrize(
    ("mode", "baseline", "good", "bad"),
    [("max", 0.9, 0.85, 0.84), ("min", 0.5, 0.55, 0.56), ("max", 0.0, -0.05, -0.06)],
)
def test_both_directions(mode: str, baseline: float, good: float, bad: float) -> None:
    contract = Contract("metric", 0.05 + 1e-12, mode)  # type: ignore[arg-type]
    contract.baseline = baseline
    assert contract.holds(good)
    assert not contract.holds(bad)
    assert not contract.holds(None)
    assert not contract.holds(float("nan"))


def test_a_state_survives_a_checkpoint() -> None:
    contract = Contract("metric", 0.05, "min")
    contract.baseline, contract.last = 0.5, None
    contract.kept = Kept(3, 0.52, {"w": torch.ones(2)}, {"history": []}, {"1": {"ranges": None}})
    file = io.BytesIO()
    torch.save(contract.state(), file)
    file.seek(0)
    other = Contract("metric", 0.05)
    other.restore(torch.load(file, weights_only=True))
    assert other.baseline == 0.5
    assert other.lost(0.6) == pytest.approx(0.1)
    assert other.kept is not None
    assert other.kept.epoch == 3
    assert torch.equal(other.kept.weights["w"], torch.ones(2))


def test_without_a_limit_there_is_no_state() -> None:
    contract = Contract("metric", None)
    assert not contract
    assert contract.state() == {}
    assert contract.progress() == {}
