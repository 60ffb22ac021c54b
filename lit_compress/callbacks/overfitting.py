"""Overfitting on purpose, to measure how pruning reduces it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any
from weakref import ref

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils._pytree import tree_map
from typing_extensions import override

from lit_compress.callbacks._overfitting.augmentation import Augmentation, reload_training_data
from lit_compress.callbacks._overfitting.eval_mode import EvalMode, still_random
from lit_compress.callbacks._pruning.arguments import check_patterns
from lit_compress.callbacks._pruning.base import BeforePruning, pruning_callbacks
from lit_compress.callbacks._run.resuming import name_checkpoint
from lit_compress.callbacks._run.supported import check_run
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.example_inputs import find_example_inputs
from lit_compress.evaluation.loaders import training_loaders, validation_loaders, whole
from lit_compress.evaluation.metric import check_monitor
from lit_compress.evaluation.network import named_module
from lit_compress.evaluation.ranks.validation import Task, validate_shared
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import (
    callbacks_of_type,
    is_fast_dev_run,
    overfit_batches,
)
from lit_compress.report import counted
from lit_compress.report.gap import StepAccuracy, gap_table

#: Rounding error of a metric in float32, far less than one image of 100,000.
ROUNDING = 5e-7


class Overfitting(Callback, BeforePruning):
    """Trains without regularisation until the network has learned the training data by heart.

    Works on any LightningModule. During this phase, dropout and batch norms are in eval mode in
    every training batch (their statistics, scales and shifts do not change), and there is no
    augmentation: if the datamodule has an attribute ``augment``, it is None. Other augmentation
    stays on. Learning rate and weight decay are those of the optimizer.

    Without a pruning callback, the run stops at the threshold. With one, the phase ends at the
    first pruning step, which moves to the epoch after the threshold is reached; dropout, batch
    norms and augmentation are then on again. At the end, a table shows the metric on training and
    validation data, and the gap, of the network at the start (``reference``), ``overfitted`` and
    ``pruned``.

    Args:
        monitor: Key of an accuracy that your ``validation_step`` logs. The same step measures it on
            the training data: all of them, in eval mode, without augmentation.
        threshold: Share of the training data, in (0, 1], that must be classified correctly: 0.9999
            of 48,000 images allows 4 errors.
        every: Epochs between two measurements; each is a forward pass of all training data.
        hold: Globs of other modules to keep in eval mode: those whose forward calls
            ``torch.nn.functional.dropout`` itself.

    Example:
        >>> from lit_compress.callbacks import Overfitting
        >>> Overfitting("val_acc", threshold=0.999).steps  # filled by a fit
        []
    """

    def __init__(
        self,
        monitor: str = "val_acc",
        threshold: float = 0.9999,
        every: int = 1,
        hold: Sequence[str] = (),
    ) -> None:
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if not number or not 0 < threshold <= 1:
            raise InvalidArgumentError(f"threshold must be a number in (0, 1], got {threshold!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InvalidArgumentError(f"every must be a whole number of at least 1, got {every!r}")
        if not isinstance(monitor, str) or not monitor:
            raise InvalidArgumentError(f"monitor must be the name of a metric, got {monitor!r}")
        check_patterns(hold=hold)
        self.monitor = monitor
        self.threshold = threshold
        self.every = every
        self.hold = list(hold)
        #: Accuracies of the network, in the order of measurement.
        self.steps: list[StepAccuracy] = []
        self._active = False
        self._reached: int | None = None
        self._eval_mode = EvalMode(hold)
        self._augmentation = Augmentation()
        self._fitted: tuple[ref[Trainer], ref[LightningModule]] | None = None
        self._told = False  # whether the table of the last fit still holds
        self._latest = (-1, 0.0)  # number of optimizer steps, and the training metric then

    @override
    def state_dict(self) -> dict[str, Any]:
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "active": self._active, "reached": self._reached}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = [StepAccuracy(**step) for step in state_dict["steps"]]
        self._active = bool(state_dict["active"])
        self._reached = state_dict["reached"]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        name_checkpoint(trainer)
        self._told = self._goes_on(trainer, pl_module)
        if not self._told:
            self.steps, self._active, self._reached = [], True, None
        self._latest, self._fitted = (-1, 0.0), (ref(trainer), ref(pl_module))
        if not is_overridden("validation_step", pl_module):
            raise InvalidArgumentError(
                f"{type(pl_module).__name__} has no validation_step: Overfitting measures the "
                f"training data by it, so write one that logs {self.monitor!r}"
            )

    def _goes_on(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Tell whether the Trainer fits the same module again, from the epoch where it stopped."""
        if self._fitted is None or trainer.current_epoch == 0:
            return False
        return self._fitted[0]() is trainer and self._fitted[1]() is pl_module

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The state of a resumed run is restored, and the training loader does not exist yet.
        if self._active:
            self._augmentation.switch_off(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._active:
            return
        first = min((pruner.first_epoch for pruner in pruning_callbacks(trainer)), default=None)
        if first == 0 and not is_fast_dev_run(trainer):
            raise InvalidArgumentError(
                "Overfitting ends when pruning begins, which is at epoch 0: set schedule.first of "
                "the pruning callback to the largest number of epochs that overfitting may take"
            )
        self._check_randomness(trainer, pl_module)
        if not self.steps:
            self._measure(trainer, pl_module, "reference")
            self._judge(trainer, self.steps[0].train, trainer.current_epoch)
        self._eval_mode.attach(pl_module)
        rank_zero_info(
            f"Overfitting: {len(self._eval_mode.names())} layers are kept in eval mode; "
            + self._augmentation.describe()
        )
        if self._reached is not None and first is None:
            trainer.should_stop = True

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._eval_mode.apply()
        self._told = False

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        name = self._eval_mode.broken()
        if name is not None:
            raise InvalidArgumentError(
                f"{type(pl_module).__name__} set {name} to training mode in a training batch, but "
                "Overfitting keeps it in eval mode: leave train() calls to Lightning, or call it "
                "in on_train_epoch_start"
            )

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        self._eval_mode.drop_gradients()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._active and self._reached is None and (trainer.current_epoch + 1) % self.every == 0:
            value = self._value(trainer, pl_module, "train")
            self._latest = (trainer.global_step, value)
            pl_module.log(f"compress/overfitting/{self.monitor}", value, sync_dist=False)
            self._judge(trainer, value, trainer.current_epoch + 1)

    @override
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._active:
            self._measure(trainer, pl_module, "overfitted")
            self._active = False
            self._release()
            reload_training_data(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._active:
            self._measure(trainer, pl_module, "overfitted")
            if self._reached is None:
                rank_zero_warn(
                    f"Overfitting: {self.steps[-1].train:.5f} of the training data are classified "
                    f"correctly after {counted(trainer.current_epoch, 'epoch')}, not "
                    f"{self.threshold}: raise max_epochs or the learning rate"
                )
        self._release()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._told or not self.steps:
            return  # nothing was trained
        if any(pruner.history for pruner in pruning_callbacks(trainer)):
            self._measure(trainer, pl_module, "pruned")
        if trainer.is_global_zero:
            print("\n" + gap_table(self.steps, self.monitor) + "\n")
            self._log(trainer)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._release()

    # --- the phase -------------------------------------------------------------------------------

    def _release(self) -> None:
        self._eval_mode.release()
        self._augmentation.switch_on()

    def _check_randomness(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the forward is still random in training: layer types do not show all dropout."""
        try:
            with isolate_rng():
                name = on_rank_zero(trainer, lambda: _still_random(trainer, pl_module, self.hold))
        except InvalidArgumentError as error:
            rank_zero_info(f"Overfitting: the forward was not checked for other dropout: {error}")
            return
        if name is not None:
            rank_zero_warn(
                f"Overfitting: {name or type(pl_module).__name__} is still random in training, "
                "although dropout and batch norms are in eval mode: if it calls dropout as a "
                "function, name it in hold"
            )

    def _judge(self, trainer: Trainer, value: float, epoch: int) -> None:
        """End the phase if the threshold is reached: start pruning, or stop the run."""
        if value < self.threshold - ROUNDING:
            return
        self._reached = epoch
        rank_zero_info(
            f"Overfitting: after {counted(epoch, 'epoch')} {self.monitor} is {value:.5f} on the "
            "training data"
        )
        found = pruning_callbacks(trainer)
        early = min((pruner.first_epoch - pruner.earliest(epoch) for pruner in found), default=0)
        for pruner in found:
            pruner.move_earlier(max(0, early))
        if not found:
            trainer.should_stop = True

    # --- measuring -------------------------------------------------------------------------------

    def _measure(self, trainer: Trainer, pl_module: LightningModule, step: str) -> None:
        if self._latest[0] == trainer.global_step:
            train = self._latest[1]
        else:
            train = self._value(trainer, pl_module, "train")
        val = self._value(trainer, pl_module, "val") if validation_loaders(trainer) else None
        # A run that is resumed after its end measures its last step again.
        self.steps = [known for known in self.steps if known.step != step]
        self.steps.append(StepAccuracy(step, trainer.current_epoch, train, val))

    def _value(self, trainer: Trainer, pl_module: LightningModule, split: str) -> float:
        doing = f"it measures {self.monitor} on the {split} data"
        return on_rank_zero(trainer, lambda: self._validated(trainer, pl_module, split), doing)

    def _validated(self, trainer: Trainer, pl_module: LightningModule, split: str) -> float:
        task = Task() if split == "val" else Task(whole_training_data, _limit(trainer))
        loaders, copy = task.source(trainer), clone(trainer, pl_module)
        metrics = validate_shared(trainer, copy, loaders, task).metrics
        check_monitor(self.monitor, metrics)
        value = metrics[self.monitor]
        if not isfinite(value) or not 0 <= value <= 1:
            raise InvalidArgumentError(
                f"monitor {self.monitor!r} is {value:g} on the {split} data: Overfitting needs an "
                "accuracy, in [0, 1]"
            )
        return value

    def _log(self, trainer: Trainer) -> None:
        scalars = {f"compress/{s.step}/train_{self.monitor}": s.train for s in self.steps}
        gaps = {f"compress/{s.step}/gap_{self.monitor}": s.gap for s in self.steps}
        scalars |= {tag: gap for tag, gap in gaps.items() if gap is not None}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):  # a chart of one dot says nothing
                text = gap_table(self.steps, self.monitor).replace("\n", "\n    ")
                tag = "compress/overfitting"
                logger.experiment.add_text(tag, "    " + text, trainer.global_step)
            else:
                logger.log_metrics(scalars, step=trainer.global_step)


def whole_training_data(trainer: Trainer) -> list[Any]:
    """Return the loader of all training data of a run, in order and without augmentation.

    Args:
        trainer: The run, which has the callback.
    """
    callback = callbacks_of_type(trainer, Overfitting)[0]
    with callback._augmentation.off(trainer):
        return [whole(loader) for loader in training_loaders(trainer)]


def _limit(trainer: Trainer) -> int | float:
    """Return how many training batches to measure: all, unless the run itself uses only some."""
    if is_fast_dev_run(trainer):
        return 1
    return trainer.limit_train_batches if overfit_batches(trainer) else 1.0


def _still_random(trainer: Trainer, pl_module: LightningModule, hold: Sequence[str]) -> str | None:
    """Return the name of a module that is still random in training, by a forward on a copy."""
    example = find_example_inputs(trainer, pl_module, None)
    copy = clone(trainer, pl_module)
    # The example may be all zeros, which hide dropout.
    inputs = tree_map(
        lambda v: torch.rand(v.shape) if torch.is_tensor(v) and v.is_floating_point() else v,
        move_data_to_device(example.inputs, torch.device("cpu")),
    )
    with torch.compiler.set_stance("force_eager"):
        return still_random(copy, named_module(copy, example.submodule), inputs, hold)
