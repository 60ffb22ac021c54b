from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.callbacks._quantization.best_weights import load_best
from lit_compress.errors import CheckpointError

MakeTrainer = Callable[..., Trainer]


def fitted(make_trainer: MakeTrainer, folder: Path, shrink: str, mode: str = "min") -> Trainer:
    keep = ModelCheckpoint(folder, "{epoch}", monitor="my_loss", mode=mode, save_top_k=-1)
    pruning = FilterPruning(0.5, schedule=Schedule(1, 2), shrink=shrink)
    trainer = make_trainer(max_epochs=5, callbacks=[pruning, keep], enable_checkpointing=True)
    trainer.fit(ForeignModule(), loader(), loader(32, 1))
    return trainer


@pytest.mark.parametrize(
    ("shrink", "mode", "best"), [("every", "min", min), ("end", "min", min), ("end", "max", max)]
)
def test_weights_are_the_best_of_the_pruned_epochs(
    shrink: str, mode: str, best: Any, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """With shrink="end" the checkpoints are whole, and what is loaded has to be cut."""
    trainer = fitted(make_trainer, tmp_path, shrink, mode)
    copy = ForeignModule()
    load_best(trainer, copy)
    assert copy.net[0].weight.shape == (4, 1, 3, 3)
    scores = trainer.checkpoint_callback.best_k_models
    pruned = {path: scores[path] for path in scores if int(Path(path).stem[-1]) >= 2}
    content = torch.load(best(pruned, key=pruned.get), weights_only=True)["state_dict"]
    kept = content["net.7.bias"]
    assert torch.equal(copy.net[7].bias, kept)


def test_only_dense_checkpoints_are_refused(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = fitted(make_trainer, tmp_path, "every")
    callback = trainer.checkpoint_callback
    dense = {path: v for path, v in callback.best_k_models.items() if Path(path).stem[-1] < "2"}
    callback.best_k_models = dense
    with pytest.raises(CheckpointError, match="no checkpoint from epoch 2 on"):
        load_best(trainer, ForeignModule())


def test_run_without_a_monitor_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(CheckpointError, match="ModelCheckpoint callback with a monitor"):
        load_best(make_trainer(), ForeignModule())
