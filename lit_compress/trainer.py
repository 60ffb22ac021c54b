"""Lightning's Trainer with the verbs ``scan``, ``quantize``, ``doctor`` and ``test --artifact``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.artifact import load, read_card
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._quantization.pixels import of_inputs
from lit_compress.callbacks._run.supported import check_module, check_strategy
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.checkpoints.weights import load_weights, recorded_progress, recorded_ranges
from lit_compress.doctor import Diagnosis
from lit_compress.doctor.examination import diagnose
from lit_compress.errors import InvalidArgumentError, ScanError
from lit_compress.evaluation.artifact_forward import artifact_forward, raw_test_data
from lit_compress.evaluation.data_protocols import HasPixels
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.importance import ImportanceName
from lit_compress.report import card_table
from lit_compress.runtimes import Format
from lit_compress.sensitivity.options import LEVELS, Mode, ScanOptions
from lit_compress.sensitivity.result import Scan
from lit_compress.sensitivity.sample import NO_DATA
from lit_compress.sensitivity.scan import scan_network
from lit_compress.sensitivity.targets import Unit


class Trainer(pl.Trainer):
    """Lightning's Trainer with the additional verbs ``scan``, ``quantize`` and ``doctor``.

    ``test`` can measure the int8 file of an artefact, too. All arguments are those of Lightning's
    Trainer.
    """

    def scan(
        self,
        model: LightningModule,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        granularity: Unit = "element",
        levels: Sequence[float] = LEVELS,
        tolerance: float = 0.01,
        monitor: str | None = None,
        mode: Mode = "auto",
        images: int | None = 1024,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        importance: ImportanceName = "l2",
        curves: bool = True,
        dirpath: str = "scan",
        seed: int = 0,
    ) -> Scan:
        """Find how much of each layer can be pruned, without training, before the metric drops.

        Prunes each layer on its own, and all layers at one ratio, and measures with the model's own
        ``validation_step``. Writes ``rules.yaml`` (for ``RulePruning``), ``scan.csv`` and the
        curves. A stopped scan continues. The model is not changed. With several ``devices`` and the
        strategy ``ddp`` the processes share the layers. See :func:`scan` for more.

        Args:
            model: Any LightningModule.
            dataloaders: Validation loader; not needed with a datamodule.
            datamodule: Any LightningDataModule with validation data.
            ckpt_path: Checkpoint with the weights to scan. Default: the model's own weights.
            granularity: ``element`` prunes single weights, ``filter`` coupled channels,
                ``original`` filters of convolutions and elements of linear layers.
            levels: Ratios to try, in [0, 1].
            tolerance: Largest drop of the metric at which a ratio gets into the rules.
            monitor: Key that ``validation_step`` logs. Default: the first that looks like a metric.
            mode: ``max`` if a larger metric is better, else ``min``; ``auto`` tells by its name.
            images: Number of validation examples, each class in its proportion; null takes all.
            include: Patterns of the layers to try: globs, or ``regex:`` and a regular expression.
            exclude: Patterns of the layers not to try.
            importance: How channels are ranked with ``granularity: filter``.
            curves: Whether to try every level and draw curves, or only find the largest ratios.
            dirpath: Folder of the files.
            seed: Random seed of the validation sample.
        """
        options = ScanOptions(
            granularity=granularity,
            levels=levels,
            tolerance=tolerance,
            monitor=monitor,
            mode=mode,
            images=images,
            include=include,
            exclude=exclude,
            importance=importance,
            curves=curves,
            seed=seed,
        )
        return self._scan(options, dirpath, model, dataloaders, datamodule, ckpt_path=ckpt_path)

    def _scan(
        self,
        options: ScanOptions,
        dirpath: str,
        model: LightningModule,
        dataloaders: Any,
        datamodule: LightningDataModule | None,
        *,
        ckpt_path: str | None,
    ) -> Scan:
        """Load weights and data, scan, and print the result."""
        check_module(model)
        check_strategy("scan", self)
        _refuse(self, model, dataloaders, datamodule)
        with isolate_rng():
            self._set_up(model, dataloaders, datamodule, ckpt_path)
            found = scan_network(self, model, options, Path(dirpath))
        if self.is_global_zero:
            print(found)
        return found

    def quantize(
        self,
        model: LightningModule,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        monitor: str | None = None,
        max_drop: float | None = None,
        opset: int | None = None,
        dirpath: str | None = None,
        formats: Sequence[Format] | None = None,
        batch_sizes: Sequence[int] | None = None,
    ) -> Path:
        """Convert a trained network into a checked int8 ONNX file, without training.

        Does the same as PostTrainingQuantization at the end of a fit. If that callback is among the
        Trainer's callbacks, its settings are used; arguments given here replace them. The model is
        not changed. With several ``devices`` and the strategy ``ddp`` the first process converts,
        and all share the validation.

        Args:
            model: Any LightningModule.
            dataloaders: Validation loader; not needed with a datamodule.
            datamodule: Any LightningDataModule with validation data.
            ckpt_path: Checkpoint with the weights to convert, pruned or not. Default: the model's
                own weights.
            monitor: Key that ``validation_step`` logs; it is measured with the file, too. Default:
                the callback's setting, or not measured.
            max_drop: Largest drop of ``monitor`` that is accepted. Default: the callback's setting,
                or any drop.
            opset: Version of the ONNX operations in the file, 18 to 23. Default: the callback's.
            dirpath: The artefact folder. Default: ``artifact`` in the run's folder.
            formats: ``onnx``, and the other formats of the file: ``executorch``, ``litert``,
                ``openvino``. Default: the callback's.
            batch_sizes: Batch sizes of the files of ExecuTorch and LiteRT. Default: the callback's.

        Returns:
            The artefact folder.

        Raises:
            CheckpointError: If the checkpoint cannot be read or does not match the model.
            CalibrationError: If there is no data to calibrate with.
            ExportError: If the network cannot be converted.
            AccuracyError: If the file loses more than ``max_drop``.
        """
        check_module(model)
        check_strategy("quantize", self)
        found = callbacks_of_type(self, PostTrainingQuantization)
        configured = found[0] if found else PostTrainingQuantization()
        given: dict[str, Any] = {"monitor": monitor, "max_drop": max_drop, "opset": opset}
        given |= {"formats": formats, "batch_sizes": batch_sizes}
        before = self._set_up(model, dataloaders, datamodule, ckpt_path)
        pruning = (
            tuple(one.progress() for one in pruning_callbacks(self) if one.history)
            if ckpt_path is None
            else recorded_progress(ckpt_path)
        )
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if value is not None
        }
        ranges = None if ckpt_path is None else recorded_ranges(ckpt_path)
        if ranges is not None:
            rank_zero_info("the file gets the ranges that the checkpoint was trained with")
        configured.path = path = on_rank_zero(
            self,
            lambda: configured.quantize(self, model, before, settings, dirpath, pruning, ranges),
            "it converts the network to int8, and writes the artefact",
        )
        if self.is_global_zero:
            print(card_table(read_card(path)))
            print(f"written to {path}")
        return path

    def doctor(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        json: str | None = None,
    ) -> Diagnosis:
        """Check a run before it is started: data, network, callbacks, export, plan and machine.

        Goes through the start of the fit on copies, and prints a line for each question: fine, a
        warning, or an error with what to do about it. Trains nothing and changes nothing. On the
        command line the exit code is 1 if there is an error.

        Args:
            model: Any LightningModule.
            train_dataloaders: Training loaders; not needed with a datamodule.
            val_dataloaders: Validation loaders; not needed with a datamodule.
            datamodule: Any LightningDataModule.
            ckpt_path: Checkpoint that the fit would go on from.
            weights_only: Whether to refuse a checkpoint with more than tensors and plain values.
            json: File for the answers as JSON; ``-`` prints them in place of the lines. Default:
                none.

        Returns:
            One answer for each question.

        Raises:
            InvalidArgumentError: If the Trainer has several processes.
        """
        found = diagnose(
            self,
            model,
            train_dataloaders,
            val_dataloaders,
            datamodule,
            ckpt_path=ckpt_path,
            weights_only=weights_only,
        )
        found.show(json)
        return found

    @override
    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
        artifact: str | None = None,
        runtime: Literal[
            "onnxruntime", "openvino", "executorch", "litert", "fastest"
        ] = "onnxruntime",
        threads: int = 1,
    ) -> list[Mapping[str, float]]:
        """Measure a network on the test data, or the int8 file of an artefact in its place.

        Args:
            model: The LightningModule. Default: the one of the last fit.
            dataloaders: Test loader; not needed with a datamodule.
            ckpt_path: Checkpoint with the weights to measure; see Lightning for special values.
            verbose: Whether to print the logged metrics.
            datamodule: The LightningDataModule.
            weights_only: Whether to refuse a checkpoint with more than tensors and plain values.
            artifact: Artefact folder; its ``model.onnx`` computes instead of the network. Default:
                the network itself is measured.
            runtime: Runtime of the file; ``executorch`` and ``litert`` need a file of theirs;
                ``fastest`` times all that can be run here and takes the fastest.
            threads: Number of threads of the runtime; 0 takes one for each core.

        Returns:
            The logged metrics of each test loader.

        Raises:
            InvalidArgumentError: If ``artifact`` is given without a model, or with a checkpoint.
            ArtifactError: If the folder is not an artefact.
        """
        if artifact is None:
            return super().test(
                model=model,
                dataloaders=dataloaders,
                ckpt_path=ckpt_path,
                verbose=verbose,
                datamodule=datamodule,
                weights_only=weights_only,
            )
        if model is None or ckpt_path is not None:
            raise InvalidArgumentError(
                "artifact replaces the network in a model: give the model, and no ckpt_path (the "
                "config of a resumed run names one: add --ckpt_path null)"
            )
        check_module(model)
        loaded = load(artifact, threads, runtime)
        runs, data = of_inputs(loaded), cast(object, datamodule)
        if runs is loaded and str(loaded.input_dtype) == "uint8" and isinstance(data, HasPixels):
            dataloaders, datamodule = raw_test_data(data), None
        with artifact_forward(model, runs):  # type: ignore[arg-type]
            return super().test(model, dataloaders, verbose=verbose, datamodule=datamodule)

    def _set_up(
        self,
        model: LightningModule,
        dataloaders: Any,
        datamodule: LightningDataModule | None,
        ckpt_path: str | None,
    ) -> UnprunedShapes | None:
        """Load a checkpoint's weights in their own shapes, and validate once to set up the data.

        Returns:
            The shapes of the network before pruning, if the checkpoint has them.
        """
        before = None
        if ckpt_path is not None:
            before = load_weights(model, ckpt_path, "ckpt_path")
        self.validate(model, dataloaders=dataloaders, datamodule=datamodule, verbose=False)
        return before


def scan(module: LightningModule, data: Any, *, progress: bool = True, **options: Any) -> Scan:
    """Find how much of each layer can be pruned, without training, before the metric drops.

    Prunes each layer on its own at rising ratios (Li et al. 2017, arXiv 1608.08710, section 3.2),
    and all layers at one ratio, and runs the module's own ``validation_step`` on a part of the
    validation data. Runs on the CPU, and prints the largest ratio of each layer. In a script that
    torchrun started, all processes must call it, and share the layers.

    Args:
        module: Any LightningModule that logs a metric in ``validation_step``. It is not changed.
        data: A LightningDataModule with validation data, or a validation loader.
        progress: Whether to show a progress bar.
        **options: Arguments of :meth:`Trainer.scan`: ``ckpt_path``, ``granularity``, ``levels``,
            ``tolerance``, ``monitor``, ``mode``, ``images``, ``include``, ``exclude``,
            ``importance``, ``curves``, ``dirpath`` and ``seed``.

    Returns:
        The trials, the largest ratio of each layer within ``tolerance``, and the drop of the metric
        at it. The folder ``dirpath`` has the same in ``rules.yaml`` (for ``RulePruning``),
        ``scan.csv`` and, with ``curves``, ``scan.png`` and ``scan.svg``.

    Raises:
        ScanError: If there is no validation data or no ``validation_step``, the metric is NaN, or
            ``dirpath`` has a scan with other settings.
        InvalidArgumentError: If an option is out of its range, or the metric is not logged.
        PatternError: If a pattern matches no layer.
        ChannelError: If ``granularity`` is ``filter`` and no channel can be removed.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> from torch import nn
        >>> from lit_compress.datamodules import DigitsDataModule
        >>> from lit_compress.modules import ImageClassifier
        >>> layer = nn.Linear(32 * 32, 10)
        >>> layer.weight.data[:, ::2] = 0  # so half of the weights can be pruned at no loss
        >>> module = ImageClassifier(nn.Sequential(nn.Flatten(), layer), in_channels=1)
        >>> with TemporaryDirectory() as folder:
        ...     found = scan(module, DigitsDataModule(), levels=[0.5], progress=False, curves=False,
        ...                  images=100, dirpath=folder)  # doctest: +ELLIPSIS
        layer       largest ratio    drop
        all layers            0.5  0.0000
        model.1               0.5  0.0000
        val_acc 0... on 100 of 287 validation examples, each class in its proportion (seed 0)
        rules: ...rules.yaml
        >>> found.chosen["model.1"]
        Fraction(1, 2)
    """
    trainer = Trainer(
        accelerator="cpu",
        **started_processes(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,  # tensors that the module keeps from validation must stay trainable
    )
    kind = "datamodule" if isinstance(data, LightningDataModule) else "dataloaders"
    return trainer.scan(module, **{kind: data}, **options)


def started_processes() -> dict[str, Any]:
    """Return arguments of a Trainer for the processes that torchrun has started; else none."""
    if not TorchElasticEnvironment.detect():
        return {}
    return {
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        "strategy": "ddp",
    }


def _refuse(
    trainer: pl.Trainer,
    model: LightningModule,
    dataloaders: Any,
    datamodule: LightningDataModule | None,
) -> None:
    """Refuse a model or data that cannot be validated.

    Raises:
        ScanError: With the reason.
    """
    if not is_overridden("validation_step", model, LightningModule):
        raise ScanError(
            f"a scan measures with validation_step, but {type(model).__name__} has none: add one "
            "that logs a metric"
        )
    has_data = (
        dataloaders is not None
        or is_overridden("val_dataloader", model, LightningModule)
        or (
            datamodule is not None
            and is_overridden("val_dataloader", datamodule, LightningDataModule)
        )
    )
    if trainer.limit_val_batches == 0 or not has_data:
        raise ScanError(NO_DATA)
