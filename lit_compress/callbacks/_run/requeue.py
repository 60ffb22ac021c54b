"""SLURM's signal that the time is over: it is answered between two batches.

Lightning answers it at once, wherever the run is: it saves a checkpoint and asks for the job to be
run again. In the middle of a pruning step, or between the step of an optimizer and its count, that
checkpoint does not lead to the weights of a run that was not interrupted.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lit_compress.evaluation.trainer_access import callbacks, cluster_environment


class RequeueBetweenBatches(Callback):
    """Lets the signal of SLURM wait until the batch is done, or the epoch with its validation.

    Before and after the training the signal is answered at once, as without it.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._answer: Any = None
        self._received: tuple[int, FrameType | None] | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        environment = cluster_environment(trainer)
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        if threading.current_thread() is not threading.main_thread():
            return  # Lightning answers no signal there
        name = environment.requeue_signal
        if name is not None and callable(answer := signal.getsignal(name)):
            self._signal, self._answer, self._received = name, answer, None
            signal.signal(name, self._receive)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.is_last_batch:  # else the validation may follow
            self._answer_received()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answer_received()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        self._answer_received()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number, frame

    def _answer_received(self) -> None:
        received, self._received = self._received, None
        if received is not None:
            rank_zero_info("the signal of SLURM came: a checkpoint is saved between two batches")
            self._answer(*received)

    def _stop(self) -> None:
        """Let Lightning answer the signal itself again."""
        if self._signal is not None:
            signal.signal(self._signal, self._answer)
            self._signal = None


def requeue_between_batches(trainer: Trainer) -> None:
    """Let the signal of SLURM wait for the end of a batch in a run. Call it in ``setup``.

    Args:
        trainer: The run.
    """
    if not any(isinstance(one, RequeueBetweenBatches) for one in callbacks(trainer)):
        callbacks(trainer).append(RequeueBetweenBatches())
