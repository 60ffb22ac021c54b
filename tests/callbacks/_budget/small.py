"""A small network with fine steps, and fits of few batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import nn


class Wide(ForeignModule):
    """A network with enough filters for fine steps."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((1, 24), (24, 40), (40, 40)):
            layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4))


def fit(
    module: Any,
    folder: Path,
    *callbacks: Any,
    epochs: int = 3,
    max_steps: int = -1,
    ckpt_path: str | None = None,
) -> Trainer:
    """Train a module on a batch an epoch, and return the Trainer."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=max_steps,
        callbacks=list(callbacks),
        default_root_dir=str(folder),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(32), loader(32, 1), ckpt_path=ckpt_path)
    return trainer
