"""All questions about a run, in the order in which a fit would meet their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    StochasticWeightAveraging,
)

from lit_compress.callbacks import Overfitting, PostTrainingQuantization
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._pruning.pruned_checkpoints import PrunedCheckpoints
from lit_compress.callbacks._run.supported import check_module
from lit_compress.doctor import data, layers, machine, plan, steps, weights
from lit_compress.doctor.finding import Answer, Diagnosis, Finding, fine
from lit_compress.doctor.interview import Interview, with_own_warnings
from lit_compress.doctor.rehearsal import Rehearsal, _Probe, stop, unattached
from lit_compress.doctor.versions import check_versions
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import training_loaders, validation_loaders
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks, callbacks_of_type

#: The questions that every run is asked, in their order; those about callbacks come last.
QUESTIONS = (
    "versions",
    "folder",
    "disk space",
    "processor",
    "set-up",
    "training data",
    "validation data",
    "labels",
    "training step",
    "validation step",
    "calibration data",
    "weights",
    "dead channels",
    "batch norms",
    "tied weights",
    "frozen weights",
    "optimizer",
    "schedule",
    "early stopping",
    "monitors",
    "channels",
    "export",
    "int8 layers",
)
#: Callbacks of Lightning that only check or freeze at the start of a fit.
OF_LIGHTNING = (
    BaseFinetuning,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
#: Hooks of a callback that the start of a fit calls.
STARTS = ("setup", "on_fit_start", "on_train_start")
#: Where a fit can end before the training, and what to do about it.
SET_UP = "fix prepare_data, setup, configure_model, configure_optimizers, or the checkpoint"


def diagnose(
    trainer: Trainer,
    model: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    ckpt_path: str | None = None,
    weights_only: bool | None = None,
) -> Diagnosis:
    """Ask all that can be known about a fit before it is started.

    The fit is started on copies of the Trainer, its callbacks and the module, up to the training.
    Nothing is trained; the module, the Trainer, its callbacks, the random state and the files of
    the run stay as they are. The datamodule is set up as for a fit, and data that it downloads in
    ``prepare_data`` are downloaded.

    Args:
        trainer: Any Trainer of Lightning, with its callbacks.
        model: Any LightningModule.
        train_dataloaders: Training loaders; not needed with a datamodule.
        val_dataloaders: Validation loaders; not needed with a datamodule.
        datamodule: Any LightningDataModule.
        ckpt_path: Checkpoint that the fit would go on from.
        weights_only: As in Lightning's ``fit``.

    Returns:
        One answer for each question.

    Raises:
        InvalidArgumentError: If the module is of another package than the Trainer, or the Trainer
            has several processes.

    Example:
        >>> import lightning as L
        >>> from torch import nn
        >>> from lit_compress.datamodules import DigitsDataModule
        >>> from lit_compress.modules import ImageClassifier
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 9))
        >>> trainer = L.Trainer(accelerator="cpu", max_epochs=1, logger=False)
        >>> found = diagnose(trainer, ImageClassifier(net, 1), datamodule=DigitsDataModule())
        >>> [one.question for one in found.errors]  # ten digits, and nine outputs
        ['labels']
    """
    check_module(model)
    if trainer.world_size > 1:
        raise InvalidArgumentError(
            f"doctor runs in one process, but the Trainer has {trainer.world_size}: set "
            "trainer.devices to 1 for it"
        )
    loaders = {"train_dataloaders": train_dataloaders, "val_dataloaders": val_dataloaders}
    given = [datamodule, *loaders.values()]
    examination = _Examination(Rehearsal(trainer, model, given, _is_hooked))
    with unattached(datamodule):
        examination.run(
            trainer,
            model,
            **loaders,
            datamodule=datamodule,
            ckpt_path=ckpt_path,
            weights_only=weights_only,
        )
    return examination.diagnosis()


class _Examination:
    """One rehearsal of a run, and the questions that are asked at its stages."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        self.interview = Interview()
        self.trained = False
        self.training = data.Split("training data", [])
        self.validation = data.Split("validation data", [])

    def run(self, trainer: Trainer, model: LightningModule, **fit: Any) -> None:
        """Ask all questions."""
        copy, ask = self.rehearsal.trainer, self.interview.ask
        folder = self.rehearsal.folder
        ask("versions", check_versions)
        ask("folder", lambda: machine.check_folder(folder, callbacks(trainer)))
        ask("disk space", lambda: machine.check_space(trainer, model, folder))
        ask("processor", lambda: machine.check_processor(trainer))
        loaded = getattr(self.rehearsal.module.hparams, "init_from", None) is not None
        self.trained = loaded or fit["ckpt_path"] is not None
        self._guard()
        first = _Probe(fit_start=self._ask_of_weights, ready=self._ask_of_data)
        last = _Probe(ready=self._ask_at_the_end)
        raised = self.rehearsal.start(first, last, **fit)
        if raised is not None:
            ask("set-up", partial(_raise, raised), remedy=SET_UP)
        elif not self.interview.asked("export"):
            self._ended_early()
        else:
            ask("set-up", lambda: fine("a fit would start"))
        if not self.interview.asked("weights"):
            self._ask_of_weights(copy, self.rehearsal.module)
        if not self.interview.asked("dead channels"):
            alone = partial(weights.check_dead, self.rehearsal.module, None, self.trained)
            ask("dead channels", alone)
        for question in QUESTIONS:
            if not self.interview.asked(question):
                self.interview.skip(question, "set-up")

    def diagnosis(self) -> Diagnosis:
        """Return all answers, with the names of the true folders."""
        true = self.rehearsal.true_names
        findings = [
            replace(one, found=true(one.found), remedy=true(one.remedy))
            for one in self.interview.diagnosis(QUESTIONS).findings
            # The command line adds it to each run, so it is said only if it fails.
            if one.question != PrunedCheckpoints.__name__ or one.verdict != "fine"
        ]
        return Diagnosis(tuple(findings))

    # --- callbacks -------------------------------------------------------------------------------

    def _guard(self) -> None:
        """Let an error of a callback be its answer, and not the end of the rehearsal."""
        guarded = {id(callback) for callback in self.rehearsal.hooked}
        for callback in self.rehearsal.hooked:
            self._guard_one(callback, guarded)

    def _guard_one(self, callback: Callback, guarded: set[int]) -> None:
        for hook in STARTS:
            if isinstance(callback, Overfitting) and hook != "setup":
                vars(callback)[hook] = _nothing  # it would measure all of the training data
                continue
            called = getattr(callback, hook)

            def guard(
                trainer: Trainer,
                module: LightningModule,
                *args: Any,
                called: Callable[..., Any] = called,
                hook: str = hook,
                **kwargs: Any,
            ) -> None:
                self._call(callback, hook, partial(called, trainer, module, *args, **kwargs))
                for part in callbacks(trainer):  # a callback may have added others
                    if id(part) not in guarded and isinstance(part, Callback):
                        guarded.add(id(part))
                        if _is_hooked(part) and not isinstance(part, _Probe):
                            self._guard_one(part, guarded)

            vars(callback)[hook] = guard

    def _call(self, callback: Callback, hook: str, called: Callable[[], Any]) -> None:
        name = _name(callback)
        needs = [name, "weights", "training step", "validation step", "calibration data"]
        needs = needs if hook == "on_train_start" else needs[:1]
        if (cause := self.interview.failed(needs)) is not None:
            if cause != name:
                self.interview.skip(name, cause)
            return
        otherwise = "it starts without an error"
        self.interview.ask(name, lambda: with_own_warnings(called, otherwise))

    # --- stages ----------------------------------------------------------------------------------

    def _ask_of_weights(self, trainer: Trainer, module: LightningModule) -> None:
        ask, pruners = self.interview.ask, pruning_callbacks(trainer)
        ask("weights", lambda: weights.check_finite(module))
        ask("batch norms", lambda: weights.check_norms(module, self.trained))
        ask("tied weights", lambda: weights.check_tied(module, pruners))
        ask("frozen weights", lambda: weights.check_frozen(trainer, module, pruners))

    def _ask_of_data(self, trainer: Trainer, module: LightningModule) -> None:
        ask, training, validation = self.interview.ask, self.training, self.validation
        training.loaders = training_loaders(trainer)
        validation.loaders = validation_loaders(trainer)
        ask("training data", training.check)
        ask("validation data", validation.check)
        run = steps.Steps(trainer, module)
        splits = [training, validation]
        copy = clone(trainer, module)
        ask("labels", lambda: data.check_labels(splits, copy, run.fails))
        for name, split, check in (
            ("training step", training, run.check_training),
            ("validation step", validation, run.check_validation),
        ):
            needs = [split.name, "labels", "weights"]
            ask(name, partial(check, split), needs, steps.remedy([split]))
        first = next((t for s in splits if s.first for _, t in data.tensors_of(s.first[0])), None)
        ask("dead channels", lambda: weights.check_dead(copy, first, self.trained))
        converters = callbacks_of_type(trainer, PostTrainingQuantization)
        needs = ["validation step", "training step"]
        ask("calibration data", lambda: _calibration(trainer, module, converters), needs)
        ask("optimizer", lambda: plan.check_optimizer(trainer, module))
        ask("schedule", lambda: plan.check_length(trainer), self._pruners(trainer))
        ask("early stopping", lambda: plan.check_early_stopping(trainer), self._pruners(trainer))
        ask(
            "monitors",
            lambda: plan.check_monitors(trainer, module, run.keys, run.higher_is_better),
            ["training step", "validation step"],
        )

    def _ask_at_the_end(self, trainer: Trainer, module: LightningModule) -> None:
        ask, needs = self.interview.ask, ["weights", "training step", "validation step"]
        pruners = [one for one in pruning_callbacks(trainer) if isinstance(one, ChannelPruning)]
        channels = partial(layers.check_channels, trainer, module, pruners)
        if not pruners:
            channels = partial(layers.if_settled, module, channels)
        ask("channels", channels, [*needs, *map(_name, pruners)])
        converters = callbacks_of_type(trainer, PostTrainingQuantization)
        if converters:
            needs = [*needs, *map(_name, converters)]
            ask("export", lambda: fine("a trial conversion wrote and ran int8 files"), needs)
            ask("int8 layers", lambda: layers.check_int8(converters), needs)
        else:
            export = partial(layers.check_export, trainer, module)
            ask("export", lambda: layers.if_settled(module, export), needs)
            ask("int8 layers", lambda: fine("nothing is converted to int8"))
        stop()

    def _ended_early(self) -> None:
        """Say why a fit trains nothing, though nothing failed: there is no batch."""
        loaders = training_loaders(self.rehearsal.trainer)
        self.training.loaders = loaders
        self.interview.ask("training data", self.training.check)
        if self.interview.failed(["training data"]) is None:
            remedy = "give training data, and limit_train_batches and max_epochs above 0"
            self.interview.record(Finding("set-up", "error", "a fit would train nothing", remedy))
            return
        for question in (*QUESTIONS, *map(_name, self.rehearsal.hooked)):
            if not self.interview.asked(question):
                self.interview.skip(question, "training data")

    def _pruners(self, trainer: Trainer) -> list[str]:
        return [_name(pruner) for pruner in pruning_callbacks(trainer)]


def _calibration(
    trainer: Trainer, module: LightningModule, converters: list[PostTrainingQuantization]
) -> list[Answer]:
    if not converters:
        return [fine("nothing is calibrated")]
    return data.check_calibration(trainer, module, converters)


def _is_hooked(callback: Callback) -> bool:
    """Tell whether the hooks of a callback are called: they check, and write nothing."""
    ours = any(base.__module__.startswith("lit_compress.") for base in type(callback).__mro__)
    return ours or isinstance(callback, OF_LIGHTNING)


def _name(callback: Callback) -> str:
    return type(callback).__name__


def _raise(raised: Exception) -> Answer:
    raise raised


def _nothing(*_: Any, **__: Any) -> None:
    pass
