"""The int8 file has the bytes that were asked for, never more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.callbacks._budget.byte_budget import USED, _search
from lit_compress.errors import InvalidArgumentError

from .small import Wide, fit

pytestmark = pytest.mark.usefixtures("no_trial_conversion")


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("budget", [9_000, 14_000])
def test_the_file_is_within_the_budget(tmp_path: Path, budget: int, scope: Any) -> None:
    pruning = FilterPruning(budget, of="bytes", scope=scope, schedule=Schedule(last=1))
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    fit(Wide(), tmp_path, pruning, writing)
    size = (tmp_path / "a" / "model.onnx").stat().st_size
    assert USED * budget <= size <= budget
    card = read_card(tmp_path / "a")
    assert card.pruning[0]["bytes"] == budget
    assert card.pruning[0]["reached"] == pytest.approx(card.pruning[0]["target"], abs=0.05)


def test_a_network_that_is_small_enough_keeps_all(tmp_path: Path) -> None:
    module = Wide()
    before = sum(p.numel() for p in module.parameters())
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    fit(module, tmp_path, FilterPruning(100_000, of="bytes"), writing)
    assert sum(p.numel() for p in module.parameters()) == before


@pytest.mark.filterwarnings("ignore:.*the run ended before its schedule did")
def test_a_resumed_fit_keeps_the_share_that_was_found(tmp_path: Path) -> None:
    def callbacks(name: str) -> list[Any]:
        pruning = FilterPruning(9_000, of="bytes", schedule=Schedule(first=0, last=2))
        return [pruning, PostTrainingQuantization(dirpath=str(tmp_path / name))]

    torch.manual_seed(0)
    start = Wide().state_dict()
    whole, first, second = Wide(), Wide(), Wide()
    for module in (whole, first):
        module.load_state_dict(start)
    fit(whole, tmp_path, *callbacks("whole"), epochs=4)
    trainer = fit(first, tmp_path, *callbacks("first"), epochs=4, max_steps=4)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(second, tmp_path, *callbacks("second"), epochs=4, ckpt_path=str(tmp_path / "half.ckpt"))
    for one, other in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("target", "message"),
    [(0.5, "whole number of bytes"), (999, "at least 1000"), (True, "whole number of bytes")],
)
def test_what_is_no_size_is_refused(target: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        FilterPruning(target, of="bytes")


def test_a_budget_without_a_file_or_below_the_smallest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="add the PostTrainingQuantization callback"):
        fit(Wide(), tmp_path, FilterPruning(9_000, of="bytes"))
    writing = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    with pytest.raises(InvalidArgumentError, match="the smallest file that was found has"):
        fit(Wide(), tmp_path, FilterPruning(1_000, of="bytes"), writing)


@example(parameters=10_000, fraction=0.02, power=1.0, overhead=1760)  # ended at 94.99 %
@given(
    parameters=st.integers(10_000, 10_000_000),
    fraction=st.floats(0.02, 0.98),
    power=st.floats(0.3, 4.0),
    overhead=st.integers(100, 9_000),
)
def test_the_search_ends_within_the_budget(
    parameters: int, fraction: float, power: float, overhead: int
) -> None:
    """Sizes fall with the share in any shape, since layers lose along both sides."""
    calls: list[Fraction] = []

    def size(share: Fraction) -> int:
        calls.append(share)
        return overhead + int(parameters * (1 - float(share)) ** power)

    smallest, whole = size(Fraction(99, 100)), size(Fraction(0))
    budget = int(smallest + fraction * (whole - smallest))
    calls.clear()
    found = _search(size, budget)
    assert found.size <= budget
    assert found.size == overhead + int(parameters * (1 - float(found.share)) ** power)
    assert len(calls) <= 10
    assert found.size >= USED * budget
