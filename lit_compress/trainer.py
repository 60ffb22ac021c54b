"""Lightning's Trainer with the verbs of compression that need a model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.artifact import load, read_card
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import InvalidArgumentError, ScanError
from lit_compress.evaluation.artifact_forward import artifact_forward, raw_test_data
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.importance import ImportanceName
from lit_compress.report import card_table
from lit_compress.sensitivity.options import LEVELS, Mode, ScanOptions
from lit_compress.sensitivity.scan import Scan, scan_network
from lit_compress.sensitivity.targets import Unit


class Trainer(pl.Trainer):
    """Lightning's Trainer, and verbs beside ``fit``, ``validate``, ``test`` and ``predict``."""

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
        """Find how much each layer can lose, without training, before the metric drops.

        Prunes each layer on trial, and all at one ratio, and measures by the model's own
        ``validation_step``. Writes ``rules.yaml`` (for ``RulePruning``), ``scan.csv`` and the
        curves; a scan that was stopped goes on where it was. The model is left as it is.

        Args:
            model: Any LightningModule.
            dataloaders: A validation loader, where there is no datamodule.
            datamodule: Any LightningDataModule with validation data.
            ckpt_path: Checkpoint with the weights to scan. Default: the model's own.
            granularity: ``element`` prunes single weights by their magnitude, ``filter`` channels
                with all that is tied to them, ``original`` what the paper's code does: filters of
                convolutions by themselves, elements of linear layers.
            levels: Ratios to try, in [0, 1].
            tolerance: How much of the metric may be lost for a ratio to get into the rules.
            monitor: Key that ``validation_step`` logs. Default: the first that looks like a metric.
            mode: Whether more of it is better (``max``) or less; ``auto`` tells by its name.
            images: Validation examples to measure on, each class in its proportion; none for all.
            include: Globs of the layers to try, or ``regex:`` and a regular expression.
            exclude: Patterns of the layers to leave out.
            importance: How channels are ranked, with ``granularity: filter``.
            curves: Try every level and draw the curves; false tries the few levels that tell which
                ratio the tolerance allows, and writes the rules alone.
            dirpath: Folder of the files.
            seed: Of the sample; another one draws other examples.
        """
        options = ScanOptions(
            granularity,
            tuple(levels) if isinstance(levels, (list, tuple)) else levels,
            tolerance,
            monitor,
            mode,
            images,
            include if isinstance(include, str) else tuple(include),
            exclude if isinstance(exclude, str) else tuple(exclude),
            importance,
            curves,
            seed,
        )
        _refuse(self, model, dataloaders, datamodule)
        with isolate_rng():
            self._set_up(model, dataloaders, datamodule, ckpt_path)
            bar = self.progress_bar_callback is not None
            found = scan_network(self, model, options, Path(dirpath), bar)
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
    ) -> Path:
        """Turn a trained network into a checked int8 ONNX file, without training.

        Does what PostTrainingQuantization does at the end of a fit, with the settings of the one
        among the callbacks where there is one; what is given here comes first. The model is left
        as it is.

        Args:
            model: Any LightningModule.
            dataloaders: A validation loader, where there is no datamodule.
            datamodule: Any LightningDataModule with validation data.
            ckpt_path: Checkpoint with the weights to convert, pruned or not. Default: the model's
                own.
            monitor: Key that ``validation_step`` logs, measured of the file too.
            max_drop: How much of ``monitor`` the file may lose.
            opset: Version of ONNX's operations in the file, 18 to 23.
            dirpath: The artefact folder. Default: ``artifact`` in the log folder.
        """
        found = [c for c in self.callbacks if isinstance(c, PostTrainingQuantization)]  # type: ignore[attr-defined]
        configured = found[0] if found else PostTrainingQuantization()
        given = {"monitor": monitor, "max_drop": max_drop, "opset": opset}
        before = self._set_up(model, dataloaders, datamodule, ckpt_path)
        path = configured.quantize(
            self, model, before, {k: v for k, v in given.items() if v is not None}, dirpath
        )
        print(card_table(read_card(path)))
        print(f"written to {path}")
        return path

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
        runtime: Literal["onnxruntime", "openvino", "fastest"] = "onnxruntime",
        threads: int = 1,
    ) -> list[Mapping[str, float]]:
        """Measure a network, or the int8 file of an artefact in its place, on the test data.

        Args:
            model: The LightningModule.
            dataloaders: A test loader, where there is no datamodule.
            ckpt_path: Checkpoint with the weights to measure.
            verbose: Whether to print what was logged.
            datamodule: The LightningDataModule.
            weights_only: Whether to refuse a checkpoint that holds more than plain values.
            artifact: Artefact folder whose ``model.onnx`` takes the network's place.
            runtime: What runs it.
            threads: Threads it may use; 0 takes one a core.
        """
        if artifact is None:
            return super().test(model, dataloaders, ckpt_path, verbose, datamodule, weights_only)
        if model is None or ckpt_path is not None:
            raise InvalidArgumentError(
                "artifact takes the network's place in a model, and so needs one, and no ckpt_path"
            )
        loaded = load(artifact, threads, runtime)
        with artifact_forward(model, loaded):
            if str(loaded.input_dtype) == "uint8" and hasattr(datamodule, "pixels"):
                pixels = raw_test_data(datamodule)
                return super().test(model, pixels, verbose=verbose)
            return super().test(model, dataloaders, verbose=verbose, datamodule=datamodule)

    def _set_up(
        self,
        model: LightningModule,
        dataloaders: Any,
        datamodule: LightningDataModule | None,
        ckpt_path: str | None,
    ) -> UnprunedShapes | None:
        """Load weights in the shapes they have, and validate once: data and model are set up.

        Returns:
            What the network was before it was pruned, if the checkpoint says so.
        """
        before = None
        if ckpt_path is not None:
            before = load_weights(model, ckpt_path, "ckpt_path")
        self.validate(model, dataloaders=dataloaders, datamodule=datamodule, verbose=False)
        return before


