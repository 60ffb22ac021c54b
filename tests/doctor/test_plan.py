"""Length, early stopping, watched metrics and optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from doctor.faults import Net, diagnosed, healthy
from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.doctor import Finding


def asked(
    tmp_path: Path, question: str, *callbacks: Callback, module: Net | None = None, **options: Any
) -> Finding:
    case = healthy(tmp_path)
    case.callbacks = [FilterPruning(0.25, schedule=Schedule(last=4)), *callbacks]
    case.options, case.module = options, module or case.module
    found = {one.question: one for one in diagnosed(case).findings}
    return found[question]


@pytest.mark.parametrize(
    ("patience", "options", "verdict"),
    [
        (3, {}, "warning"),  # the checks of epochs 0 to 3: it stops at the end of epoch 3
        (4, {}, "fine"),
        (1, {"min_epochs": 5}, "fine"),
        (1, {"min_epochs": 4}, "warning"),
        (1, {"check_val_every_n_epoch": 2}, "warning"),
        (2, {"check_val_every_n_epoch": 2}, "fine"),
        (7, {"val_check_interval": 0.5}, "warning"),
        (9, {"val_check_interval": 0.5}, "fine"),
    ],
)
def test_early_stopping_is_compared_with_the_last_step(
    patience: int, options: dict[str, Any], verdict: str, tmp_path: Path
) -> None:
    stopping = EarlyStopping("val_loss", patience=patience)
    assert asked(tmp_path, "early stopping", stopping, **options).verdict == verdict


@pytest.mark.parametrize("patience", [2, 3])
def test_a_run_is_stopped_when_the_doctor_says(patience: int, tmp_path: Path) -> None:
    """The worst case: the metric never gets better after the first check."""

    class Constant(Net):
        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", 1.0)

    case = healthy(tmp_path)
    case.module = Constant()
    case.callbacks = [
        FilterPruning(0.25, schedule=Schedule(last=4)),
        EarlyStopping("val_loss", patience=patience),
    ]
    (warned,) = diagnosed(case).warnings
    case.callbacks = case.callbacks[1:]
    with case.trainer() as trainer:
        trainer.fit(case.module, **case.loaders())
    assert f"after epoch {trainer.current_epoch - 1}," in warned.found


def test_a_threshold_can_stop_at_once(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_acc", mode="max", patience=50, stopping_threshold=0.2)
    found = asked(tmp_path, "early stopping", stopping)
    assert found.verdict == "warning"
    assert "patience" not in found.remedy


@pytest.mark.parametrize(
    ("monitor", "mode", "verdict"),
    [
        ("val_acc", "max", "fine"),
        ("val_loss", "max", "warning"),
        ("compress/reached", "max", "fine"),
        ("val_acc/dataloader_idx_0", "max", "error"),
    ],
)
def test_a_watched_metric_is_logged(monitor: str, mode: str, verdict: str, tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, monitor=monitor, mode=mode)
    assert asked(tmp_path, "monitors", kept).verdict == verdict


class Plateau(Net):
    """Lowers its learning rate by a metric."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max")
        config = {"scheduler": scheduler, "monitor": "val_f1"}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Later(Plateau):
    """Logs the metric where no step is run."""

    def on_train_epoch_end(self) -> None:
        self.log("val_f1", 0.0)


def test_the_metric_of_a_scheduler_is_watched_too(tmp_path: Path) -> None:
    found = asked(tmp_path, "monitors", module=Plateau())
    assert found.verdict == "error"
    assert "ReduceLROnPlateau watches 'val_f1'" in found.found
    assert asked(tmp_path, "monitors", module=Later()).verdict == "fine"


class HeadOnly(Net):
    """Trains its last layer, and leaves the others with gradients."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.head.parameters(), 0.1)


class Untrained(Net):
    """Has no optimizer."""

    def configure_optimizers(self) -> None:  # type: ignore[override]
        return None


def test_weights_that_no_optimizer_has_are_named(tmp_path: Path) -> None:
    found = asked(tmp_path, "optimizer", module=HeadOnly())
    assert found.verdict == "warning"
    assert "body.0.bias, body.0.weight" in found.found


def test_a_run_without_an_optimizer_trains_nothing(tmp_path: Path) -> None:
    assert asked(tmp_path, "optimizer", module=Untrained()).verdict == "warning"
