"""The best checkpoint of a run, from the epochs since the pruning target was reached."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from pickle import PicklingError

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.checkpoints.reading import read_checkpoint, read_plain
from lit_compress.checkpoints.stand_ins import is_read, load_with_stand_ins
from lit_compress.errors import CheckpointError
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning.channels.resize import resize_to, unpruned_shapes_of


class FinalSince(ABC):
    """A callback that changes how the network computes until some epoch."""

    @property
    @abstractmethod
    def final_since(self) -> int:
        """The first epoch whose checkpoints are of the network as it is at the end."""


def check_best(trainer: Trainer, module: LightningModule) -> None:
    """Check before the training that the best checkpoint can be found and read after it.

    Args:
        trainer: The run.
        module: The user's module.

    Raises:
        CheckpointError: If no ModelCheckpoint keeps checkpoints by a metric, or the module puts
            objects into them that keep its weights from being read.
    """
    checkpoint = _monitoring(trainer)
    if checkpoint.save_top_k == 0:
        raise CheckpointError(
            "weights: best needs a ModelCheckpoint that keeps checkpoints, and save_top_k is 0: "
            "set it to 1 or more, or use weights: last"
        )
    _check_readable(module)
    after = (checkpoint.monitor or "").startswith("pruned/") or checkpoint.save_top_k == -1
    if pruning_callbacks(trainer) and not after:
        rank_zero_warn(
            "weights: best takes only checkpoints from after the pruning target, and "
            f"ModelCheckpoint keeps {checkpoint.save_top_k} of all epochs by {checkpoint.monitor}: "
            "if they are from before, the last weights are converted. Let it watch "
            f"pruned/{checkpoint.monitor} (set monitor of the pruning callback), or keep all "
            "(save_top_k=-1)"
        )


def load_best(trainer: Trainer, module: LightningModule) -> int | None:
    """Load the weights of the best checkpoint since the pruning target was reached.

    Only the weights are read: objects in the checkpoint, such as hyperparameters, are not made.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.

    Returns:
        How many epochs the weights were trained; None if no checkpoint was kept since then. The
        module then has the last weights still.

    Raises:
        CheckpointError: If no ModelCheckpoint has a monitor, or a checkpoint cannot be read.
    """
    checkpoint = _monitoring(trainer)
    last = [int(p.history[-1]["epoch"]) for p in pruning_callbacks(trainer) if p.history]
    last += [one.final_since for one in callbacks(trainer) if isinstance(one, FinalSince)]
    since = max(last, default=0)
    sign = 1 if checkpoint.mode == "min" else -1
    ranked = sorted(checkpoint.best_k_models.items(), key=lambda item: sign * float(item[1]))
    for path, score in ranked:
        if not Path(path).is_file():
            continue  # the user moved it
        content = read_checkpoint(path, objects="stand-ins")
        if int(content["epoch"]) >= since:
            resize_to(module, content["state_dict"], unpruned_shapes_of(content))
            module.load_state_dict(content["state_dict"])
            for pruner in pruning_callbacks(trainer):
                pruner.prune_to_final(module)
            rank_zero_info(f"weights of {path} ({checkpoint.monitor} {float(score):.4f})")
            return int(content["epoch"]) + 1
    rank_zero_warn(
        f"weights: best finds no checkpoint from epoch {since} on, when the network was pruned to "
        "its target and the ranges of its int8 file were final, so the last weights are converted: "
        "keep more of them (ModelCheckpoint save_top_k=-1)"
    )
    return None


def _monitoring(trainer: Trainer) -> ModelCheckpoint:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback
    raise CheckpointError(
        "weights: best needs a ModelCheckpoint callback with a monitor, and the run has none: add "
        "one, or use weights: last"
    )


def _check_readable(module: LightningModule) -> None:
    """Check that the weights, and what else the module puts into checkpoints, can be read."""
    extra = {n: v for n, v in module.state_dict().items() if not isinstance(v, Tensor)}
    file = io.BytesIO()
    try:
        torch.save({"extra": extra, "hyperparameters": dict(module.hparams)}, file)
    except (PicklingError, AttributeError, TypeError):
        return  # Lightning says what it cannot save, at the first checkpoint
    way_out = (
        "use weights: last, or leave the object out of save_hyperparameters (ignore=[...]) and "
        "get_extra_state"
    )
    try:
        content = read_plain("its checkpoint", lambda: load_with_stand_ins(file))
    except CheckpointError as error:
        raise CheckpointError(
            f"weights: best cannot read the checkpoints of {type(module).__name__}, since an "
            f"object among its hyperparameters cannot be passed over ({error}): {way_out}"
        ) from error
    unread = [name for name, value in content["extra"].items() if not is_read(value)]
    if unread:
        raise CheckpointError(
            f"weights: best cannot read {unread[0]} of the checkpoints of {type(module).__name__}, "
            f"which is an object: {way_out}"
        )
