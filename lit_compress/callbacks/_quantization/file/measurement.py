"""Measure a written file: its metric, and its outputs against those of the float network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_compress.artifact import Fidelity, Metric, OnnxModel, write_replay
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.callbacks._quantization.file.forward import FileForward
from lit_compress.callbacks._quantization.file.rows import stored_rows
from lit_compress.callbacks._quantization.pixels import Pixels, pixel_loaders
from lit_compress.callbacks._quantization.quality import (
    ComparedOutput,
    answers_of,
    compare_outputs,
    joined,
)
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import measure_metric
from lit_compress.export.signature import as_tuple


@dataclass(frozen=True)
class Measurement:
    """Runs files of a network on its recorded inputs, and in the user's validation.

    Attributes:
        trainer: The run, for its data.
        copy: A copy of the user's module.
        network: The network in it.
        monitor: Key of the metric; None if none is monitored.
        pixels: What the files take.
        expected: What they should return.
    """

    trainer: Trainer
    copy: LightningModule
    network: ExportTarget
    monitor: str | None
    pixels: Pixels
    expected: FloatOutputs

    def metric(self, model: OnnxModel, batches: int | None = None) -> Metric | None:
        """Return the monitored metric of a file; None if none is monitored.

        Args:
            model: The file, in a runtime.
            batches: Number of batches of validation. Default: all.
        """
        if self.monitor is None:
            return None
        source = validation_loaders if self.pixels.loader is None else pixel_loaders
        # Other processes of the run need no recorded inputs.
        network = replace(self.network, inputs=())
        return measure_metric(
            self.trainer,
            self.copy,
            source(self.trainer) if self.pixels.loader is None else [self.pixels.loader],
            self.monitor,
            target=self.network.called(self.copy),
            runner=FileForward(network, self.pixels.undone, model),
            limit=batches,
            source=source,
        )

    def fidelity(self, model: OnnxModel, onnx: Path) -> Fidelity:
        """Return how close the outputs of a file are to those of the float network.

        Args:
            model: The file, in a runtime.
            onnx: The ONNX file of the network, whose size says how many inputs are stored.
        """
        arrays, raw = self.network.arrays, self.pixels.inputs
        batches = [model.all_outputs(*arrays(model, batch)) for batch in raw]
        rows = self._stored(onnx)
        outputs = list(
            map(
                ComparedOutput,
                self.network.outputs.names,
                self.expected.all,
                joined(batches, self.expected.length),
                self.expected.first(len(as_tuple(rows)[0])),
                map(np.atleast_1d, model.all_outputs(*arrays(model, rows))),
                answers_of(self.trainer, self.expected.all, self.network.inputs),
            )
        )
        quality = compare_outputs(outputs, self.expected.examples)
        return replace(quality, fake_quantized=self.expected.is_fake_quantized)

    def write_replay(self, path: Path, onnx: Path) -> None:
        """Write the first inputs of a file, with the outputs of the float network.

        Args:
            path: Path of the inputs.
            onnx: The file.
        """
        inputs = self.network.arrays(OnnxModel(onnx), self._stored(onnx))
        outputs = self.expected.first(len(inputs[0]))
        write_replay(path, inputs, outputs[0] if len(outputs) == 1 else outputs)

    def _stored(self, onnx: Path) -> tuple[Tensor, ...]:
        return stored_rows(self.pixels.inputs, self.expected.first, onnx.stat().st_size)
