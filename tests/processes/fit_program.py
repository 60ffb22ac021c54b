"""A fit in one of several processes: fit_program.py FOLDER KIND [DEVICES].

Under torchrun the number of processes is that of torchrun. KIND names callbacks, see ``chosen``.
Each process leaves in ``FOLDER/RANK.json`` the digest of its weights and what its callbacks know.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from conftest import loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from pruning_program import digest
from test_filter_pruning import Mobile
from torch.distributed.distributed_c10d import _set_pg_timeout

from lit_compress import Schedule
from lit_compress.callbacks import (
    BlockPruning,
    Compress,
    CompressionReport,
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
    Overfitting,
    PostTrainingQuantization,
    QuantizationAwareTraining,
    RulePruning,
)
from lit_compress.trainer import started_processes
from processes.started import EXAMPLES

ONCE = Schedule(1, 1)


def chosen(kind: str, folder: str) -> list[Callback]:
    """Return the callbacks of a kind, which is the name of one, or ``together``."""
    int8 = PostTrainingQuantization("my_acc", dirpath=folder, calibration_batches=2)
    report = CompressionReport("my_acc", dirpath=folder)
    return {
        "BlockPruning": [BlockPruning(0.3, schedule=ONCE)],
        "Compress": [Compress("my_acc", target=0.3, max_drop=0.9, int8="after", dirpath=folder)],
        "CompressionReport": [report],
        "FilterPruning": [FilterPruning(0.4, schedule=ONCE, importance="taylor")],
        "KnowledgeDistillation": [FilterPruning(0.4, schedule=ONCE), KnowledgeDistillation()],
        "MagnitudePruning": [MagnitudePruning(0.5, schedule=ONCE)],
        "Overfitting": [Overfitting("my_acc", threshold=1.0)],
        "PostTrainingQuantization": [int8],
        "QuantizationAwareTraining": [
            QuantizationAwareTraining(first=1, monitor="my_acc", dirpath=folder)
        ],
        "RulePruning": [RulePruning(target=0.5, schedule=ONCE, rewind="epoch 1")],
        "together": [FilterPruning(0.4, schedule=ONCE), int8, report],
    }[kind]


class ShortTimeOut(Callback):
    """Gives the process group a time-out of a few seconds, once all processes are there."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _set_pg_timeout(datetime.timedelta(seconds=float(os.environ["TIME_OUT"])))


def known(callback: Callback) -> dict[str, Any]:
    """Return what a callback knows after the fit."""
    found: dict[str, Any] = {}
    for name in ("path", "written", "reached", "history", "parts"):
        if hasattr(callback, name):
            found[name] = str(getattr(callback, name))
    if isinstance(callback, CompressionReport) and callback.card is not None:
        found["metrics"] = {
            variant.name: [variant.metric.value, variant.metric.n]
            for variant in callback.card.variants
            if variant.metric is not None
        }
    if isinstance(callback, Overfitting):
        found["steps"] = [[step.step, step.train, step.val] for step in callback.steps]
    return found


def main(folder: Path, kind: str, devices: int = 1) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    started = started_processes() or {"devices": devices, "strategy": "ddp"}
    callbacks = chosen(kind, str(folder / "artifact"))
    trainer = Trainer(
        **started,
        accelerator="cpu",
        max_epochs=3,
        callbacks=[*callbacks, *([ShortTimeOut()] if "TIME_OUT" in os.environ else [])],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    module = Mobile()
    trainer.fit(module, loader(64), loader(EXAMPLES, 1))
    content = {
        "digest": digest(module),
        "known": {type(one).__name__: known(one) for one in callbacks},
    }
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
