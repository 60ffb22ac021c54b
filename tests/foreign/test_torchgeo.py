"""The tasks of torchgeo, unchanged, on made data: pruned, quantised, or refused at step 0.

They run where torchgeo is installed: ``make foreign`` has an environment of its own for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lit_compress
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.errors import LitCompressError

trainers = pytest.importorskip("torchgeo.trainers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torchgeo's own warnings

#: By key of a sample, the shape of its tensor and the number of its classes; 0 is a real number.
Shapes = dict[str, tuple[tuple[int, ...], int]]
IMAGE = ((3, 64, 64), 0)
COMMON = {"in_channels": 3}
UNET = COMMON | {"model": "unet", "backbone": "resnet18"}

TASKS: dict[str, tuple[Callable[[], LightningModule], Shapes]] = {
    "classification": (
        lambda: trainers.ClassificationTask(model="resnet18", num_classes=4, **COMMON),
        {"image": IMAGE, "label": ((), 4)},
    ),
    "regression": (
        lambda: trainers.RegressionTask(model="resnet18", num_outputs=1, **COMMON),
        {"image": IMAGE, "label": ((1,), 0)},
    ),
    "segmentation": (
        lambda: trainers.SemanticSegmentationTask(num_classes=4, **UNET),
        {"image": IMAGE, "mask": ((64, 64), 4)},
    ),
    "change": (
        lambda: trainers.ChangeDetectionTask(task="binary", **(UNET | {"model": "fcsiamdiff"})),
        {"image": ((2, 3, 64, 64), 0), "mask": ((1, 64, 64), 2)},
    ),
    "simclr": (
        lambda: trainers.SimCLRTask(
            model="resnet18", layers=2, hidden_dim=32, output_dim=16, memory_bank_size=0, **COMMON
        ),
        {"image": IMAGE},
    ),
    "byol": (lambda: trainers.BYOLTask(model="resnet18", **COMMON), {"image": IMAGE}),
}


class Made(Dataset):
    """Samples of random numbers, the same in each epoch."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        made = torch.Generator().manual_seed(index)
        return {
            key: torch.randint(0, classes, shape, generator=made)
            if classes
            else torch.rand(shape, generator=made)
            for key, (shape, classes) in self.shapes.items()
        }


class Data(LightningDataModule):
    """Hands out dicts, as torchgeo's own datamodules do."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.made = Made(shapes)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.made, 4, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.made, 4)


def fit(task: str, tmp_path: Path, callback: Any) -> tuple[LightningModule, int, Trainer]:
    make, shapes = TASKS[task]
    seed_everything(0, verbose=False)
    module = make()
    before = sum(parameter.numel() for parameter in module.parameters())
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=2,
        limit_val_batches=2,
    )
    trainer.fit(module, datamodule=Data(shapes))
    return module, before, trainer


@pytest.mark.parametrize("task", [task for task in TASKS if task != "byol"])
def test_a_task_is_pruned(task: str, tmp_path: Path) -> None:
    pruner = FilterPruning(0.3)
    module, before, _ = fit(task, tmp_path, pruner)
    assert 0.3 <= pruner.reached < 0.33
    assert sum(parameter.numel() for parameter in module.parameters()) < 0.8 * before


def test_a_task_with_a_momentum_twin_is_pruned_or_refused_at_step_0(tmp_path: Path) -> None:
    """The twin is not in the forward: the update of its weights failed after the first event."""
    pruner = FilterPruning(0.3)
    try:
        fit("byol", tmp_path, pruner)
    except LitCompressError:
        assert pruner.history == []
    else:
        assert pruner.reached >= 0.3


@pytest.mark.parametrize("task", ["classification", "regression", "segmentation"])
def test_the_file_of_a_task_is_near_to_its_network(task: str, tmp_path: Path) -> None:
    callback = PostTrainingQuantization("val_loss", dirpath=str(tmp_path / "a"))
    fit(task, tmp_path, callback)
    int8 = lit_compress.load(tmp_path / "a").card.variant("int8")
    assert int8.fidelity.sqnr_db > 20
    assert int8.metric.n == 8


def test_the_backbone_of_a_self_supervised_task_is_exported(tmp_path: Path) -> None:
    """Its validation does nothing, so what it takes is seen in a training batch."""
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"), submodule="backbone")
    fit("simclr", tmp_path, callback)
    assert lit_compress.load(tmp_path / "a").card.variant("int8").fidelity.sqnr_db > 20
