"""Loading checkpoints of pruned modules in runs without a pruning callback."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lit_compress.callbacks._blocks.record import BlockRecord
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import CheckpointError
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.pruning.channels.resize import unpruned_shapes_of


class PrunedCheckpoints(Callback):
    """Lets a run without a pruning callback load a checkpoint that was saved with one.

    The command line adds it, so that a pruned checkpoint can be tested with the configuration of
    the network alone. To resume a fit, the pruning callback is needed: without it later checkpoints
    would have no record of the unpruned network.
    """

    def __init__(self) -> None:
        self._resizer = CheckpointResizer()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not _is_pruned_here(trainer):
            self._resizer.attach(pl_module)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if _is_pruned_here(trainer):
            return
        if trainer.state.fn == TrainerFn.FITTING and unpruned_shapes_of(checkpoint) is not None:
            raise CheckpointError(
                "the checkpoint was saved with a pruning callback, which this run does not have: "
                "add the callback with the same arguments, or load only the weights by init_from"
            )
        self._resizer.check_record(pl_module, checkpoint, {})

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.check_without_record(pl_module, {})

    on_test_start = on_predict_start = on_validation_start

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._resizer.undo(pl_module)
        self._resizer.detach()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.accept()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._resizer.detach()


def _is_pruned_here(trainer: Trainer) -> bool:
    own = (ChannelPruning, BlockRecord)
    return any(isinstance(callback, own) for callback in callbacks(trainer))
