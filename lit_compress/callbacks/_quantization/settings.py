"""The settings of a conversion, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning.pytorch import LightningModule, Trainer

from lit_compress.callbacks._budget.contract import Mode
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.export_target import ExportTarget, find_export_target
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import metric_rises
from lit_compress.export.signature import Batch
from lit_compress.quantization.calibrate import Calibration, Rounding, WeightRange
from lit_compress.runtimes import FORMATS, Format

CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("auto", "max", "min"),
    "on_drop": ("error", "warn"),
    "calibration_split": ("val", "train"),
    "calibration": ("minmax", "histogram", "percentile"),
    "weight_range": ("full", "reduced"),
    "rounding": ("nearest", "learned"),
    "preprocess": ("embed", "none"),
}
#: Oldest and newest ONNX opset that can be written and run.
OPSETS = (18, 23)


@dataclass(frozen=True)
class Settings:
    """How a network is converted; the arguments are those of PostTrainingQuantization."""

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
    rounding: Rounding = "nearest"
    seed: int = 0
    preprocess: Literal["embed", "none"] = "embed"
    opset: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ("onnx",)
    batch_sizes: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidArgumentError(
                    f"{name} must be one of {choices}, got {getattr(self, name)!r}"
                )
        if self.calibration_batches < 1:
            raise InvalidArgumentError(
                f"calibration_batches must be at least 1, got {self.calibration_batches}: the "
                "ranges of activations come from data"
            )
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise InvalidArgumentError(f"max_drop must be at least 0, got {self.max_drop}")
        if self.max_drop is not None and self.monitor is None:
            raise InvalidArgumentError(
                "max_drop needs a metric: set monitor to a key that validation_step logs"
            )
        if self.opset is not None and not OPSETS[0] <= self.opset <= OPSETS[1]:
            raise InvalidArgumentError(
                f"opset must be from {OPSETS[0]} to {OPSETS[1]}, got {self.opset}"
            )

        _check_normalization(self)
        _check_formats(self)

    def network(self, trainer: Trainer, copy: LightningModule) -> ExportTarget:
        """Return where the network is, with the inputs that a file of it is compared on."""
        return find_export_target(
            trainer, copy, self.submodule, self.calibration_batches, self.seed
        )

    def calibration_inputs(
        self, trainer: Trainer, copy: LightningModule, network: ExportTarget
    ) -> tuple[Batch, ...]:
        """Return the inputs that the ranges of activations are taken from.

        Args:
            trainer: The run.
            copy: A copy of the user's module.
            network: The network in it, with the inputs of validation.
        """
        if self.calibration_split == "val":
            return network.inputs
        return find_export_target(
            trainer, copy, self.submodule, self.calibration_batches, self.seed, split="train"
        ).inputs

    def rises(self, trainer: Trainer, copy: LightningModule) -> bool:
        """Tell whether more of the monitored metric is better.

        Args:
            trainer: The run.
            copy: A copy of the user's module.

        Raises:
            InvalidArgumentError: If ``mode`` is ``auto``, and neither the name of the metric nor
                its object says it.
        """
        if self.mode != "auto":
            return self.mode == "max"
        return metric_rises(trainer, copy, validation_loaders(trainer), self.monitor or "")


def _check_formats(settings: Settings) -> None:
    formats, sizes = settings.formats, settings.batch_sizes
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InvalidArgumentError(f"formats may have {', '.join(FORMATS)}, got {unknown[0]!r}")
    if "onnx" not in formats:
        raise InvalidArgumentError(
            f"formats must have onnx, which the other files are compared with, got {list(formats)}"
        )
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise InvalidArgumentError(
            f"batch_sizes must be whole numbers from 1, got {list(sizes)}: ExecuTorch and LiteRT "
            "have a file for each"
        )
    for name, values in (("formats", formats), ("batch_sizes", sizes)):
        if len(set(values)) < len(values):
            raise InvalidArgumentError(f"{name} has a value twice: {list(values)}")


def _check_normalization(settings: Settings) -> None:
    mean, std = settings.mean, settings.std
    if (mean is None) != (std is None):
        raise InvalidArgumentError("mean and std belong together: give both, or neither")
    if mean is None or std is None:
        return
    if not mean or len(mean) != len(std) or not all(value > 0 for value in std):
        raise InvalidArgumentError(
            f"mean and std must have a value for each channel, and std be above 0, got {mean} and "
            f"{std}"
        )
    if settings.preprocess == "none":
        raise InvalidArgumentError(
            "mean and std are put into the file, which preprocess: none forbids: leave out one"
        )
