"""Post-training quantization at the end of a fit."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from typing_extensions import override

from lit_compress.artifact import OnnxModel, check_target
from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._budget.byte_budget import WritesInt8
from lit_compress.callbacks._budget.contract import Mode
from lit_compress.callbacks._pruning.arguments import one_of
from lit_compress.callbacks._quantization.artifact import ArtifactOf, keep_weights, write_artifact
from lit_compress.callbacks._quantization.best_weights import check_best, load_best
from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.fake_forward import FakeForward, Place
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.callbacks._quantization.trial import few_batches, tried_file, try_conversion
from lit_compress.callbacks._report.variants import unpruned_shapes
from lit_compress.callbacks._run.earlier import AddsToCard, is_complete
from lit_compress.callbacks._run.resuming import name_checkpoint
from lit_compress.callbacks._run.supported import check_run
from lit_compress.callbacks._run.watching import WatchesValidation
from lit_compress.checkpoints.folder import artifact_dir, is_artifact, release
from lit_compress.checkpoints.loading_line import artifact_line
from lit_compress.errors import InvalidArgumentError, LitCompressError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import check_monitor
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import callbacks_of_type, is_fast_dev_run
from lit_compress.formats import check_installed
from lit_compress.pruning.channels.unpruned import UnprunedShapes
from lit_compress.quantization.calibrate import Calibration, Rounding
from lit_compress.quantization.training.ranges import Ranges
from lit_compress.runtimes import Format


class PostTrainingQuantization(WatchesValidation, WritesInt8):
    """Converts the trained network to a checked int8 ONNX file, at the end of the fit.

    Works on a copy: the LightningModule and its checkpoints do not change. The folder holds
    ``model.onnx`` (int8 weights per channel, uint8 activations), ``model.safetensors`` (the float
    weights), ``replay.npz`` (inputs and outputs to check other machines with) and ``card.json``
    (the measurements). The folder is written whole or not at all.

    Args:
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``. It is measured on the
            float network and on the file. Default: only the outputs are compared.
        weights: Convert the ``last`` weights, or those of the ``best`` checkpoint that
            ModelCheckpoint kept since the pruning target was reached.
        dirpath: The artefact folder. Default: ``artifact`` in the run's folder,
            where its checkpoints are too; a further run in that folder makes ``artifact-v1``.
        submodule: Name of the module to export, such as ``model``. Default: the LightningModule's
            own forward.
        max_drop: How much of ``monitor`` the file may lose, such as 0.01. Layers stay in float, the
            one with the largest error first, until the written file keeps the metric. With
            ``max_drop`` of a pruning callback, both together are what the file may lose of the
            dense network.
        on_drop: What to do if no file keeps it: stop with an ``error`` and write nothing, or
            ``warn`` and write the file with the smallest drop.
        mode: Whether more of ``monitor`` is better (``max``) or less (``min``); ``auto`` tells it
            by the name or by the torchmetrics object that is logged, and otherwise asks.
        skip: Layers that stay in float: ``first``, ``last``, and globs of the names on the card.
        calibration_batches: Number of random batches from which the ranges of activations are
            computed, at most ``limit_val_batches``. Small networks need some thousand images.
        calibration_split: Data from which the batches are drawn: ``val`` or ``train``.
        calibration: ``minmax`` takes the whole observed range; ``histogram`` minimises the error of
            most inputs, at the cost of those with outliers; ``percentile`` cuts 0.005 % at each
            end.
        weight_range: ``full``, or ``reduced`` for processors without VNNI, whose sums overflow.
        rounding: ``nearest`` rounds each weight to its nearest number. ``learned`` rounds the
            weights of a layer so that its outputs on the calibration batches change least (Nagel et
            al. 2020), where that brings the outputs of the network nearer to those in float.
        seed: Random seed of the batches.
        preprocess: ``embed`` puts the normalisation of the images into the file, which then takes
            raw uint8 pixels, if it is known: given by ``mean`` and ``std``, offered by the
            datamodule, or found as the ``Normalize`` in the torchvision transform of the validation
            data. It is checked on recorded inputs. ``none`` does not.
        opset: ONNX opset of the file, 18 to 23. Default: torch's own.
        mean: Mean of each channel, of pixels scaled to [0, 1], that the data are normalised with.
        std: Standard deviation of each channel, likewise.
        classes: Names of the classes, in the order of the labels, for the file. Default: those that
            the datamodule offers as ``classes``.
        formats: Formats of the network besides ``onnx``: ``executorch`` (a ``.pte`` file with
            XNNPACK kernels), ``litert`` (a ``.tflite`` file), ``openvino`` (an ``.xml`` and a
            ``.bin`` file). All have the scales and zero points of the ONNX file. Each needs an
            extra of the same name: ``pip install 'lit-compress[litert]'``.
        batch_sizes: Batch sizes for which there is a file of ExecuTorch and LiteRT, which take one
            each: ``model-b1.pte``.

    Example:
        >>> from lit_compress.callbacks import PostTrainingQuantization
        >>> callback = PostTrainingQuantization(monitor="val_acc", max_drop=0.01)
        >>> callback.monitor
        'val_acc'
    """

    #: The file, open since it was measured, until the run ends; None otherwise.
    opened: OnnxModel | None = None

    def __init__(
        self,
        monitor: str | None = None,
        weights: Literal["last", "best"] = "last",
        dirpath: str | None = None,
        submodule: str | None = None,
        max_drop: float | None = None,
        on_drop: Literal["error", "warn"] = "error",
        mode: Mode = "auto",
        skip: Sequence[str] = (),
        calibration_batches: int = 10,
        calibration_split: Literal["val", "train"] = "val",
        calibration: Calibration = "minmax",
        weight_range: Literal["full", "reduced"] = "full",
        rounding: Rounding = "nearest",
        seed: int = 0,
        preprocess: Literal["embed", "none"] = "embed",
        opset: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] = (),
        formats: Sequence[Format] = ("onnx",),
        batch_sizes: Sequence[int] = (1,),
    ) -> None:
        one_of("weights", weights, ("last", "best"))
        self.settings = Settings(
            monitor=monitor,
            mode=mode,
            max_drop=max_drop,
            on_drop=on_drop,
            submodule=submodule,
            skip=(skip,) if isinstance(skip, str) else tuple(skip),
            calibration_batches=calibration_batches,
            calibration_split=calibration_split,
            calibration=calibration,
            weight_range=weight_range,
            rounding=rounding,
            seed=seed,
            preprocess=preprocess,
            opset=opset,
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
            classes=tuple(classes),
            formats=tuple(formats),
            batch_sizes=tuple(batch_sizes),
        )
        self.weights, self.dirpath = weights, dirpath
        #: The artefact folder; None until it is written.
        self.path: Path | None = None
        #: Whether the last fit wrote the artefact; a fit that trains nothing keeps the old one.
        self.written = False
        self._earlier: Path | None = None
        self._converted, self._target = weights, Path()
        self._checked_monitor = self._trained = self._told = False
        #: The ranges that the network was trained with; None if it was not.
        self._ranges: Ranges | None = None
        #: The weights that stay float, as the trial before the training found them; None before.
        self.tried: tuple[FloatWeight, ...] | None = None
        #: What the file does with its input before the network; None until there is a file.
        self.preprocess: nn.Module | None = None

    @property
    def monitor(self) -> str | None:
        """Key of the metric."""
        return self.settings.monitor

    @property
    def submodule(self) -> str | None:
        """Name of the module to export."""
        return self.settings.submodule

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, for the card."""
        settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.settings).items()
        }
        return {**settings, "weights": self.weights}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        name_checkpoint(trainer)
        check_installed(self.settings.formats)
        self._earlier, self.path = self.path, None
        self.last_validation.forget()
        self._checked_monitor = self._trained = self._told = self.written = False
        if self.weights == "best":
            check_best(trainer, pl_module)
        self._target = artifact_dir(trainer, self.dirpath)
        for other in callbacks_of_type(trainer, PostTrainingQuantization):
            if other is not self and artifact_dir(trainer, other.dirpath) == self._target:
                raise InvalidArgumentError(
                    f"two PostTrainingQuantization callbacks would write {self._target}: give each "
                    "a dirpath of its own"
                )
        if trainer.is_global_zero and not is_fast_dev_run(trainer):
            check_target(self._target)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert the untrained network on a few batches, so that errors come before training."""
        on_rank_zero(
            trainer,
            lambda: self._dry_run(trainer, pl_module),
            "it tries the conversion to int8 on a few batches",
        )

    @override
    def watches(self, trainer: Trainer) -> bool:
        # Outside a fit the metric to measure is named after the validation, see quantize().
        return self.monitor is not None or trainer.state.fn != TrainerFn.FITTING

    @override
    def watched_part(self, trainer: Trainer) -> str | None:
        return self.submodule

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        # In the sanity check a module that names its metrics by the stage has other names.
        if trainer.sanity_checking or self._checked_monitor:
            return
        if self.monitor is not None and trainer.callback_metrics:
            check_monitor(self.monitor, trainer.callback_metrics)
            self._checked_monitor = True

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._trained = True

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path, self.written = on_rank_zero(
            trainer,
            lambda: self._finish(trainer, pl_module),
            "it converts the network to int8, and writes the artefact",
        )

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self.opened = None
        release(trainer)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.opened = None
        if stage == "fit":
            release(trainer)

    def quantize(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        before: UnprunedShapes | None = None,
        settings: Mapping[str, Any] | None = None,
        dirpath: str | None = None,
        pruning: Sequence[dict[str, Any]] = (),
        ranges: dict[str, Any] | None = None,
    ) -> Path:
        """Convert a trained module, and return the artefact folder.

        Args:
            trainer: A Trainer that has validated the module; its data are used.
            pl_module: The module.
            before: Shapes of the network before it was pruned, if it was.
            settings: Constructor arguments to replace for this call.
            dirpath: The artefact folder. Default: that of the constructor.
            pruning: For the card, what pruning callbacks have reached.
            ranges: State of the ranges that the module was trained with, if it was.
        """
        if not self.is_trained_with_ranges(pl_module) or ranges is not None:
            self._ranges = None if ranges is None else Ranges.of_state(ranges)
        given = replace(self.settings, **(settings or {}))
        check_installed(given.formats)
        target = artifact_dir(trainer, dirpath or self.dirpath)
        check_target(target)
        configured, self.settings, self._converted = self.settings, given, "last"
        try:
            if self.monitor is not None:
                check_monitor(self.monitor, trainer.callback_metrics)
            with isolate_rng():
                copy = clone(trainer, pl_module)
                self._write(trainer, copy, target, before, None, pruning)
        finally:
            self.settings, self.opened = configured, None
            release(trainer)
        self.path = target
        return target

    def is_trained_with_ranges(self, pl_module: LightningModule) -> bool:
        """Tell whether a module is the one that was trained with the ranges of this callback."""
        return False

    @override
    def int8_file(self, trainer: Trainer, copy: LightningModule) -> bytes:
        return tried_file(trainer, copy, self.settings)

    def _dry_run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do all that the end of the fit does, on a few batches and without an artefact."""
        start, batches = time.monotonic(), few_batches(self.settings)
        with isolate_rng():
            self.tried = try_conversion(trainer, clone(trainer, pl_module), self.settings)
        gc.collect()  # graphs refer to themselves: the training would run next to their weights
        measured = self._measurable(trainer)
        more = f", and to measure {measured} on all of the validation data" if measured else ""
        rank_zero_info(
            f"{type(self).__name__}: tried the conversion to int8 on {batches} batches; after "
            f"the last epoch it takes about {time.monotonic() - start:.0f} s{more}"
        )

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Path | None, bool]:
        """Write the artefact, and return its folder, and whether it was written now."""
        if not self._trained and self._is_complete(trainer, pl_module):
            rank_zero_info(f"nothing was trained: the artefact {self._target} stays as it is")
            return self._earlier, False
        copy, before = clone(trainer, pl_module), unpruned_shapes(trainer)
        if is_fast_dev_run(trainer):
            with tempfile.TemporaryDirectory() as folder:
                self._convert(trainer, copy, Path(folder) / "artifact", before)
            rank_zero_info("fast_dev_run: the int8 artefact was written, checked and deleted")
            return None, False
        try:
            self._convert(trainer, copy, self._target, before)
        except LitCompressError as error:
            raise type(error)(f"{error}. {keep_weights(self._target, copy, before)}") from error
        except (Exception, KeyboardInterrupt):  # the training must not be lost; it is raised again
            rank_zero_warn(keep_weights(self._target, copy, before))
            raise
        said = artifact_line(copy, self._target)
        rank_zero_info(f"int8 artefact written to {self._target}; {said}")
        return self._target, True

    def _is_complete(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Tell whether the artefact is that of the weights which would be converted now."""
        if not is_artifact(self._target):
            return False
        copy = clone(trainer, pl_module)
        if self.weights == "best":
            load_best(trainer, copy)
        return is_complete(self._target, copy, callbacks_of_type(trainer, AddsToCard))

    def _convert(
        self, trainer: Trainer, copy: LightningModule, target: Path, before: UnprunedShapes | None
    ) -> None:
        """Write the artefact of the last weights, or of the best ones."""
        best = load_best(trainer, copy) if self.weights == "best" else None
        self._converted = "last" if best is None else "best"
        epoch = trainer.current_epoch if best is None else best
        with isolate_rng():
            self._write(trainer, copy, target, before, epoch)

    def _network(
        self, trainer: Trainer, copy: LightningModule, settings: Settings | None = None
    ) -> ExportTarget:
        """Return where the network is in a copy of the user's module."""
        return (settings or self.settings).network(trainer, copy)

    def _conversion(
        self, trainer: Trainer, copy: LightningModule, network: ExportTarget
    ) -> Conversion:
        """Return the conversion of the trained network, with the ranges it was trained with."""
        if self._ranges is None:
            return Conversion(trainer, copy, network, self.settings)
        fake = FakeForward(copy, Place.of(network), self._ranges, self.settings)
        return Conversion(trainer, copy, network, self.settings, self._ranges, fake.outputs)

    def _write(
        self,
        trainer: Trainer,
        copy: LightningModule,
        target: Path,
        before: UnprunedShapes | None,
        epoch: int | None,
        pruning: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        monitor = self._measurable(trainer)
        logged = self.last_validation.metrics(trainer, copy, monitor)
        network = self._network(trainer, copy)
        conversion = self._conversion(trainer, copy, network)
        arguments = {**self.arguments(), "weights": self._converted}
        what = ArtifactOf(before, epoch, monitor, arguments, pruning, logged.get(network.path))
        write_artifact(target, conversion, what)
        self.preprocess, self.opened = conversion.pixels.preprocess, conversion.model

    def _measurable(self, trainer: Trainer) -> str | None:
        """Return the key of the metric, if there is validation data; else say so, once."""
        if validation_loaders(trainer):
            return self.monitor
        no_data = "the fit has no validation data, so training batches calibrate the file"
        if self.monitor is None:
            rank_zero_info(f"{type(self).__name__}: {no_data}")
            return None
        if self.settings.max_drop is not None:
            raise InvalidArgumentError(
                f"max_drop needs validation data to measure {self.monitor} on, and the fit has none"
            )
        if not self._told:
            rank_zero_warn(f"{self.monitor} is not measured: {no_data}")
        self._told = True
        return None
