"""The part of a LightningModule that is exported, and the inputs that it gets in validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_compress.artifact import OnnxModel
from lit_compress.errors import CalibrationError, InvalidArgumentError
from lit_compress.evaluation.loaders import length, sampled, training_loaders, validation_loaders
from lit_compress.evaluation.network import child_names, network_paths, record_calls
from lit_compress.evaluation.trainer_access import is_fast_dev_run
from lit_compress.export.outputs import FlatOutputs, Outputs
from lit_compress.export.signature import Batch, Flat, Signature, as_tuple

#: With fewer inputs than these a calibration is said to have few.
FEW_INPUTS = 64

#: Arguments of a call, by position and by name.
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Forward(nn.Module):
    """The forward of a module, without the other methods of a LightningModule."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, inputs: Tensor) -> Any:
        """Return the output of the wrapped module."""
        return self.wrapped(inputs)


@dataclass(frozen=True)
class ExportTarget:
    """Where the exported network is, in any copy of a LightningModule.

    Attributes:
        path: Name of the module whose forward is exported; empty for the LightningModule's own.
        inner: Name of the child that computes exactly the same, and is captured instead.
        inputs: The recorded batches: one tensor each, or several in order.
        signature: The tensors among its arguments.
        outputs: The tensors in what it returns.
    """

    path: str
    inner: str
    inputs: tuple[Batch, ...]
    signature: Signature
    outputs: Outputs

    def called(self, module: LightningModule) -> nn.Module:
        """Return the module that the user's steps call."""
        return module.get_submodule(self.path)

    def captured(self, module: LightningModule) -> nn.Module:
        """Return the module to capture as a graph."""
        found = module.get_submodule(self.inner)
        if not self.signature.plain:
            found = Flat(found, self.signature)
        elif found is module:
            found = Forward(found)
        return found if self.outputs.plain else FlatOutputs(found, self.outputs)

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Return the tensors among the arguments of a call."""
        return self.signature.tensors(args, kwargs)

    def arrays(self, model: OnnxModel, batch: Batch) -> list[np.ndarray]:
        """Return a batch as the inputs of an exported file, without those it does not use."""
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
    """Find the network to export, and record its inputs in some batches of validation.

    Args:
        trainer: The run in progress.
        copy: A copy of the user's module.
        submodule: Name of the module to export; None searches for it (see
            :func:`~lit_compress.evaluation.network.network_paths`).
        batches: Largest number of batches to record; the run may validate on fewer.
        seed: Random seed of the batches; None takes the first batches.
        split: Data that validation runs on.

    Raises:
        InvalidArgumentError: If there is no such submodule, or validation never calls the network.
        CalibrationError: If there are no batches.
        ExportError: If the network takes no tensors.
    """
    paths = network_paths(copy, submodule)
    loaders = training_loaders(trainer) if split == "train" else validation_loaders(trainer)
    batches = limited_batches(trainer, loaders, batches, split)
    if loaders and seed is not None:
        loaders = [sampled(loaders[0], batches, seed), *loaders[1:]]
    calls = record_calls(trainer, copy, loaders, paths, batches, keep=_keep, seed=seed)
    for path in paths:
        if path in calls:
            return _target(copy, path, calls[path][:batches])
    if submodule is None and calls_are_expected(trainer, loaders):
        raise _never_called(copy)
    raise CalibrationError(
        "there are no batches to calibrate with: give the fit validation data"
        + (f" whose validation_step calls {submodule!r}" if submodule else "")
        + ", and calibration_batches of at least 1"
    )


def limited_batches(
    trainer: Trainer,
    loaders: Sequence[Any],
    batches: int,
    split: Literal["val", "train"] = "val",
) -> int:
    """Return a number of batches, or that to which the run limits its own (``limit_val_batches``).

    Args:
        trainer: The run in progress.
        loaders: The loaders of the split.
        batches: The number.
        split: The split.
    """
    limit = trainer.limit_train_batches if split == "train" else trainer.limit_val_batches
    if not loaders or not length(loaders[0]) or (limit == 1.0 and isinstance(limit, float)):
        return batches
    stage = RunningStage.TRAINING if split == "train" else RunningStage.VALIDATING
    # A limit of none is for those who read none; the conversion needs one.
    return int(min(batches, max(1, _parse_num_batches(stage, length(loaders[0]), limit))))


def calls_are_expected(trainer: Trainer, loaders: Sequence[Any]) -> bool:
    """Tell whether there is a batch that a step could have been called with."""
    return any(length(loader) > 0 for loader in loaders) or trainer.train_dataloader is not None


def _keep(_: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return args, kwargs


def _never_called(copy: LightningModule) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"neither validation_step nor training_step of {type(copy).__name__} calls its forward or "
        "a child with most of its weights, so there is nothing to calibrate with: name the network "
        f"that they call by submodule (children: {child_names(copy)})"
    )


def _target(copy: LightningModule, path: str, recorded: Sequence[Call]) -> ExportTarget:
    args, kwargs = recorded[0]
    found = Signature.of(copy.get_submodule(path), args, kwargs)
    inputs: list[Batch] = []
    for one, more in recorded:
        tensors = tuple(_single(tensor) for tensor in found.tensors(one, more))
        _check_sizes(found, as_tuple(inputs[0]) if inputs else tensors, tensors, len(inputs))
        inputs.append(tensors[0] if found.plain else tensors)
    called = copy.get_submodule(path)
    with torch.no_grad():
        result = found.call(called, [tensor.clone() for tensor in as_tuple(inputs[0])])
    outputs = Outputs.of(result, called).distinct_from(found.names)
    inner = path or _inner(copy, found, as_tuple(inputs[0]), outputs, result)
    return ExportTarget(path, inner, tuple(inputs), found, outputs)


def _check_sizes(
    found: Signature, first: Sequence[Tensor], tensors: Sequence[Tensor], number: int
) -> None:
    """Refuse batches whose examples differ in size: only the batch axis of a file is free."""
    for name, one, other in zip(found.names, first, tensors, strict=True):
        if one.shape[1:] != other.shape[1:]:
            raise CalibrationError(
                f"the examples of all batches must have one size, and those of {name!r} are "
                f"{list(one.shape[1:])} in batch 0 and {list(other.shape[1:])} in batch {number}: "
                "bring them to one size (pad, crop or resize) in the dataset or its collate_fn"
            )


def _single(tensor: Tensor) -> Tensor:
    """Return a recorded tensor on the CPU, in single precision where it is of real numbers."""
    found = tensor.detach().cpu()
    return found.float() if found.is_floating_point() else found


def warn_of_other_weights(module: LightningModule, target: ExportTarget) -> None:
    """Warn if the network that was found has not all weights of its LightningModule."""
    inside = {id(parameter) for parameter in target.called(module).parameters()}
    names = [name for name, found in module.named_parameters() if id(found) not in inside]
    if names:
        rank_zero_warn(
            f"the file is of {target.path} alone, which validation_step of {type(module).__name__} "
            f"calls: {len(names)} parameters, such as {names[0]}, are not in it; name another part "
            "by submodule if it should have them"
        )


def warn_of_few_inputs(trainer: Trainer, target: ExportTarget, batches: int) -> None:
    """Warn if the ranges of activations would come from a handful of inputs."""
    size = len(as_tuple(target.inputs[0])[0])
    taken = limited_batches(trainer, validation_loaders(trainer), batches)
    if size * taken < FEW_INPUTS and not is_fast_dev_run(trainer):
        setting = "calibration_batches" if taken == batches else "limit_val_batches"
        rank_zero_warn(
            f"calibration takes {taken} batches of {size}: the ranges of activations would come "
            f"from {size * taken} inputs, so larger values may be clipped; set "
            f"{setting} to {ceil(FEW_INPUTS / size)} or more"
        )


def _inner(
    copy: LightningModule,
    found: Signature,
    sample: tuple[Tensor, ...],
    outputs: Outputs,
    expected: Any,
) -> str:
    """Return the child that computes exactly what the module does, or the module itself."""
    with torch.no_grad():
        for name, child in copy.named_children():
            if _has_all_weights(child, copy):
                try:
                    tensors = outputs.tensors(found.call(child, sample))
                except Exception:  # noqa: S112 - a child with other inputs is not the one
                    continue
                if all(map(torch.equal, tensors, outputs.tensors(expected))):
                    return name
    return ""


def _has_all_weights(child: nn.Module, module: nn.Module) -> bool:
    own = {id(parameter) for parameter in child.parameters()}
    return bool(own) and all(id(parameter) in own for parameter in module.parameters())
