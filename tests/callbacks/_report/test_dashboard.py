"""What loggers other than one TensorBoard get. TensorBoard's own is in test_report.py."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_compress.artifact import Card, Metric, Variant, write_card
from lit_compress.callbacks import CompressionReport, MagnitudePruning
from lit_compress.callbacks._report.dashboard import hyperparameters

MakeTrainer = Callable[..., Trainer]


def fit(make_trainer: MakeTrainer, logger: Any, pruning: bool = True) -> CompressionReport:
    report = CompressionReport("my_acc")
    callbacks = [report, *([MagnitudePruning(0.5)] if pruning else [])]
    make_trainer(max_epochs=2, callbacks=callbacks, logger=logger, log_every_n_steps=1).fit(
        ForeignModule(), loader(), loader(32, 1)
    )
    return report


def test_other_loggers_get_the_numbers(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    report = fit(make_trainer, logger)
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (nonzero,) = {row["compress/pruned/nonzero"] for row in rows} - {""}
    assert report.card
    assert float(nonzero) == report.card.variant("pruned").nonzero
    assert sum(bool(row["compress/epoch_seconds"]) for row in rows) == 2
    assert not [key for key in rows[0] if key.startswith(("sparsity/", "size/"))]


def test_a_run_without_pruning_has_no_channels(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit(make_trainer, logger, pruning=False)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    ours = [tag for tag in events.Tags()["scalars"] if tag.startswith("compress/")]
    assert ours == ["compress/epoch_seconds"]
    assert not events.Tags()["histograms"]


def test_runs_of_one_name_are_drawn_together(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    old = tmp_path / "lightning_logs" / "version_0" / "artifact"
    bad = tmp_path / "lightning_logs" / "version_1" / "artifact"
    for folder in (old, bad):
        folder.mkdir(parents=True)
    metric = Metric("my_acc", 0.5, "val", 32, (0.3, 0.7))
    write_card(old, Card("old", (Variant("dense", 9, 9, bytes=99, metric=metric),), {}))
    (bad / "card.json").write_text("no card")  # a fault of another run is none of this one
    logger = TensorBoardLogger(tmp_path, version=2)
    fit(make_trainer, logger)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert "compress/metric_against_size" in events.Tags()["images"]


def test_a_card_without_figures_has_no_hyperparameters() -> None:
    assert hyperparameters(Card("run", (), {})) == {}
    assert hyperparameters(Card("run", (Variant("dense", 1, 1),), {})) == {}
