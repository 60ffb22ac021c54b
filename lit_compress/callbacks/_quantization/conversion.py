"""Converting a trained network to a measured int8 file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lit_compress.artifact import Fidelity, LayerFidelity, Metric, OnnxModel
from lit_compress.artifact.replay import COUNT
from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._quantization.file.drop import DropSearch, MeasuredFile
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.callbacks._quantization.file.measurement import Measurement
from lit_compress.callbacks._quantization.file.rows import repeated_rows
from lit_compress.callbacks._quantization.file.stored import Stored
from lit_compress.callbacks._quantization.file.texts import check_classes, class_names, file_texts
from lit_compress.callbacks._quantization.pixels import Pixels, find_pixels
from lit_compress.callbacks._quantization.quality import warn_if_far
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import LitCompressError
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.progress import track
from lit_compress.quantization.search import candidates
from lit_compress.quantization.skip import select_layers
from lit_compress.quantization.training.ranges import Ranges


class Conversion:
    """The conversion of one network: calibrated, and ready to write.

    Args:
        trainer: The run, for its data.
        copy: A copy of the user's module with the weights to convert.
        network: The network in it.
        settings: How to convert it.
        ranges: The ranges that it was trained with. Default: they are found on its inputs.
        trained: Runs it as it was trained, for a module and inputs. Default: its own forward.

    Raises:
        CalibrationError: If a weight or a batch is not finite.
        ExportError: If the forward cannot be captured.
        PatternError: If an entry of ``skip`` matches no layer.
    """

    def __init__(
        self,
        trainer: Trainer,
        copy: LightningModule,
        network: ExportTarget,
        settings: Settings,
        ranges: Ranges | None = None,
        trained: Callable[[LightningModule, Sequence[Tensor]], Any] | None = None,
    ) -> None:
        from lit_compress.quantization.convert import Calibrated

        self.trainer, self.copy = trainer, copy
        self.network, self.settings = network, settings
        self._captured = network.captured(copy).eval()
        self._prefix = f"{network.inner}." if network.inner else ""
        self._calibrated = Calibrated(
            self._captured,
            () if ranges is not None else settings.calibration_inputs(trainer, copy, network),
            network.inputs[0],
            calibration=settings.calibration,
            weight_range=settings.weight_range,
            names=network.signature.names,
            track=partial(track, trainer),
            ranges=ranges,
            rounding=settings.rounding,
        )
        if settings.rounding == "learned" and ranges is None:
            learned = len(self._calibrated.learned)
            rank_zero_info(
                f"learned rounding: the weights of {learned} of {len(self._calibrated.weighted)} "
                "layers; the others are best with the nearest numbers"
            )
        self._skipped = select_layers(
            settings.skip, self._calibrated.layers, self._calibrated.weighted, self._prefix
        )
        self._pixels = find_pixels(trainer, network, settings)
        self._preprocess, self._raw = self._pixels.preprocess, self._pixels.inputs
        self._float = FloatOutputs(network.inputs, copy, self._captured, trained)
        if settings.classes:
            check_classes(settings.classes, self._float.shape)
        monitored = settings.monitor is not None and validation_loaders(trainer)
        monitor = settings.monitor if monitored else None
        self._measurement = Measurement(trainer, copy, network, monitor, self._pixels, self._float)
        #: The weights that are not int8 in the file that was written.
        self.float_weights: tuple[FloatWeight, ...] = ()
        #: The network of the file that was written last, with what goes before it.
        self.graph: nn.Module = self._captured
        #: SQNR of the ONNX file that was written last, in dB.
        self.sqnr_db = math.nan
        self._first: MeasuredFile | None = None
        self._path = Path()
        self._model: OnnxModel | None = None
        self._stored: Stored | None = None
        self._inputs = InputSums()

    @cached_property
    def _noise(self) -> Any:
        """What each layer's int8 values alone do to the outputs, measured when it is needed."""
        rows = first_rows([as_tuple(batch) for batch in self.network.inputs], COUNT)
        return self._calibrated.noise(rows)

    @property
    def pixels(self) -> Pixels:
        """What the file takes, and why."""
        return self._pixels

    @property
    def model(self) -> OnnxModel:
        """The file that was written, in ONNX Runtime.

        Raises:
            LitCompressError: If none was written.
        """
        if self._model is None:
            raise LitCompressError("the file of a conversion is opened after it is written")
        return self._model

    @property
    def stored(self) -> Stored:
        """The inputs that are stored with the file that was written."""
        if self._stored is None:
            self._stored = self._measurement.stored(self._path)
        return self._stored

    def took(self, inputs: InputSums) -> bool:
        """Tell whether the network had these inputs when the first file was measured.

        Where the data give pixels, they are others; the datamodule says that they are the same
        images.

        Args:
            inputs: The inputs of another pass over the data.
        """
        return self._pixels.loader is not None or self._inputs.equal(inputs)

    def write_first(self, path: Path) -> MeasuredFile:
        """Write the file with the fewest layers in float, and measure its metric.

        Args:
            path: Path of the file.
        """
        self._export(path, self._skipped)
        model, self._inputs = OnnxModel(path), InputSums()
        self._first = MeasuredFile(model, self._measurement.metric(model, inputs=self._inputs))
        return self._first

    def write(
        self, path: Path, reference: Metric | None, allowed: float | None = None
    ) -> tuple[Metric | None, Fidelity]:
        """Write the file; with ``max_drop``, as few layers as possible stay in float.

        A file that :meth:`write_first` wrote to the path is not written again.

        Args:
            path: Path of the file.
            reference: The metric of the float network, if it is monitored.
            allowed: How much of it the file may lose; None lets any go.

        Returns:
            Metric and fidelity of the file.

        Raises:
            AccuracyError: If no file keeps the metric and ``on_drop`` is ``error``.
        """
        first = self._first or self.write_first(path)
        if allowed is None or reference is None:
            metric = None if reference is None else first.metric
            return metric, self._fidelity(path, first.model, self._skipped, 0)
        calibrated = self._calibrated
        search = DropSearch(
            settings=self.settings,
            reference=reference,
            rises=self.settings.rises(self.trainer, self.copy),
            sets=candidates(self._noise, calibrated.readers, calibrated.weighted, self._skipped),
            layers=len(calibrated.layers),
            write=partial(self._candidate, path),
        )
        found = search.run(path, allowed)
        quality = self._fidelity(path, found.file.model, found.floats, found.evaluations)
        return found.file.metric, quality

    def try_out(self, path: Path, batches: int) -> None:
        """Write a file and run it, as :meth:`write` does, without a judgement of its outputs.

        Args:
            path: Path of the file.
            batches: Number of validation batches to measure the metric on, if one is monitored.
        """
        self._export(path, self._skipped)
        self.float_weights = self._calibrated.float_weights(self._skipped, self._prefix)
        model = OnnxModel(path)
        self._keep(path, model)
        for batch in self._raw:
            model.all_outputs(*self.network.arrays(model, as_tuple(batch)))
        self._measurement.metric(model, batches)

    def write_replay(self, path: Path) -> None:
        """Write the first inputs of the file, with the outputs of the float network."""
        self._measurement.write_replay(path, self.model, self.stored)

    def _candidate(self, first: Path, path: Path, floats: frozenset[str]) -> MeasuredFile:
        """Write and measure a file, or move the first one to its place."""
        if self._first is not None and floats == self._skipped:
            os.replace(first, path)
            return self._first
        self._export(path, floats)
        model = OnnxModel(path)
        return MeasuredFile(model, self.measured(model))

    def _export(self, path: Path, floats: frozenset[str]) -> None:
        from lit_compress.export.onnx import write_onnx
        from lit_compress.quantization.convert import WithPreprocessing

        graph: nn.Module = self._calibrated.convert(floats)
        if self._preprocess is not None:
            graph = WithPreprocessing(self._preprocess, graph)
        self.graph = graph
        write_onnx(
            graph,
            self._raw[0],
            path,
            metadata=self.metadata(),
            names=self.network.signature.names,
            opset=self.settings.opset,
            outputs=self.network.outputs.names,
        )

    def metadata(self) -> dict[str, str]:
        """Return the text values that files of the network have."""
        classes = class_names(self.trainer, self.settings.classes, lambda: self._float.shape)
        return file_texts(as_tuple(self._raw[0])[0].shape[1:], classes)

    def _fidelity(
        self, path: Path, model: OnnxModel, floats: frozenset[str], evaluations: int
    ) -> Fidelity:
        self._keep(path, model)
        layers = tuple(
            LayerFidelity(self._prefix + r.name, r.weight_db, r.activation_db, r.name in floats)
            for r in self._noise
        )
        quality = self.compared(model)
        self.sqnr_db = quality.sqnr_db
        warn_if_far(quality, self._noise, self._prefix)
        self.float_weights = self._calibrated.float_weights(floats, self._prefix)
        return replace(quality, layers=layers, evaluations=evaluations)

    def _keep(self, path: Path, model: OnnxModel) -> None:
        self._path, self._model, self._first, self._stored = path, model, None, None

    def measured(self, model: OnnxModel) -> Metric | None:
        """Return the monitored metric of a file; None if none is monitored.

        Args:
            model: The file, in a runtime.
        """
        return self._measurement.metric(model)

    def compared(self, model: OnnxModel) -> Fidelity:
        """Return how close the outputs of a file are to those of the float network.

        Args:
            model: The file, in a runtime. The ONNX file must be written.
        """
        return self._measurement.fidelity(model, self.stored)

    def arrays(self, model: OnnxModel, batch: Batch) -> list[np.ndarray]:
        """Return a batch as the inputs of a file."""
        return self.network.arrays(model, batch)

    def raw_rows(self, count: int) -> tuple[Tensor, ...]:
        """Return inputs as files take them, of a batch size; inputs are repeated if there are few.

        Args:
            count: The batch size.
        """
        return repeated_rows(self._raw, count)
