"""The recommended recipe in one callback: distillation, filters, int8, and a report."""

from __future__ import annotations

from typing import Any, Literal, get_args
from weakref import ref

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Mode
from lit_compress.callbacks._pruning.arguments import check_counts, one_of
from lit_compress.callbacks._pruning.base import AddsPruning, pruning_callbacks
from lit_compress.callbacks._quantization.span import Span
from lit_compress.callbacks._run.supported import check_run
from lit_compress.callbacks.filter_pruning import FilterPruning
from lit_compress.callbacks.knowledge_distillation import KnowledgeDistillation
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.callbacks.quantization_aware_training import QuantizationAwareTraining
from lit_compress.callbacks.report import CompressionReport
from lit_compress.errors import InvalidArgumentError, ScheduleError
from lit_compress.evaluation.trainer_access import callbacks, callbacks_of_type, is_fast_dev_run
from lit_compress.pruning import Schedule
from lit_compress.pruning.schedule import Shape

Int8 = Literal["auto", "after", "aware"]
#: Share of the epochs after the dense training in which filters are removed.
PRUNING = 0.3
#: Share of the epochs that are left after that in which the network trains as its file computes.
AWARE = 0.3
#: With fewer epochs than these after the last pruning step int8 comes after the training.
FEW_EPOCHS = 3
#: Share of ``max_drop`` that pruning may take; what it leaves is for int8.
OF_PRUNING = 0.75


