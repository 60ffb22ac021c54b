"""From a trained copy to a measured int8 file, with as few layers in float as it takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lit_compress.artifact import (
    Fidelity,
    LayerFidelity,
    Metric,
    OnnxModel,
    agreement,
    sqnr_db,
    write_replay,
)
from lit_compress.artifact.read import MODEL
from lit_compress.artifact.replay import COUNT
from lit_compress.artifact.runtime import CLASSES, SIZE
from lit_compress.errors import AccuracyError, InvalidArgumentError
from lit_compress.evaluation.export_target import ExportTarget, find_export_target
from lit_compress.evaluation.loaders import sampled, validation_loaders
from lit_compress.evaluation.validate import lower_is_better, measured
from lit_compress.export.signature import Batch, as_tuple, first_rows
from lit_compress.quantization.calibrate import Calibration, WeightRange
from lit_compress.quantization.search import SearchResult, candidates, fewest_floats
from lit_compress.quantization.skip import select_layers

LOW_SQNR_DB = 15.0

Mode = Literal["auto", "max", "min"]

CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("auto", "max", "min"),
    "on_drop": ("error", "warn"),
    "calibration_split": ("val", "train"),
    "calibration": ("minmax", "histogram", "percentile"),
    "weight_range": ("full", "reduced"),
    "preprocess": ("embed", "none"),
}
#: Oldest and newest version of ONNX's operations that can be written and are run.
OPSETS = (18, 23)


@dataclass(frozen=True)
class Settings:
    """How a network is converted; :class:`PostTrainingQuantization` says what each means."""

    monitor: str | None = None
    mode: Mode = "auto"
    max_drop: float | None = None
    on_drop: Literal["error", "warn"] = "error"
    submodule: str | None = None
    skip: tuple[str, ...] = ()
    calibration_batches: int = 10
    calibration_split: Literal["val", "train"] = "val"
    calibration: Calibration = "minmax"
    weight_range: WeightRange = "full"
    seed: int = 0
    preprocess: Literal["embed", "none"] = "embed"
    opset: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be right."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidArgumentError(
                    f"{name} must be one of {choices}, got {getattr(self, name)!r}"
                )
        if self.calibration_batches < 1:
            raise InvalidArgumentError(
                f"calibration_batches must be at least 1, got {self.calibration_batches}: without "
                "data there are no ranges to quantise to"
            )
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise InvalidArgumentError(f"max_drop must be at least 0, got {self.max_drop}")
        if self.max_drop is not None and self.monitor is None:
            raise InvalidArgumentError(
                "max_drop needs a metric to keep: name a key that validation_step logs by monitor"
            )
        if self.opset is not None and not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise InvalidArgumentError(
                f"opset must be from {OPSETS[0]} to {OPSETS[1]}, got {self.opset}"
            )

    def network(self, trainer: Trainer, copy: LightningModule) -> ExportTarget:
        """Return where the network is, with the inputs that a file of it is compared on."""
        return find_export_target(
            trainer, copy, self.submodule, self.calibration_batches, self.seed
        )


class Conversion:
    """The conversion of one network, calibrated and ready to be written.

    Args:
        trainer: The run, for its data.
        copy: A copy of the user's module with the weights to convert.
        network: Where the network is in it.
        settings: How to convert it.

    Raises:
        CalibrationError: If a weight or a batch is not finite.
        ExportError: If the forward cannot be captured.
        PatternError: If an entry of ``skip`` matches no layer.
    """

    def __init__(
        self, trainer: Trainer, copy: LightningModule, network: ExportTarget, settings: Settings
    ) -> None:
        from lit_compress.quantization.convert import Calibrated

        self.trainer, self.copy = trainer, copy
        self.network, self.settings = network, settings
        self._captured = network.captured(copy).eval()
        self._prefix = f"{network.inner}." if network.inner else ""
        self._calibrated = Calibrated(
            self._captured,
            self._calibration_inputs(),
            network.inputs[0],
            settings.calibration,
            settings.weight_range,
            network.signature.names,
        )
        self._skipped = select_layers(
            settings.skip, self._calibrated.layers, self._calibrated.weighted, self._prefix
        )
        rows = first_rows([as_tuple(batch) for batch in network.inputs], COUNT)
        self._noise = self._calibrated.noise(rows)
        self._preprocess, self._raw = self._pixels()

    @property
    def embedded(self) -> bool:
        """Whether the file takes raw pixels."""
        return self._preprocess is not None

    def write(self, path: Path, reference: Metric | None) -> tuple[Metric | None, Fidelity]:
        """Write the file, with layers in float where ``max_drop`` asks for it.

        Args:
            path: Where to write.
            reference: The float network's metric, where it is monitored.

        Returns:
            The file's own metric and fidelity.

        Raises:
            AccuracyError: If the metric cannot be kept and ``on_drop`` is ``error``.
        """
        if self.settings.max_drop is None or reference is None:
            self._export(path, self._skipped)
            metric = None if reference is None else self._metric(path)
            return metric, self._fidelity(path, self._skipped, 0)
        return self._search(path, reference, self.settings.max_drop)

    def write_replay(self, path: Path) -> None:
        """Write the first inputs beside the file that takes them, with the float outputs."""
        model = OnnxModel(path.with_name(MODEL))
        write_replay(path, self.network.arrays(model, self._first()), self._expected()[:COUNT])

    def _search(
        self, path: Path, reference: Metric, allowed: float
    ) -> tuple[Metric | None, Fidelity]:
        calibrated, metrics = self._calibrated, dict[int, Metric | None]()
        sets = candidates(self._noise, calibrated.readers, calibrated.weighted, self._skipped)

        def drop(count: int) -> float:
            self._export(_numbered(path, count), sets[count])
            metrics[count] = metric = self._metric(_numbered(path, count))
            lost = float("inf") if metric is None else _lost(reference, metric, self.settings.mode)
            rank_zero_info(
                f"{self.settings.monitor} falls by {lost:.4f} with {len(sets[count])} layers in "
                f"float, of {len(calibrated.layers)}"
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
            f"max_drop {allowed:g} cannot hold: {reference.name} is {reference.value:.4f} in float "
            f"and falls by {found.drop:.4f} at best, measured of {found.evaluations} files, the "
            "last with all but one layer in float: allow more, or train longer"
        )
        if self.settings.on_drop == "error":
            raise AccuracyError(f"{message}; no artefact was written")
        rank_zero_warn(f"{message}; the file that loses the least was written")

    def _export(self, path: Path, floats: frozenset[str]) -> None:
        from lit_compress.export.onnx import write_onnx
        from lit_compress.quantization.convert import WithPreprocessing

        graph: nn.Module = self._calibrated.convert(floats)
        if self._preprocess is not None:
            graph = WithPreprocessing(self._preprocess, graph)
        write_onnx(
            graph,
            self._raw[0],
            path,
            self._metadata(),
            self.network.signature.names,
            self.settings.opset,
        )

    def _metadata(self) -> dict[str, str]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        metadata = {SIZE: " ".join(str(size) for size in as_tuple(self._raw[0])[0].shape[1:])}
        if classes := [str(name) for name in getattr(data, "classes", ())]:
            metadata[CLASSES] = "\n".join(classes)
        return metadata

    def _metric(self, path: Path) -> Metric | None:
        loaders = validation_loaders(self.trainer)
        if self.embedded:
            loaders = [self.trainer.datamodule.pixels("val")]  # type: ignore[attr-defined]
        model = OnnxModel(path)

        def run(*args: Any, **kwargs: Any) -> Tensor:
            tensors = self.network.tensors(args, kwargs)
            return torch.from_numpy(model(*self.network.arrays(model, tensors)))

        called = self.network.called(self.copy)
        monitor = self.settings.monitor or ""
        return measured(self.trainer, self.copy, loaders, monitor, called, run)

    def _fidelity(self, path: Path, floats: frozenset[str], evaluations: int) -> Fidelity:
        model, expected = OnnxModel(path), self._expected()
        arrays = self.network.arrays
        found = np.concatenate([model(*arrays(model, batch)) for batch in self._raw])
        kept = model(*arrays(model, self._first()))
        quality = Fidelity(
            sqnr_db(expected, found),
            agreement(expected, found),
            len(expected),
            sqnr_db(expected[:COUNT], kept),
            tuple(
                LayerFidelity(self._prefix + r.name, r.weight_db, r.activation_db, r.name in floats)
                for r in self._noise
            ),
            evaluations,
        )
        if quality.sqnr_db < LOW_SQNR_DB:
            worst = min(self._noise, key=lambda row: row.worst_db)
            rank_zero_warn(
                f"the int8 file is only at {quality.sqnr_db:.1f} dB of the float network, with the "
                f"same class for {quality.agreement:.1%} of {quality.n} images (the {worst.fault} "
                f"of {self._prefix}{worst.name} hurts most, {worst.worst_db:.1f} dB alone): look "
                "at its metric before using it"
            )
        return quality

    def _first(self) -> tuple[Tensor, ...]:
        """Return the inputs that the artefact holds, as the file takes them."""
        return first_rows([as_tuple(batch) for batch in self._raw], COUNT)

    def _expected(self) -> np.ndarray:
        """Return the float network's outputs for all inputs."""
        with torch.no_grad():
            outputs = [self._captured(*as_tuple(batch)).numpy() for batch in self.network.inputs]
        return np.concatenate(outputs)

    def _calibration_inputs(self) -> tuple[Batch, ...]:
        settings = self.settings
        if settings.calibration_split == "val":
            return self.network.inputs
        return find_export_target(
            self.trainer,
            self.copy,
            settings.submodule,
            settings.calibration_batches,
            settings.seed,
            "train",
        ).inputs

    def _pixels(self) -> tuple[nn.Module | None, Sequence[Batch]]:
        """Return the preprocessing and raw pixels, if what it makes of them is the inputs."""
        data, inputs = self.trainer.datamodule, self.network.inputs  # type: ignore[attr-defined]
        preprocess = getattr(data, "preprocess", None)
        if self.settings.preprocess == "none" or not self.network.signature.plain:
            return None, inputs
        if not hasattr(data, "pixels") or not isinstance(preprocess, nn.Module):
            return None, inputs
        loader = data.pixels("val")
        if not len(loader.dataset):
            return None, inputs
        loader = sampled(loader, self.settings.calibration_batches, self.settings.seed)
        raw = [batch[0] for batch, _ in zip(loader, inputs, strict=False)]
        if len(raw) < len(inputs) or not torch.equal(preprocess(raw[0]), as_tuple(inputs[0])[0]):
            return None, inputs
        return preprocess, raw


def _numbered(path: Path, count: int) -> Path:
    return path.with_name(f".{path.stem}-{count}{path.suffix}")


def _lost(reference: Metric, metric: Metric, mode: Mode) -> float:
    rising = mode == "max" or (mode == "auto" and not lower_is_better(reference.name))
    return (reference.value - metric.value) * (1 if rising else -1)
