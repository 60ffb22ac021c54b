"""SLURM's signal that the time is over: it is answered between two batches.

Lightning answers it at once, wherever the run is: it saves a checkpoint and asks for the job to be
run again. In the middle of a pruning step, or between the step of an optimizer and its count, that
checkpoint does not lead to the weights of a run that was not interrupted.

Several processes save the checkpoint together, so they must answer after the same batch. The first
one that notices the signal names the optimizer step after which all answer: the second one from
then, as the gradients keep the processes less than two steps apart.
"""

from __future__ import annotations

import signal
import threading
from itertools import count
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lit_compress.evaluation.ranks.board import Board, board_of_run, has_others
from lit_compress.evaluation.trainer_access import callbacks, cluster_environment

#: Numbers of the signals that processes wait for, the same in all of them.
_NUMBERS = count()


class RequeueBetweenBatches(Callback):
    """Lets the signal of SLURM wait until the batch is done, or the epoch with its validation.

    Before and after the training the signal is answered at once, as without it.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._answer: Any = None
        self._received: tuple[int, FrameType | None] | None = None
        self._board: Board | None = None
        self._noticed = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        environment = cluster_environment(trainer)
        if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
            return
        if threading.current_thread() is not threading.main_thread():
            return  # Lightning answers no signal there
        name = environment.requeue_signal
        if name is not None and callable(answer := signal.getsignal(name)):
            self._signal, self._answer = name, answer
            self._wait_again(trainer)
            signal.signal(name, self._receive)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.is_last_batch and self._is_due(trainer):  # after the last one may come more
            self._save(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer):
            self._save(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._signal is None:
            return
        due = self._is_due(trainer)
        if self._board is not None:
            self._board.meet("end")
            due = self._board.has("step")
        number = self._signal
        self._stop()
        if due:
            self._save(trainer, number)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number, frame

    def _is_due(self, trainer: Trainer) -> bool:
        """Tell whether the signal came, and is to be answered here by all processes."""
        if self._signal is None or self._board is None:
            return self._received is not None
        if self._received is not None and not self._noticed:
            self._noticed = True
            if self._board.count("noticed") == 1:
                self._board.put("step", str(trainer.global_step + 2).encode())
        return self._board.has("step") and trainer.global_step >= int(self._board.read("step"))

    def _save(self, trainer: Trainer, number: int | None = None) -> None:
        frame = self._received[1] if self._received is not None else None
        rank_zero_info("the signal of SLURM came: a checkpoint is saved between two batches")
        self._answer(self._signal if number is None else number, frame)
        self._wait_again(trainer)

    def _wait_again(self, trainer: Trainer) -> None:
        """Wait for the next signal."""
        self._received, self._noticed, self._board = None, False, None
        if has_others(trainer):
            self._board = board_of_run(f"lit_compress/requeue {next(_NUMBERS)}", "it trains")

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
