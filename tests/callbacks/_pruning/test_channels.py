"""What the callbacks that remove channels share, and keep in checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, RulePruning
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.errors import InvalidArgumentError, PlanError

ONCE = Schedule(shape="one_shot")


@pytest.mark.parametrize("callback", [FilterPruning(0.5), RulePruning(target=0.5)])
def test_no_example_is_known_before_a_fit(callback: Callback) -> None:
    assert isinstance(callback, ChannelPruning)
    with pytest.raises(InvalidArgumentError, match="has no example inputs yet: start a fit"):
        callback._require_example()


def made(kind: str) -> Any:
    if kind == "rules":
        return RulePruning(target=0.5, schedule=ONCE)
    return FilterPruning(0.5, schedule=ONCE)


@pytest.mark.parametrize("kind", ["filters", "rules"])
def test_nothing_is_known_before_a_fit(kind: str) -> None:
    callback = made(kind)
    assert callback.unpruned_shapes() is None
    with pytest.raises(InvalidArgumentError, match="has not analysed the network yet: start a fit"):
        callback._require_state()


@pytest.mark.parametrize("kind", ["filters", "rules"])
@pytest.mark.parametrize("damage", ["done", "history", "original", "scores"])
def test_a_damaged_state_is_refused_by_name(
    kind: str, damage: str, foreign: ForeignModule, make_trainer: Any
) -> None:
    callback = made(kind)
    trainer: Trainer = make_trainer(max_epochs=2, callbacks=[callback])
    trainer.fit(foreign, loader(), loader(16, 1))
    assert callback.unpruned_shapes().shapes["net.0.weight"] == (8, 1, 3, 3)
    state = copy.deepcopy(callback.state_dict())
    made(kind).load_state_dict(state)
    wrong: dict[str, Any] = {"done": "x", "history": 3, "original": None, "scores": 1}
    state[damage] = wrong[damage]
    with pytest.raises(PlanError, match=rf"state of {type(callback).__name__} is damaged"):
        made(kind).load_state_dict(state)


def test_a_copy_that_was_loaded_whole_is_completed(
    foreign: ForeignModule, make_trainer: Any
) -> None:
    callback, whole = made("filters"), copy.deepcopy(foreign)
    make_trainer(max_epochs=2, callbacks=[callback]).fit(foreign, loader(), loader(16, 1))
    callback.prune_to_final(whole)
    assert whole.net[3].weight.shape == foreign.net[3].weight.shape == (6, 4, 3, 3)
    callback.prune_to_final(foreign)  # what is cut already stays
    assert torch.isfinite(foreign(torch.zeros(1, 1, 8, 8))).all()


class Clipped(ForeignModule):
    """Notes, where gradients are clipped, the largest gradient of weights that are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.of_zeros: list[float] = []

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        weight = self.net[3].weight
        self.of_zeros.append(float(weight.grad[weight == 0].abs().sum()))


def test_gradients_of_weights_at_zero_do_not_count_for_clipping(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Elements that stay zero added to the norm by which all gradients are divided."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {pattern: net.3, granularity: element, ratio: 0.5}")
    pruning = RulePruning(str(rules), schedule=Schedule(1, 1))
    module = Clipped()
    make_trainer(max_epochs=3, callbacks=[pruning]).fit(module, loader(32), loader(16, 1))
    assert int((module.net[3].weight == 0).sum()) == 432
    assert module.of_zeros == [0.0] * len(module.of_zeros) != []
