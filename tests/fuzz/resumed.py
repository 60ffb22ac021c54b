"""Fits of a second that go on from a checkpoint that was changed at random."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.callbacks import (
    FilterPruning,
    MagnitudePruning,
    QuantizationAwareTraining,
    RulePruning,
)
from lit_compress.pruning import Schedule

#: Epochs of the fit; the checkpoint is saved at the end of the second.
EPOCHS, SAVED = 4, 1
#: Where a change begins; the states of callbacks are changed most.
PLACES = (
    *["callbacks"] * 6,
    *["optimizer_states", "lr_schedulers", "loops"],
    *["state_dict", "lit_compress", "epoch", "global_step", "hyper_parameters"],
)


class Small(LightningModule):
    """Two convolutions and a linear layer, with Adam and a schedule of the learning rate."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.net(images)
        return scores

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def _schedule() -> Schedule:
    return Schedule(first=1, last=EPOCHS - 2)


class BriefTraining(QuantizationAwareTraining):
    """Trains as the int8 file computes, and tries and writes no file: nine tenths of the time."""

    def _dry_run(self, *_: Any) -> None:
        pass

    def _try_out(self, *_: Any) -> None:
        pass

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass


#: By name, the callbacks of a fit.
FITS: dict[str, Callable[[], list[Callback]]] = {
    "filters": lambda: [FilterPruning(0.4, schedule=_schedule(), rewind="init")],
    "contract": lambda: [
        FilterPruning(0.4, schedule=_schedule(), monitor="val_acc", max_drop=1.0, shrink="end")
    ],
    "magnitude": lambda: [MagnitudePruning(0.5, schedule=_schedule(), rewind="init")],
    "rules": lambda: [RulePruning(target=0.5, schedule=_schedule())],
    "ranges": lambda: [BriefTraining(first=1, freeze=2, calibration_batches=1)],
}


class Saves(Callback):
    """Saves a checkpoint at the end of an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == SAVED:
            trainer.save_checkpoint(self.path)


def fit(name: str, folder: Path, checkpoint: Path | None = None, saved: Path | None = None) -> None:
    """Fit the small network.

    Args:
        name: Which of :data:`FITS`.
        folder: Folder of the run.
        checkpoint: The checkpoint to go on from.
        saved: Where to save a checkpoint.
    """
    seed_everything(0, verbose=False)
    images = torch.randn(8, 1, 6, 6)
    data = DataLoader(TensorDataset(images, torch.arange(8) % 3), 8)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=FITS[name]() + ([] if saved is None else [Saves(saved)]),
    )
    trainer.fit(Small(), data, data, ckpt_path=checkpoint)


#: What replaces a part of a checkpoint, next to other plain values.
TENSORS: tuple[Callable[[], Tensor], ...] = (
    lambda: torch.zeros(2),
    lambda: torch.zeros(3, device="meta"),
    lambda: torch.full((4,), -7),
    lambda: torch.tensor(float("nan")),
)


def change(content: Any, values: Sequence[Any], rng: random.Random) -> Any:
    """Return a checkpoint with one part replaced or left out, at any depth.

    Args:
        content: The checkpoint, or a part of it.
        values: What may replace a part.
        rng: Random numbers.
    """
    if isinstance(content, dict) and content and rng.random() < 0.93:
        key = rng.choice(list(content))
        if rng.random() < 0.07:
            return {name: value for name, value in content.items() if name != key}
        if rng.random() < 0.05:
            return content | {rng.choice(("x", 7)): content[key]}
        return content | {key: change(content[key], values, rng)}
    if isinstance(content, list) and content and rng.random() < 0.93:
        place = rng.randrange(len(content))
        if rng.random() < 0.1:
            return content[:place] + content[place + 1 :]
        return [*content[:place], change(content[place], values, rng), *content[place + 1 :]]
    if isinstance(content, Tensor) and content.numel() and rng.random() < 0.5:
        changed = content.clone().flatten()
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 100))
        return changed.reshape(content.shape) if rng.random() < 0.7 else changed
    return rng.choice(values) if rng.random() < 0.8 else rng.choice(TENSORS)()


def change_checkpoint(data: bytes, values: Sequence[Any], rng: random.Random) -> bytes:
    """Change a part of a checkpoint, mostly of the state of its callbacks, and save it again."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    place = rng.choice([name for name in PLACES if name in content])
    if rng.random() < 0.95:
        content[place] = change(content[place], values, rng)
    else:
        del content[place]
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Resumes:
    """The checkpoints of the small fits, made at their first use.

    Args:
        folder: A folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints: dict[str, bytes] = {}

    def prepare(self) -> None:
        """Make a checkpoint of each of :data:`FITS`, unless they are made."""
        for name in FITS.keys() - self.checkpoints.keys():
            path = self.folder / f"{name}.ckpt"
            fit(name, self.folder / "run", saved=path)
            self.checkpoints[name] = path.read_bytes()
