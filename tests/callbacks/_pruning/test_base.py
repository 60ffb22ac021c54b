"""What the pruning callbacks have in common, on the smallest of them."""

import csv
from collections.abc import Callable
from fractions import Fraction
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from lit_compress import Schedule
from lit_compress.callbacks import MagnitudePruning
from lit_compress.callbacks._pruning.arguments import plain
from lit_compress.callbacks._pruning.base import BeforePruning, PruningCallback
from lit_compress.errors import InvalidArgumentError

MakeTrainer = Callable[..., Trainer]


class Noted(PruningCallback):
    """Removes nothing, and notes what it was asked for."""

    def __init__(self, target: float, schedule: Schedule, monitor: str | None = None) -> None:
        super().__init__(Fraction(repr(target)), schedule, monitor)
        self.asked: list[Fraction] = []

    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        self.asked.append(share)
        return float(share)

    def arguments(self) -> dict[str, Any]:
        return {"target": self.goal, "schedule": plain(self.schedule)}


class Look(Noted, BeforePruning):
    """Notes when it was shown the dense network."""

    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.asked.append(Fraction(-1))


def fit(make_trainer: MakeTrainer, *callbacks: Noted, **options: Any) -> Trainer:
    trainer = make_trainer(**{"max_epochs": 5, "callbacks": list(callbacks)} | options)
    trainer.fit(ForeignModule(), loader(32), loader(16, 1), ckpt_path=options.pop("path", None))
    return trainer


def test_shares_are_exact_and_of_the_original(make_trainer: MakeTrainer) -> None:
    pruning = Noted(0.7, Schedule(1, 3, shape="linear"))
    fit(make_trainer, pruning)
    assert pruning.asked == [Fraction(7, 30), Fraction(14, 30), Fraction(7, 10)]
    assert [event["epoch"] for event in pruning.history] == [1, 2, 3]
    assert pruning.progress()["reached"] == 0.7


def test_the_dense_network_is_shown_once_before_the_first_event(make_trainer: MakeTrainer) -> None:
    first = Look(0.5, Schedule(1, 2))
    fit(make_trainer, first, Noted(0.2, Schedule(2, 3)))
    assert first.asked.count(Fraction(-1)) == 1
    assert first.asked[0] == -1


def test_brought_forward_it_stays_so_in_a_resumed_run() -> None:
    first = Noted(0.5, Schedule(6, 8, shape="linear"))
    first.move_earlier(4)
    assert first.first_epoch == 2
    again = Noted(0.5, Schedule(6, 8, shape="linear"))
    again.load_state_dict(first.state_dict())
    again.load_state_dict(first.state_dict())
    assert again.first_epoch == 2
    assert first.earliest(3) == 3


class Published(Callback):
    """Notes the metrics of each validation."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.found.append((float(metrics["my_loss"]), float(metrics["pruned/my_loss"])))


def test_metric_of_the_pruned_network_is_nan_until_the_target_is_reached(
    make_trainer: MakeTrainer,
) -> None:
    spy = Published()
    pruning = MagnitudePruning(0.5, Schedule(1, 3), monitor="my_loss")
    trainer = make_trainer(max_epochs=5, callbacks=[pruning, spy], num_sanity_val_steps=0)
    trainer.fit(ForeignModule(), loader(32), loader(16, 1))
    assert [isnan(pruned) for _, pruned in spy.found] == [True, True, True, False, False]
    assert all(isnan(pruned) or pruned == plain for plain, pruned in spy.found)


def test_averaging_of_weights_is_refused_by_name(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InvalidArgumentError, match="StochasticWeightAveraging"):
        fit(make_trainer, Noted(0.5, Schedule()), StochasticWeightAveraging(1e-2))


class LogsAtTheEnd(ForeignModule):
    """Logs its metric once the validation epoch has ended, as with torchmetrics' collections."""

    def on_validation_epoch_start(self) -> None:
        self.losses: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.losses.append(nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"val/loss": torch.stack(self.losses).mean()})


def test_a_metric_that_is_logged_at_the_end_of_the_epoch_is_monitored(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """It was looked for before the module's own hook: the fit failed after an epoch."""
    pruning = MagnitudePruning(0.5, Schedule(1, 2), monitor="val/loss")
    keep = ModelCheckpoint(tmp_path / "kept", monitor="pruned/val/loss", save_top_k=-1)
    trainer = make_trainer(
        max_epochs=4,
        callbacks=[pruning, keep],
        enable_checkpointing=True,
        logger=CSVLogger(tmp_path),
    )
    trainer.fit(LogsAtTheEnd(), loader(32), loader(16, 1))
    table = Path(trainer.logger.log_dir, "metrics.csv").read_text("utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    plain, pruned = (
        {row["step"]: float(row[name]) for row in rows if row[name]}
        for name in ("val/loss", "pruned/val/loss")
    )
    assert list(plain) == list(pruned)
    assert [isnan(value) for value in pruned.values()] == [True, True, False, False]
    assert all(isnan(value) or value == plain[step] for step, value in pruned.items())
    best = min(value for value in pruned.values() if not isnan(value))
    assert float(keep.best_model_score) == pytest.approx(best)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([loader(16, 1)], "monitor 'acc' is not logged by the validation; it logs: my_acc"),
        ([], "the fit has no validation data to measure it on"),
    ],
)
def test_a_key_that_is_not_logged_is_refused_before_the_training(
    data: list[Any], message: str, make_trainer: MakeTrainer
) -> None:
    """It was found after the first epoch, and without validation data never."""
    pruning = MagnitudePruning(0.5, Schedule(1, 2), monitor="acc")
    trainer = make_trainer(max_epochs=4, callbacks=[pruning], num_sanity_val_steps=0)
    with pytest.raises(InvalidArgumentError, match=message):
        trainer.fit(ForeignModule(), loader(32), *data)
    assert trainer.global_step == 0


def test_a_checkpoint_of_the_pruned_metric_needs_a_monitor(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Lightning found after an epoch that nothing had logged it."""
    keep = ModelCheckpoint(tmp_path, monitor="pruned/my_acc")
    pruning = MagnitudePruning(0.5, Schedule(1, 2))
    trainer = make_trainer(max_epochs=4, callbacks=[pruning, keep], enable_checkpointing=True)
    with pytest.raises(InvalidArgumentError, match="give MagnitudePruning monitor='my_acc'"):
        trainer.fit(ForeignModule(), loader(32), loader(16, 1))
