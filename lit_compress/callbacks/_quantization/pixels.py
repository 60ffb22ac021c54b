"""Raw pixels: the normalisation of the data, found, checked, and put into the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.datamodules.transforms import Preprocess
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.data_protocols import HasPixels, HasPreprocess
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import (
    data_set,
    sampled,
    training_loaders,
    validation_loaders,
)
from lit_compress.evaluation.trainer_access import datamodule
from lit_compress.export.signature import Batch, as_tuple


@dataclass(frozen=True)
class Pixels:
    """What a file does with its input before the network, and the recorded inputs as it takes them.

    Attributes:
        inputs: The recorded inputs, as the file takes them.
        preprocess: Turns pixels into the network's input; None if the file takes that itself.
        loader: The validation data as pixels; None if the network's inputs are turned back.
        why: One line: what the file takes, and why.
    """

    inputs: Sequence[Batch]
    why: str
    preprocess: nn.Module | None = None
    loader: Any = None

    @property
    def undone(self) -> Preprocess | None:
        """What is undone in a batch of the validation data that the file is measured on."""
        turned_back = self.loader is None and isinstance(self.preprocess, Preprocess)
        return self.preprocess if turned_back else None  # type: ignore[return-value]

    def normalization(self) -> dict[str, list[float]]:
        """Return mean and standard deviation of the channels, if pixels can be turned back."""
        if self.undone is None:
            return {}
        mean, std = self.undone.normalization()
        return {"mean": mean, "std": std}


def find_pixels(trainer: Trainer, network: ExportTarget, settings: Settings) -> Pixels:
    """Find how raw pixels become the recorded inputs of a network.

    Args:
        trainer: The run, for its data.
        network: The network, with its recorded inputs.
        settings: They may have the normalisation.

    Raises:
        InvalidArgumentError: If the given normalisation does not lead to the recorded inputs.
    """
    if settings.preprocess == "none":
        return Pixels(network.inputs, "the file takes the network's own inputs (preprocess: none)")
    first = as_tuple(network.inputs[0])
    images = network.signature.plain and first[0].dim() == 4 and first[0].is_floating_point()
    if settings.mean is not None and settings.std is not None:
        found = _turned_back(network, settings.mean, settings.std) if images else None
        if found is None:
            raise InvalidArgumentError(_unfit(first[0], settings.mean, settings.std))
        return Pixels(found[1], "the file takes raw uint8 pixels, by the given mean", found[0])
    if not images:
        return _none(network, "its input is not a batch of images in floating point")
    data: object = datamodule(trainer)
    if isinstance(data, HasPixels) and isinstance(data, HasPreprocess):
        return _stated(data, network, settings)
    return _in_transform(trainer, network)


def pixel_loaders(trainer: Trainer) -> list[Any]:
    """Return the loader of the validation pixels of a run whose datamodule offers them.

    Args:
        trainer: The run.
    """
    data: object = datamodule(trainer)
    return [data.pixels("val")] if isinstance(data, HasPixels) else []


class PixelsOf:
    """Runs a file that takes raw pixels on the network's normalised inputs.

    Args:
        model: The file.
        preprocess: The normalisation in it.
    """

    def __init__(self, model: OnnxModel, preprocess: Preprocess) -> None:
        self.model, self.preprocess = model, preprocess
        self.card, self.inputs = model.card, model.inputs

    def all_outputs(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of the file for normalised images.

        Raises:
            InvalidArgumentError: If they are not whole pixels, normalised as the file does it.
        """
        pixels, whole = self.preprocess.undo(torch.from_numpy(images))
        if not whole:
            mean, std = self.preprocess.normalization()
            raise InvalidArgumentError(
                f"the file takes pixels, which it normalises with mean {mean} and std {std}, and "
                "the data are not normalised so: normalise them as in the training"
            )
        return self.model.all_outputs(pixels.numpy())


def of_inputs(model: OnnxModel) -> OnnxModel | PixelsOf:
    """Return what runs the file of an artefact on the network's own inputs.

    Args:
        model: The file.
    """
    config = model.card.config if model.card is not None else {}
    made = config.get("PostTrainingQuantization", {})
    if str(model.input_dtype) != "uint8" or not made.get("mean"):
        return model
    return PixelsOf(model, Preprocess(made["mean"], made["std"]))


