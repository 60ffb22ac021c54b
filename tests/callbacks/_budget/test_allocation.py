"""Filters that the outputs do not need go first, and the sizes stay those that were asked for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule
from torch import nn

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.callbacks._budget.allocation import Allocation, _cheapest_first
from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.selection.candidates import Candidates

from .small import fit

pytestmark = pytest.mark.usefixtures("no_trial_conversion")


class Idle(ForeignModule):
    """The filters of the second convolution are read with weights near zero."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((1, 24), (24, 32), (32, 32)):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
        with torch.no_grad():
            self.net[6].weight[:, :28] *= 1e-4  # all but four of the filters of net.3 are idle
            self.net[3].weight[28:] *= 2


def test_idle_filters_go_first(tmp_path: Path) -> None:
    module = Idle()
    pruner = FilterPruning(
        0.7, of="parameters", allocation="sensitivity", schedule=Schedule(shape="one_shot")
    )
    fit(module, tmp_path, pruner, epochs=2)
    assert module.net[3].out_channels <= 11
    assert module.net[0].out_channels == 24
    assert module.net[6].out_channels >= 28
    assert pruner.reached == pytest.approx(0.7, abs=0.02)
    shares = pruner.progress()["shares"]
    assert shares["net.3"] == pytest.approx(1 - module.net[3].out_channels / 32, abs=1e-3)


def test_a_budget_of_bytes_takes_measured_shares_and_the_card_has_them(tmp_path: Path) -> None:
    module = Idle()
    pruner = FilterPruning(11_000, of="bytes", schedule=Schedule(0, 0))
    writer = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    fit(module, tmp_path, pruner, writer, epochs=2)
    size = (tmp_path / "a" / "model.onnx").stat().st_size
    assert 0.95 * 11_000 <= size <= 11_000
    card = read_card(tmp_path / "a")
    assert card.pruning[0]["shares"]["net.3"] > 0.4
    assert card.pruning[0]["shares"]["net.0"] < 0.1


def test_a_resumed_run_has_the_same_shares(tmp_path: Path) -> None:
    pruner = FilterPruning(0.4, of="parameters", allocation="sensitivity", schedule=Schedule(0, 0))
    fit(Idle(), tmp_path, pruner)
    again = FilterPruning(0.4, of="parameters", allocation="sensitivity", schedule=Schedule(0, 0))
    again.load_state_dict(pruner.state_dict())
    assert again.selector.shares == pruner.selector.shares
    assert again.selector.target == pruner.selector.target


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"of": "filters"}, "set it to parameters or bytes"),
        ({"of": "parameters", "scope": "global"}, "set scope to local"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        FilterPruning(0.5, allocation="sensitivity", **arguments)


def group(index: int, size: int) -> Candidates:
    first = 100 * index
    return Candidates(
        index, f"g{index}", np.arange(first, first + size), 0, size - 1, tuple(range(size))
    )


def test_the_cheapest_step_is_taken_next() -> None:
    """Compared with a plain search of the least price at each step."""
    groups = {index: group(index, 9) for index in range(3)}
    generator = np.random.default_rng(0)
    errors = {index: np.cumsum(generator.random(8) ** 3).tolist() for index in groups}
    price = {0: 1, 1: 3, 2: 10}

    def saved(channels: frozenset[int]) -> int:
        return sum(price[channel // 100] for channel in channels)

    steps, sizes = _cheapest_first(groups, errors, saved)
    counts, expected = dict.fromkeys(groups, 0), []
    while any(count < 8 for count in counts.values()):
        costs = {
            index: (errors[index][n] - (errors[index][n - 1] if n else 0)) / price[index]
            for index, n in counts.items()
            if n < 8
        }
        best = min(costs, key=lambda index: (costs[index], index))
        counts[best] += 1
        expected.append((best, counts[best]))
    assert list(steps) == expected
    assert list(sizes) == sorted(sizes)
    allocation = Allocation(groups, steps, sizes, 200, saved)
    assert sizes[-1] == 8 * 14
    selector = FilterPruning(0.5, of="parameters").selector
    for share in (Fraction(1, 10), Fraction(3, 10), Fraction(1, 2)):
        found = allocation.selector(selector, share)
        assert abs(found.target - share) <= Fraction(10, 200)
        assert set(found.shares) == set(groups)
