"""Runs that end by the clock: what they leave says how far they came, and they go on later."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from safetensors.torch import load_file
from torch import Tensor

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact import Card
from lit_compress.callbacks import CompressionReport, FilterPruning, QuantizationAwareTraining

MakeTrainer = Callable[..., Trainer]
EPOCHS, TARGET = 6, 0.5


class Clock(Callback):
    """Lets an hour pass at the end of an epoch, or in the middle of the next one."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        self.epoch, self.batch = epoch, batch

    def pass_an_hour(self, trainer: Trainer) -> None:
        for timer in trainer.callbacks:
            if isinstance(timer, Timer):
                timer._offset += 3600

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        last = trainer.num_training_batches - 1 if self.batch is None else self.batch
        if (trainer.current_epoch, batch_idx) == (self.epoch, last):
            self.pass_an_hour(trainer)


class Killed(Callback):
    """Ends the job behind the last checkpoint, before anything is converted."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise KeyError("killed")


def fitted(
    make_trainer: MakeTrainer, folder: Path, hours: int | None, *more: Callback
) -> tuple[LightningModule, list[str]]:
    """Fit the same network for some hours, or to the end; return it, and the warnings."""
    seed_everything(0, verbose=False)
    parts = [
        FilterPruning(TARGET, schedule=Schedule(1, 3)),
        QuantizationAwareTraining(first=4, freeze=5, dirpath=str(folder / "artifact")),
        CompressionReport(),
        ModelCheckpoint(folder, save_last=True),
    ]
    trainer = make_trainer(
        default_root_dir=folder,
        callbacks=[*parts, *more],
        max_epochs=EPOCHS,
        max_time=None if hours is None else timedelta(hours=hours),
        enable_checkpointing=True,
    )
    module, last = ForeignModule(), folder / "last.ckpt"
    resumed = last if last.is_file() else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, loader(), loader(64, 1), ckpt_path=resumed)
    return module, [str(one.message) for one in caught if one.category is UserWarning]


def converted(folder: Path) -> tuple[Card, bytes, dict[str, Tensor]]:
    """Return the card of a run, its int8 file, and its float weights."""
    artifact = folder / "artifact"
    card = lit_compress.load(artifact).card
    assert card is not None
    return card, (artifact / "model.onnx").read_bytes(), load_file(artifact / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("epoch", "batch"), [(1, None), (2, 1), (3, None), (4, 2)])
def test_a_run_that_ends_by_the_clock_says_so_and_goes_on_to_its_target(
    epoch: int, batch: int | None, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """A job killed in its second part kept the file of the first, with less pruned."""
    part, whole = tmp_path / "part", tmp_path / "whole"
    _, told = fitted(make_trainer, part, 1, Clock(epoch, batch))
    short = f"of {TARGET:.2f}: the run ended before its schedule did"
    assert any(short in one for one in told) is (epoch < 3)
    assert any("ended before fake quantisation began" in one for one in told) is (epoch < 4)
    card = converted(part)[0]
    assert card.pruning[0]["target"] == TARGET
    assert epoch == 2 or (card.pruning[0]["reached"] >= TARGET) is (epoch >= 3)  # few filters
    assert card.pruning[0]["epochs"] == [1, 2, 3][:epoch]
    assert card.config["PostTrainingQuantization"]["trained"] is (epoch >= 4)
    with pytest.raises(KeyError, match="killed"):
        fitted(make_trainer, part, 9, Killed())
    assert converted(part)[0] == card
    module, told = fitted(make_trainer, part, 9)
    card, file, weights = converted(part)
    assert not [one for one in told if "ended before" in one and "epoch ended" not in one]
    assert card.pruning[0]["reached"] >= TARGET
    assert card.pruning[0]["epochs"] == [1, 2, 3]
    assert card.config["PostTrainingQuantization"]["trained"] is True
    assert {variant.name for variant in card.variants} >= {"dense", "pruned", "int8"}
    assert all(torch.equal(weights[name], one) for name, one in module.state_dict().items())
    if batch is None:  # between two epochs nothing of the data is left out
        fitted(make_trainer, whole, None)
        assert file == converted(whole)[1]
