"""The best checkpoint of a run, from the epochs since the pruning target was reached."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.errors import CheckpointError
from lit_compress.pruning.channels.resize import resize_to, unpruned_shapes_of


def load_best(trainer: Trainer, module: LightningModule) -> None:
    """Load the weights of the best checkpoint since the pruning target was reached.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.

    Raises:
        CheckpointError: If there is no ModelCheckpoint with a monitor, or it kept no checkpoint
            since then.
    """
    checkpoint = _monitoring(trainer)
    since = max(
        (int(p.history[-1]["epoch"]) for p in pruning_callbacks(trainer) if p.history), default=0
    )
    sign = 1 if checkpoint.mode == "min" else -1
    ranked = sorted(checkpoint.best_k_models.items(), key=lambda item: sign * float(item[1]))
    for path, score in ranked:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if int(content["epoch"]) >= since:
            resize_to(module, content["state_dict"], unpruned_shapes_of(content))
            module.load_state_dict(content["state_dict"])
            for pruner in pruning_callbacks(trainer):
                pruner.prune_to_final(module)
            rank_zero_info(f"weights of {path} ({checkpoint.monitor} {float(score):.4f})")
            return
    raise CheckpointError(
        f"weights: best finds no checkpoint from epoch {since} on, when the pruning target was "
        "reached: keep more of them (ModelCheckpoint save_top_k=-1), or use weights: last"
    )


def _monitoring(trainer: Trainer) -> ModelCheckpoint:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback
    raise CheckpointError(
        "weights: best needs a ModelCheckpoint callback with a monitor, and the run has none: add "
        "one, or use weights: last"
    )
