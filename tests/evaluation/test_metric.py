"""The metric of a network and of its file: measured, left out with a reason, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer

from lit_compress.artifact import read_card
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.metric import accuracy_interval, check_monitor, lower_is_better


def test_no_validation_batches_leave_the_metric_out(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[callback], limit_val_batches=0)
    with pytest.warns(UserWarning, match="my_acc was not measured: the fit has no validation"):
        trainer.fit(foreign, loader(), loader(32, 1))
    assert read_card(tmp_path / "a").variant("int8").metric is None


def test_a_metric_that_is_not_a_number_is_left_out(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Undefined(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])
            self.log("my_acc", torch.tensor(float("nan")))

    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    with pytest.warns(UserWarning, match="my_acc is nan, so the card has none"):
        make_trainer(max_epochs=1, callbacks=[callback]).fit(Undefined(), loader(), loader(32, 1))
    assert read_card(tmp_path / "a").variant("int8").metric is None


def test_the_interval_is_wilsons() -> None:
    low, high = accuracy_interval("val_acc", 0.9, 100) or (0, 0)
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert accuracy_interval("val_loss", 0.9, 100) is None
    assert accuracy_interval("val_acc", 0.9049, 100) is None


@pytest.mark.parametrize("name", ["val_loss", "valid/RMSE", "mae", "WordErrorRate", "perplexity"])
def test_losses_are_told_by_their_names(name: str) -> None:
    assert lower_is_better(name)


@pytest.mark.parametrize("name", ["val_acc", "f1", "auroc", "iou"])
def test_scores_are_told_by_their_names(name: str) -> None:
    assert not lower_is_better(name)


def test_a_key_that_is_not_logged_is_refused_with_those_that_are() -> None:
    check_monitor("a", {"a": 1.0})
    with pytest.raises(InvalidArgumentError, match="it logs: a, b"):
        check_monitor("c", ["b", "a"])
    with pytest.raises(InvalidArgumentError, match="it logs: nothing"):
        check_monitor("c", [])