def _none(network: ExportTarget, reason: str) -> Pixels:
    return Pixels(
        network.inputs,
        f"the file takes the network's own inputs, not raw pixels, since {reason}; "
        "PostTrainingQuantization(mean=..., std=...) puts the normalisation into it",
    )


def _stated(data: Any, network: ExportTarget, settings: Settings) -> Pixels:
    """Return the preprocessing that the datamodule offers, if it leads to the recorded inputs."""
    preprocess, pixels = data.preprocess, data.pixels("val")
    if not isinstance(preprocess, nn.Module) or not len(pixels.dataset):
        return _none(network, "the datamodule has no preprocess module or no validation pixels")
    loader = sampled(pixels, settings.calibration_batches, settings.seed)
    raw = [batch[0] for batch, _ in zip(loader, network.inputs, strict=False)]
    recorded = as_tuple(network.inputs[0])[0]
    if len(raw) < len(network.inputs) or not torch.equal(preprocess(raw[0]), recorded):
        return _none(network, "the datamodule's preprocess does not lead to the recorded inputs")
    why = "the file takes raw uint8 pixels, by the datamodule's preprocess"
    return Pixels(raw, why, preprocess, pixels)


def _in_transform(trainer: Trainer, network: ExportTarget) -> Pixels:
    """Return the normalisation in a torchvision transform of the data that calibrate."""
    loaders, data = validation_loaders(trainer), "validation data"
    if not loaders:
        loaders, data = training_loaders(trainer), "training data"
    steps = list(_steps(_transform(loaders[0]))) if loaders else []
    normalize = [step for step in steps if type(step).__name__ == "Normalize"]
    if len(normalize) != 1:
        count = f"{len(normalize)} Normalize steps" if normalize else "no Normalize step"
        return _none(network, f"the transform of the {data} has {count}")
    mean, std = _floats(normalize[0].mean), _floats(normalize[0].std)
    for scale in (1, 255):  # of the normalised values: images in [0, 1], or pixels
        found = _turned_back(network, [m / scale for m in mean], [s / scale for s in std])
        if found is not None:
            why = f"the file takes raw uint8 pixels, by the Normalize of the {data}"
            return Pixels(found[1], why, found[0])
    return _none(
        network,
        f"the network's inputs are not whole pixels after the Normalize of the {data} is undone",
    )


def _turned_back(
    network: ExportTarget, mean: Sequence[float], std: Sequence[float]
) -> tuple[Preprocess, list[Batch]] | None:
    """Return a normalisation with the pixels of the recorded inputs; None if they are no pixels."""
    channels = as_tuple(network.inputs[0])[0].shape[1]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        return None
    preprocess, raw = Preprocess(mean, std), list[Batch]()
    for batch in network.inputs:
        pixels, whole = preprocess.undo(as_tuple(batch)[0])
        if not whole:
            return None
        raw.append(pixels)
    return preprocess, raw


def _unfit(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> str:
    return (
        f"mean {list(mean)} and std {list(std)} do not lead to the network's inputs "
        f"({' x '.join(map(str, images.shape))}, from {float(images.min()):.3g} to "
        f"{float(images.max()):.3g}): inputs x std + mean must be whole pixels / 255, with one "
        "value for each channel or one for all; give what the data are normalised with, or leave "
        "mean and std out"
    )


def _transform(loader: Any) -> Any:
    """Return the transform of a loader's data set."""
    return getattr(data_set(loader), "transform", None)


def _steps(transform: Any) -> Iterator[Any]:
    """Yield the steps of a transform, also of those within others."""
    parts = getattr(transform, "transforms", None)
    if isinstance(transform, nn.Sequential):
        parts = list(transform)
    if isinstance(parts, (list, tuple)):
        for part in parts:
            yield from _steps(part)
    elif transform is not None:
        yield transform


def _floats(values: Any) -> list[float]:
    flat: list[float] = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    return flat