def scan(module: LightningModule, data: Any, *, progress: bool = True, **options: Any) -> Scan:
    """Find how much each layer can lose, without training, before the metric drops.

    Args:
        module: Any LightningModule; it is left as it is.
        data: A LightningDataModule, or a validation loader.
        progress: Whether to show a bar.
        options: As for :meth:`Trainer.scan`: ``granularity``, ``levels``,
            ``tolerance``, ``monitor``, ``images``, ``include``, ``exclude``, ``curves``,
            ``dirpath`` ...

    Returns:
        The rows, and the largest ratio of each layer; its files are in ``dirpath``.
    """
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,  # what the module keeps of it can be trained on later
    )
    kind = "datamodule" if isinstance(data, LightningDataModule) else "dataloaders"
    return trainer.scan(module, **{kind: data}, **options)


def _refuse(
    trainer: pl.Trainer,
    model: LightningModule,
    dataloaders: Any,
    datamodule: LightningDataModule | None,
) -> None:
    """Make sure that there is something to scan on, before Lightning looks for it."""
    if trainer.world_size > 1:
        raise ScanError("a scan runs in one process: set trainer.devices to 1")
    if not is_overridden("validation_step", model, LightningModule):
        raise ScanError(
            f"a scan measures by validation_step, and {type(model).__name__} has none: give it one "
            "that logs a metric"
        )
    sources = [s for s in (datamodule, model) if s is not None]
    kinds = (LightningDataModule, LightningModule)
    if trainer.limit_val_batches == 0 or (
        dataloaders is None
        and not any(
            is_overridden("val_dataloader", s, k)
            for s in sources
            for k in kinds
            if isinstance(s, k)
        )
    ):
        raise ScanError("there is no validation data to scan on: give the datamodule some")