class Compress(AddsPruning):
    """Compresses any classifier with the recommended recipe: one callback in place of five.

    It puts the callbacks of the recipe into the Trainer, directly behind itself:

    1. the dense network trains for a while, unless it is trained already (``dense_epochs``);
    2. ``FilterPruning`` removes filters in steps, while ``KnowledgeDistillation`` pulls the
       network towards the dense one;
    3. ``QuantizationAwareTraining`` trains the last epochs as the int8 file computes, or, in short
       runs, ``PostTrainingQuantization`` converts the network afterwards;
    4. ``CompressionReport`` measures what was reached.

    Callbacks of these kinds that the Trainer has already are used in their place, but for pruning
    callbacks.

    Args:
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``.
        target: Share of the parameters to remove, in [0, 1). Default: 0.7, without ``file_bytes``.
        file_bytes: Largest size of the int8 file, in the place of ``target``.
        max_drop: How much of ``monitor`` the int8 file may lose of the dense network, such as 0.01.
            Where it and the target exclude each other, the target gives way. Default: any.
        dense_epochs: Epochs in which the dense network trains before pruning begins; 0 for a
            network that is trained already (``init_from``). Default: a third of the epochs.
        int8: ``aware`` trains the last epochs as the file computes, ``after`` converts after the
            training, ``auto`` takes ``aware`` where epochs are left for it.
        distill: Whether the network learns from the dense one while it is pruned.
        round_to: Layers keep multiples of this many filters; runtimes are faster with 4 or 8, and
            small layers miss the target with them.
        mode: Whether more of ``monitor`` is better (``max``) or less (``min``); ``auto`` tells it
            by the name or by the torchmetrics object that is logged, and otherwise asks.
        baseline: Checkpoint of the dense network, trained on its own for as long, that the report
            and ``max_drop`` compare with. Default: the network just before it is pruned.
        dirpath: The artefact folder. Default: ``artifact`` in the run's folder.
        submodule: Name of the module to compress. Default: the LightningModule's own forward.

    Example:
        >>> from lit_compress.callbacks import Compress
        >>> callback = Compress(monitor="val_acc", target=0.7, max_drop=0.01)
    """

    def __init__(
        self,
        monitor: str,
        target: float | None = None,
        file_bytes: int | None = None,
        max_drop: float | None = None,
        dense_epochs: int | None = None,
        int8: Int8 = "auto",
        distill: bool = True,
        round_to: int = 1,
        mode: Mode = "auto",
        baseline: str | None = None,
        dirpath: str | None = None,
        submodule: str | None = None,
    ) -> None:
        if target is not None and file_bytes is not None:
            raise InvalidArgumentError(
                "target and file_bytes both say how small the network becomes: give one of them"
            )
        one_of("int8", int8, get_args(Int8))
        if dense_epochs is not None:
            check_counts(dense_epochs=(dense_epochs, 0))
        self.monitor = monitor
        self.target = 0.7 if target is None and file_bytes is None else target
        self.file_bytes = file_bytes
        self.max_drop = max_drop
        self.dense_epochs = dense_epochs
        self.int8 = int8
        self.distill, self.round_to = distill, round_to
        self.mode = mode
        self.baseline = baseline
        self.dirpath = dirpath
        self.submodule = submodule
        #: The callbacks of the recipe, once a run has begun.
        self.parts: tuple[Callback, ...] = ()
        self._planned: int | None = None
        self._module: ref[LightningModule] | None = None
        self._pruner(Schedule())  # what is wrong with the arguments is said at once
        self._quantizer(None)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the callbacks of the recipe into the Trainer, where they are called next."""
        check_run(self, trainer, stage)
        own = callbacks(trainer)
        there = bool(self.parts) and all(part in own for part in self.parts)
        plans = stage == "fit" and trainer.max_epochs != self._planned
        if there and not plans:
            return
        if there:  # for a checkpoint alone, or for another number of epochs
            own[:] = [one for one in own if one not in self.parts]
        self._check(trainer)
        again = self._module is not None and self._module() is pl_module
        if self.parts and again and self._planned is not None:
            self._plan_again(trainer, stage)  # the parts know what they have done to the module
        else:
            self.parts = tuple(self._recipe(trainer, stage))
        self._planned = trainer.max_epochs if stage == "fit" else self._planned
        self._module = ref(pl_module)
        place = next(at for at, one in enumerate(own) if one is self) + 1
        # Callback hooks run over this very list, so the setup of the parts follows.
        own[place:place] = list(self.parts)

    def _plan_again(self, trainer: Trainer, stage: str) -> None:
        if stage != "fit":
            return
        schedule, aware = self._schedule(trainer)
        for part in self.parts:
            if isinstance(part, FilterPruning):
                part.schedule = schedule
            if isinstance(part, QuantizationAwareTraining):
                part.span = Span(first=aware)

    def _check(self, trainer: Trainer) -> None:
        if len(callbacks_of_type(trainer, Compress)) > 1:
            raise InvalidArgumentError("a Trainer takes one Compress: remove the others")
        others = [type(one).__name__ for one in pruning_callbacks(trainer)]
        if others:
            raise InvalidArgumentError(
                f"Compress prunes by itself, and the Trainer has {others[0]} too: remove one of "
                "them"
            )
        for quantizer in callbacks_of_type(trainer, PostTrainingQuantization):
            if self.dirpath is not None or (
                self.max_drop is not None and quantizer.settings.max_drop is None
            ):
                name = "dirpath" if self.dirpath is not None else "max_drop"
                raise InvalidArgumentError(
                    f"Compress has {name}, and the {type(quantizer).__name__} of the Trainer is "
                    "used in the place of its own: give it there, or remove that callback"
                )
        if self.baseline is not None and callbacks_of_type(trainer, CompressionReport):
            raise InvalidArgumentError(
                "Compress has baseline, and the CompressionReport of the Trainer is used in the "
                "place of its own: give it there, or remove that callback"
            )

    def _recipe(self, trainer: Trainer, stage: str) -> list[Callback]:
        schedule, aware = self._schedule(trainer) if stage == "fit" else (Schedule(), None)
        parts: list[Callback] = [self._pruner(schedule)]
        if self.distill and not callbacks_of_type(trainer, KnowledgeDistillation):
            parts.append(KnowledgeDistillation(submodule=self.submodule))
        if not callbacks_of_type(trainer, PostTrainingQuantization):
            parts.append(self._quantizer(aware))
        if not callbacks_of_type(trainer, CompressionReport):
            parts.append(CompressionReport(self.monitor, baseline=self.baseline))
        if stage == "fit":
            rank_zero_info(f"Compress: {_described(schedule, aware, parts)}")
        return parts

    def _pruner(self, schedule: Schedule) -> FilterPruning:
        in_bytes = self.file_bytes is not None
        return FilterPruning(
            float(self.file_bytes if in_bytes else self.target or 0),  # type: ignore[arg-type]
            of="bytes" if in_bytes else "parameters",
            schedule=schedule,
            round_to=self.round_to,
            submodule=self.submodule,
            monitor=self.monitor,
            max_drop=None if self.max_drop is None else OF_PRUNING * self.max_drop,
            mode=self.mode,
        )

    def _quantizer(self, aware: int | None) -> PostTrainingQuantization:
        settings: dict[str, Any] = {
            "monitor": self.monitor,
            "max_drop": None if self.max_drop is None else (1 - OF_PRUNING) * self.max_drop,
            "on_drop": "warn",
            "mode": self.mode,
            "dirpath": self.dirpath,
            "submodule": self.submodule,
            "calibration_batches": 32,
        }
        if aware is None:
            return PostTrainingQuantization(**settings)
        return QuantizationAwareTraining(first=aware, may_fail=self.int8 == "auto", **settings)

    def _schedule(self, trainer: Trainer) -> tuple[Schedule, int | None]:
        """Return when to prune, and the epoch from which fake quantisation is on, if it is."""
        if is_fast_dev_run(trainer):
            return Schedule(), None
        epochs = trainer.max_epochs
        if epochs is None or epochs < 0:
            raise ScheduleError("Compress plans the epochs of the run: set trainer.max_epochs")
        first = epochs // 3 if self.dense_epochs is None else self.dense_epochs
        if first > epochs - 2:
            raise ScheduleError(
                f"Compress has {epochs} epochs, and pruning begins at epoch {first}: at least one "
                f"epoch must follow it, so set trainer.max_epochs to {first + 2} or more"
            )
        last = min(first + round(PRUNING * (epochs - first)), epochs - 2)
        left = epochs - last - 1
        aware = epochs - max(1, round(AWARE * left))
        short = self.int8 == "auto" and left < FEW_EPOCHS
        # Small first steps: the network goes back to the last of them that kept the metric.
        shape: Shape = "cubic" if self.max_drop is None else "linear"
        schedule = Schedule(first, last, shape=shape)
        return schedule, None if self.int8 == "after" or short else aware


def _described(schedule: Schedule, aware: int | None, parts: list[Callback]) -> str:
    names = ", ".join(type(part).__name__ for part in parts)
    if schedule.last is None:
        return f"adds {names}"
    dense = f"the dense network trains until epoch {schedule.first}, " if schedule.first else ""
    end = "int8 after the training" if aware is None else f"fake quantisation from epoch {aware}"
    return f"adds {names}: {dense}filters go in epochs {schedule.first} to {schedule.last}, {end}"
