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
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_compress.artifact import Fidelity, LayerFidelity, Metric, OnnxModel, write_replay
from lit_compress.artifact.answers import Answers
from lit_compress.artifact.folder.names import MODEL
from lit_compress.artifact.replay import COUNT, stored_count
from lit_compress.artifact.runtime import CLASSES, SIZE
from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._quantization.pixels import Pixels, find_pixels
from lit_compress.callbacks._quantization.quality import (
    ComparedOutput,
    answers_of,
    compare_outputs,
    joined,
    warn_if_far,
)
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import AccuracyError, InvalidArgumentError
from lit_compress.evaluation.data_protocols import HasClasses
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import data_set, training_loaders, validation_loaders
from lit_compress.evaluation.metric import measure_metric
from lit_compress.evaluation.trainer_access import datamodule
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import Batch, as_tuple, first_rows, is_batched
from lit_compress.progress import track
from lit_compress.quantization.search import SearchResult, candidates, fewest_floats
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
        self._trained = trained
        self._skipped = select_layers(
            settings.skip, self._calibrated.layers, self._calibrated.weighted, self._prefix
        )
        self._pixels = find_pixels(trainer, network, settings)
        self._preprocess, self._raw = self._pixels.preprocess, self._pixels.inputs
        self._check_classes()
        #: The weights that are not int8 in the file that was written.
        self.float_weights: tuple[FloatWeight, ...] = ()
        #: The network of the file that was written last, with what goes before it.
        self.graph: nn.Module = self._captured
        self._file = Path()
        #: SQNR of the ONNX file that was written last, in dB.
        self.sqnr_db = math.nan

    @cached_property
    def _noise(self) -> Any:
        """What each layer's int8 values alone do to the outputs, measured when it is needed."""
        rows = first_rows([as_tuple(batch) for batch in self.network.inputs], COUNT)
        return self._calibrated.noise(rows)

    @property
    def pixels(self) -> Pixels:
        """What the file takes, and why."""
        return self._pixels

    def write(
        self, path: Path, reference: Metric | None, allowed: float | None = None
    ) -> tuple[Metric | None, Fidelity]:
        """Write the file; with ``max_drop``, as few layers as possible stay in float.

        Args:
            path: Path of the file.
            reference: The metric of the float network, if it is monitored.
            allowed: How much of it the file may lose; None lets any go.

        Returns:
            Metric and fidelity of the file.

        Raises:
            AccuracyError: If no file keeps the metric and ``on_drop`` is ``error``.
        """
        if allowed is None or reference is None:
            self._export(path, self._skipped)
            metric = None if reference is None else self.measured(OnnxModel(path))
            return metric, self._fidelity(path, self._skipped, 0)
        return self._search(path, reference, allowed)

    def try_out(self, path: Path, batches: int) -> None:
        """Write a file and run it, as :meth:`write` does, without a judgement of its outputs.

        Args:
            path: Path of the file.
            batches: Number of validation batches to measure the metric on, if one is monitored.
        """
        self._export(path, self._skipped)
        self.float_weights = self._calibrated.float_weights(self._skipped, self._prefix)
        model = OnnxModel(path)
        for batch in self._raw:
            model.all_outputs(*self.network.arrays(model, as_tuple(batch)))
        if self.settings.monitor is not None and validation_loaders(self.trainer):
            self.measured(model, batches)

    def write_replay(self, path: Path) -> None:
        """Write the first inputs of the file, with the outputs of the float network."""
        file = path.with_name(MODEL)
        inputs = self.network.arrays(OnnxModel(file), self._stored(file))
        outputs = self._kept(len(inputs[0]))
        write_replay(path, inputs, outputs[0] if len(outputs) == 1 else outputs)

    def _search(
        self, path: Path, reference: Metric, allowed: float
    ) -> tuple[Metric | None, Fidelity]:
        calibrated, metrics = self._calibrated, dict[int, Metric | None]()
        rises = self.settings.rises(self.trainer, self.copy)
        sets = candidates(self._noise, calibrated.readers, calibrated.weighted, self._skipped)

        def drop(count: int) -> float:
            self._export(_numbered(path, count), sets[count])
            metrics[count] = metric = self.measured(OnnxModel(_numbered(path, count)))
            lost = float("inf") if metric is None else _lost(reference, metric, rises)
            rank_zero_info(
                f"{self.settings.monitor} {_change(lost)} with {len(sets[count])} of "
                f"{len(calibrated.layers)} layers in float"
            )
            return lost

        try:
            found = fewest_floats(len(sets), drop, allowed)
            if not found.holds:
                self._give_up(found, reference, allowed)
            os.replace(_numbered(path, found.count), path)
        finally:
            for count in metrics:
                _numbered(path, count).unlink(missing_ok=True)
        return metrics[found.count], self._fidelity(path, sets[found.count], found.evaluations)

    def _give_up(self, found: SearchResult, reference: Metric, allowed: float) -> None:
        message = (
            f"max_drop {allowed:g} cannot be kept: {reference.name} is {reference.value:.4f} in "
            f"float and drops by {found.drop:.4f} at best, over {found.evaluations} files, the "
            "last with all but one layer in float: allow a larger drop, or train longer"
        )
        if self.settings.on_drop == "error":
            raise AccuracyError(f"{message}; no artefact was written")
        rank_zero_warn(f"{message}; the file with the smallest drop was written")

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

    def _check_classes(self) -> None:
        names = self.settings.classes
        if not names:
            return
        shape = self._shape
        if len(shape) < 2 or shape[1] != len(names):
            raise InvalidArgumentError(
                f"classes has {len(names)} names, and the network's outputs are of shape "
                f"{' x '.join(map(str, shape))}: give a name for each class, in the order of the "
                "labels"
            )

    def metadata(self) -> dict[str, str]:
        """Return the text values that files of the network have."""
        metadata = {SIZE: " ".join(str(size) for size in as_tuple(self._raw[0])[0].shape[1:])}
        if classes := self._class_names():
            metadata[CLASSES] = "\n".join(classes)
        return metadata

    def _class_names(self) -> list[str]:
        """Return the names that were given, or those that the data have for as many outputs."""
        if self.settings.classes:
            return list(self.settings.classes)
        data: object = datamodule(self.trainer)
        if isinstance(data, HasClasses):
            return [str(name) for name in data.classes]
        loaders = validation_loaders(self.trainer) or training_loaders(self.trainer)
        found: Any = getattr(data_set(loaders[0]), "classes", None) if loaders else None
        if not isinstance(found, (list, tuple)) or not all(isinstance(n, str) for n in found):
            return []
        return list(found) if self._shape[1:] == (len(found),) else []

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Shape of the network's first output for a batch."""
        with torch.no_grad():
            return tuple(self._outputs(as_tuple(self.network.inputs[0]))[0].shape)

    def measured(self, model: OnnxModel, batches: int | None = None) -> Metric | None:
        """Return the monitored metric of a file; None if none is monitored.

        Args:
            model: The file, in a runtime.
            batches: Number of batches of validation. Default: all.
        """
        if self.settings.monitor is None:
            return None
        loaders = validation_loaders(self.trainer)
        if self._pixels.loader is not None:
            loaders = [self._pixels.loader]

        def run(*args: Any, **kwargs: Any) -> Any:
            tensors = self._pixels.of(self.network.tensors(args, kwargs))
            found = model.all_outputs(*self.network.arrays(model, tensors))
            return self.network.outputs.structured([torch.from_numpy(array) for array in found])

        called = self.network.called(self.copy)
        monitor = self.settings.monitor
        return measure_metric(
            self.trainer, self.copy, loaders, monitor, target=called, runner=run, limit=batches
        )

    def _fidelity(self, path: Path, floats: frozenset[str], evaluations: int) -> Fidelity:
        self._file = path
        layers = tuple(
            LayerFidelity(self._prefix + r.name, r.weight_db, r.activation_db, r.name in floats)
            for r in self._noise
        )
        quality = self.compared(OnnxModel(path))
        self.sqnr_db = quality.sqnr_db
        warn_if_far(quality, self._noise, self._prefix)
        self.float_weights = self._calibrated.float_weights(floats, self._prefix)
        return replace(quality, layers=layers, evaluations=evaluations)

    def compared(self, model: OnnxModel) -> Fidelity:
        """Return how close the outputs of a file are to those of the float network.

        Args:
            model: The file, in a runtime. The ONNX file must be written.
        """
        batches = [model.all_outputs(*self.arrays(model, batch)) for batch in self._raw]
        rows = self._stored(self._file)
        kept = map(np.atleast_1d, model.all_outputs(*self.arrays(model, rows)))
        expected, count = self._expected, len(as_tuple(self.network.inputs[0])[0])
        outputs = list(
            map(
                ComparedOutput,
                self.network.outputs.names,
                expected,
                joined(batches, count),
                self._kept(len(as_tuple(rows)[0])),
                kept,
                self._answers(expected),
            )
        )
        examples = sum(len(as_tuple(batch)[0]) for batch in self.network.inputs)
        quality = compare_outputs(outputs, examples)
        return replace(quality, fake_quantized=self._trained is not None)

    def arrays(self, model: OnnxModel, batch: Batch) -> list[np.ndarray]:
        """Return a batch as the inputs of a file."""
        return self.network.arrays(model, batch)

    def raw_rows(self, count: int) -> tuple[Tensor, ...]:
        """Return inputs as files take them, of a batch size; inputs are repeated if there are few.

        Args:
            count: The batch size.
        """
        rows = first_rows([as_tuple(batch) for batch in self._raw], count)
        length = len(as_tuple(self._raw[0])[0])
        return tuple(
            torch.cat([tensor] * (count // max(1, len(tensor)) + 1))[:count]
            if is_batched(whole, length)
            else tensor
            for tensor, whole in zip(rows, as_tuple(self._raw[0]), strict=True)
        )

    def _answers(self, expected: list[np.ndarray]) -> list[Answers | None]:
        return answers_of(self.trainer, expected, self.network.inputs)

    def _stored(self, file: Path) -> tuple[Tensor, ...]:
        """Return the inputs that are stored in the artefact, as the file takes them."""
        rows = [as_tuple(batch) for batch in self._raw]
        one = (*first_rows(rows, 1), *map(torch.from_numpy, self._kept(1)))
        size = sum(tensor.numel() * tensor.element_size() for tensor in one)
        return first_rows(rows, stored_count(size, file.stat().st_size))

    def _outputs(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the outputs of the network that the file should have."""
        inputs = [tensor.clone() for tensor in batch]  # a forward may write to its inputs
        if self._trained is not None:
            return as_tensors(self._trained(self.copy, inputs))
        return as_tensors(self._captured(*inputs))

    @cached_property
    def _expected(self) -> list[np.ndarray]:
        """Return each output of the float network for all recorded inputs."""
        with torch.no_grad():
            batches = [self._outputs(as_tuple(batch)) for batch in self.network.inputs]
        length = len(as_tuple(self.network.inputs[0])[0])
        return joined([[tensor.numpy() for tensor in batch] for batch in batches], length)

    def _kept(self, count: int) -> list[np.ndarray]:
        """Return each output of the float network for the first inputs.

        It is run again: an output without a batch axis may depend on how many there are.
        """
        rows = first_rows([as_tuple(batch) for batch in self.network.inputs], count)
        with torch.no_grad():
            found = self._outputs(rows)
        return [np.atleast_1d(tensor.numpy()) for tensor in found]


def _numbered(path: Path, count: int) -> Path:
    return path.with_name(f".{path.stem}-{count}{path.suffix}")


def _change(lost: float) -> str:
    """Return in words what int8 does to a metric."""
    return f"gets worse by {lost:.4f}" if lost > 0 else f"gets no worse ({-lost:.4f} better)"


def _lost(reference: Metric, metric: Metric, rises: bool) -> float:
    return (reference.value - metric.value) * (1 if rises else -1)
