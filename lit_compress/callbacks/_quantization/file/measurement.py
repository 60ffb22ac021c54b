"""Measure a written file: its metric, and its outputs against those of the float network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lit_compress.artifact import Fidelity, Metric, OnnxModel, write_replay
from lit_compress.artifact.answers import Answers
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.callbacks._quantization.file.forward import FileForward
from lit_compress.callbacks._quantization.file.stored import Stored, stored_inputs
from lit_compress.callbacks._quantization.pixels import Pixels, pixel_loaders
from lit_compress.callbacks._quantization.quality import (
    ComparedOutput,
    answers_of,
    compare_outputs,
    joined,
)
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import measure_metric


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

    def metric(
        self, model: OnnxModel, batches: int | None = None, inputs: InputSums | None = None
    ) -> Metric | None:
        """Return the monitored metric of a file; None if none is monitored.

        Args:
            model: The file, in a runtime.
            batches: Number of batches of validation. Default: all.
            inputs: What the network takes is added to it.
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
            inputs=inputs,
            source=source,
        )

    def fidelity(self, model: OnnxModel, stored: Stored) -> Fidelity:
        """Return how close the outputs of a file are to those of the float network.

        Args:
            model: The file, in a runtime.
            stored: The inputs that the artefact stores.
        """
        arrays, raw = self.network.arrays, self.pixels.inputs
        batches = [model.all_outputs(*arrays(model, batch)) for batch in raw]
        outputs = list(
            map(
                ComparedOutput,
                self.network.outputs.names,
                self.expected.all,
                joined(batches, self.expected.length),
                stored.outputs,
                map(np.atleast_1d, model.all_outputs(*arrays(model, stored.inputs))),
                self._answers,
            )
        )
        quality = compare_outputs(outputs, self.expected.examples)
        fake = self.expected.is_fake_quantized
        return replace(quality, fake_quantized=fake, replay_n=stored.count)

    def stored(self, file: Path) -> Stored:
        """Return the inputs that an artefact stores next to a file.

        Args:
            file: The ONNX file of the network, whose size says how many they are.
        """
        size = file.stat().st_size
        return stored_inputs(self.pixels.inputs, self.expected, self.pixels.preprocess, size)

    def write_replay(self, path: Path, model: OnnxModel, stored: Stored) -> None:
        """Write inputs of a file, with the outputs of the float network.

        Args:
            path: Path of the inputs.
            model: The file, in a runtime.
            stored: The inputs.
        """
        inputs, outputs = self.network.arrays(model, stored.inputs), stored.outputs
        write_replay(path, inputs, outputs[0] if len(outputs) == 1 else outputs)

    @cached_property
    def _answers(self) -> list[Answers | None]:
        return answers_of(self.trainer, self.expected.all, self.network.inputs)
