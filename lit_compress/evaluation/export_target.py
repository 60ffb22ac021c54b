"""The network inside a LightningModule that is exported, and the inputs that reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.errors import CalibrationError, InvalidArgumentError
from lit_compress.evaluation.loaders import sampled, training_loaders, validation_loaders
from lit_compress.evaluation.validate import Call, first_inputs
from lit_compress.export.signature import Batch, Flat, Signature, as_tuple


class Forward(nn.Module):
    """A module's own forward, apart from what else a LightningModule carries."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, inputs: Tensor) -> Any:
        """Return what the wrapped module returns."""
        return self.wrapped(inputs)


@dataclass(frozen=True)
class ExportTarget:
    """Where the exported network is, in any copy of a LightningModule.

    Attributes:
        path: Name of the module whose forward is exported; empty for the LightningModule's own.
        inner: Name of the child that computes just the same, and is captured in its place.
        inputs: Batches that reached it, for calibration: of one tensor, or of several in order.
        signature: How its arguments are made of tensors.
    """

    path: str
    inner: str
    inputs: tuple[Batch, ...]
    signature: Signature

    def called(self, module: LightningModule) -> nn.Module:
        """Return the module that the user's steps call."""
        return module.get_submodule(self.path)

    def captured(self, module: LightningModule) -> nn.Module:
        """Return the module to capture as a graph."""
        found = module.get_submodule(self.inner)
        if not self.signature.plain:
            return Flat(found, self.signature)
        return Forward(found) if found is module else found

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Return the tensors among the arguments of a call of it."""
        return self.signature.tensors(args, kwargs)

    def arrays(self, model: OnnxModel, batch: Batch) -> list[np.ndarray]:
        """Return a batch as an exported file of the network takes it: without what is not used."""
        named = dict(zip(self.signature.names, as_tuple(batch), strict=True))
        return [named[given.name].numpy() for given in model.inputs]


def find_export_target(
    trainer: Trainer,
    copy: LightningModule,
    submodule: str | None,
    batches: int,
    seed: int | None = None,
    split: Literal["val", "train"] = "val",
) -> ExportTarget:
    """Find the network to export, and record what reaches it in some batches of validation.

    Args:
        trainer: The run in progress.
        copy: A copy of the user's module.
        submodule: Name of the module to export; None takes the LightningModule's own forward.
        batches: How many batches to record.
        seed: Draws the batches at random; None takes the first.
        split: Data that validation is run on.

    Raises:
        InvalidArgumentError: If there is no such submodule, or validation never calls it.
        CalibrationError: If there are no batches.
        ExportError: If it takes no tensors.
    """
    path = submodule or ""
    called = named_module(copy, path)
    loaders = training_loaders(trainer) if split == "train" else validation_loaders(trainer)
    if loaders and seed is not None:
        loaders = [sampled(loaders[0], batches, seed), *loaders[1:]]
    if loaders and next(iter(loaders[0]), None) is not None:
        recorded = first_inputs(trainer, copy, loaders, called, batches)
        if not recorded and not path:
            return _called_child(trainer, copy, loaders, batches)
    else:
        recorded = [] if loaders or path else _training_inputs(trainer, batches)
    if not recorded:
        raise CalibrationError(
            "there are no batches to calibrate with: give the fit validation data"
            + (f" whose validation_step calls {submodule!r}" if submodule else "")
            + ", and calibration_batches of at least 1"
        )
    return _network(copy, path, None, recorded)


def _network(
    copy: LightningModule, path: str, inner: str | None, recorded: Sequence[Call]
) -> ExportTarget:
    args, kwargs = recorded[0]
    found = Signature.of(copy.get_submodule(path), args, kwargs)
    inputs: list[Batch] = []
    for one, more in recorded:
        tensors = tuple(tensor.detach().cpu() for tensor in found.tensors(one, more))
        inputs.append(tensors[0] if found.plain else tensors)
    if inner is None:
        inner = _inner(copy, path, found, as_tuple(inputs[0]))
    return ExportTarget(path, inner, tuple(inputs), found)


def named_module(module: LightningModule, path: str) -> nn.Module:
    """Return a module's part by its name.

    Raises:
        InvalidArgumentError: If it has none of that name.
    """
    try:
        return module.get_submodule(path)
    except AttributeError:
        names = ", ".join(name for name, _ in module.named_children()) or "none"
        raise InvalidArgumentError(
            f"submodule: {type(module).__name__} has no module {path!r}; its children are: {names}"
        ) from None


def _called_child(
    trainer: Trainer, copy: LightningModule, loaders: list[Any], batches: int
) -> ExportTarget:
    """Return the child that holds all weights, where validation calls it and not forward."""
    for name, child in copy.named_children():
        if _holds_all(child, copy):
            recorded = first_inputs(trainer, copy, loaders, child, batches)
            if recorded:
                return _network(copy, name, name, recorded)
    names = ", ".join(name for name, _ in copy.named_children()) or "none"
    raise InvalidArgumentError(
        f"validation_step of {type(copy).__name__} does not call its forward, so there is nothing "
        f"to calibrate with: name the network it calls by submodule (children: {names})"
    )


def _inner(copy: LightningModule, path: str, found: Signature, sample: tuple[Tensor, ...]) -> str:
    """Return the child that alone computes what the module does, bit for bit, or the module."""
    if path:
        return path
    with torch.no_grad():
        expected = found.call(copy, sample)
        for name, child in copy.named_children():
            if _holds_all(child, copy) and isinstance(expected, Tensor):
                try:
                    outputs = found.call(child, sample)
                except Exception:  # noqa: S112 - a child that takes other inputs is not the one
                    continue
                if isinstance(outputs, Tensor) and torch.equal(outputs, expected):
                    return name
    return path


def _holds_all(child: nn.Module, module: nn.Module) -> bool:
    own = {id(parameter) for parameter in child.parameters()}
    return bool(own) and all(id(parameter) in own for parameter in module.parameters())


def _training_inputs(trainer: Trainer, batches: int) -> list[Call]:
    loader = trainer.train_dataloader
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is not None:
        loader = data.train_dataloader()
    if loader is None:
        return []
    inputs: list[Call] = []
    for _, batch in zip(range(batches), loader, strict=False):
        inputs.append(((batch[0] if isinstance(batch, (tuple, list)) else batch,), {}))
    return inputs
