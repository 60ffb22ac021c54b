"""Loading checkpoints of pruned modules in runs that do not prune."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import CheckpointError
from lit_compress.pruning.channels.resize import unpruned_shapes_of


class PrunedCheckpoints(Callback):
    """Lets a run without a pruning callback measure a checkpoint that was made with one.

    The command line adds it: a checkpoint is then tested with the configuration of the network
    alone. A fit goes on with the callback only, since later checkpoints would not say what the
    network was.
    """

    def __init__(self) -> None:
        self._resizer = CheckpointResizer()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not any(isinstance(c, ChannelPruning) for c in trainer.callbacks):  # type: ignore[attr-defined]
            self._resizer.attach(pl_module)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if any(isinstance(c, ChannelPruning) for c in trainer.callbacks):  # type: ignore[attr-defined]
            return
        if trainer.state.fn == TrainerFn.FITTING and unpruned_shapes_of(checkpoint) is not None:
            raise CheckpointError(
                "the checkpoint was made with a pruning callback, which this run does not have: "
                "append the same configuration of it, or start from the weights alone by init_from"
            )
        self._resizer.confirm(pl_module, checkpoint, {})

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
        self._resizer.settle()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._resizer.detach()
