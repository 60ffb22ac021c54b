"""The metric of a network and of its file: measured, left out with a reason, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanSquaredError

from lit_compress.artifact import read_card
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.metric import accuracy_interval, check_monitor, metric_rises
from lit_compress.evaluation.run_view.copies import clone


def test_no_validation_batches_leave_the_metric_out(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[callback], limit_val_batches=0)
    with pytest.warns(UserWarning, match="my_acc is not measured: the fit has no validation"):
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


class Wordless(ForeignModule):
    """Logs metric objects under names that do not say which way is up."""

    def __init__(self) -> None:
        super().__init__()
        self.falling, self.rising = MeanSquaredError(), MulticlassAccuracy(4)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self(batch[0])
        self.falling(scores.amax(1), batch[1].float())
        self.rising(scores, batch[1])
        self.log("a", self.falling)
        self.log("b", self.rising)
        self.log("c", scores.mean())


def test_a_metric_object_says_which_way_is_up(make_trainer: Callable[..., Trainer]) -> None:
    """val_mape went from 0.134 to 0.342 and was accepted: a worse error was a better score."""
    trainer, module = make_trainer(max_epochs=1), Wordless()
    trainer.fit(module, loader(16), loader(16, 1))
    copy, loaders = clone(trainer, module), [loader(16, 1)]
    assert not metric_rises(trainer, copy, loaders, "a")
    assert metric_rises(trainer, copy, loaders, "b")
    assert not metric_rises(trainer, copy, [], "val_mape")
    with pytest.raises(InvalidArgumentError, match="whether more or less of c is better: set mode"):
        metric_rises(trainer, copy, loaders, "c")


def test_a_metric_of_unknown_direction_is_refused_before_the_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization("c", dirpath=str(tmp_path / "a"), max_drop=0.1)
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    with pytest.raises(InvalidArgumentError, match="whether more or less of c is better: set mode"):
        trainer.fit(Wordless(), loader(16), loader(16, 1))
    assert trainer.global_step == 0


def test_a_key_that_is_not_logged_is_refused_with_those_that_are() -> None:
    check_monitor("a", {"a": 1.0})
    with pytest.raises(InvalidArgumentError, match="it logs: a, b"):
        check_monitor("c", ["b", "a"])
    with pytest.raises(InvalidArgumentError, match="it logs: nothing"):
        check_monitor("c", [])
