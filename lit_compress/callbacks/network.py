"""The network inside a LightningModule that is exported, and the inputs that reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.callbacks.evaluation import first_inputs
from lit_compress.callbacks.loaders import validation_loaders
from lit_compress.errors import CalibrationError, ExportError, InvalidArgumentError


class Forward(nn.Module):
    """A module's own forward, apart from what else a LightningModule carries."""

    def __init__(self, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped

    def forward(self, inputs: Tensor) -> Any:
        """Return what the wrapped module returns."""
        return self.wrapped(inputs)


@dataclass(frozen=True)
class Network:
    """Where the exported network is, in any copy of a LightningModule.

    Attributes:
        path: Name of the module whose forward is exported; empty for the LightningModule's own.
        inner: Name of the child that computes just the same, and is captured in its place.
        inputs: Batches that reached it during validation, for calibration.
    """

    path: str
    inner: str
    inputs: tuple[Tensor, ...]

    def called(self, module: LightningModule) -> nn.Module:
        """Return the module that the user's steps call."""
        return module.get_submodule(self.path)

    def captured(self, module: LightningModule) -> nn.Module:
        """Return the module to capture as a graph."""
        found = module.get_submodule(self.inner)
        return Forward(found) if found is module else found


def find_network(
    trainer: Trainer, copy: LightningModule, submodule: str | None, batches: int
) -> Network:
    """Find the network to export, and record its inputs in the first validation batches.

    Args:
        trainer: The run in progress.
        copy: A copy of the user's module.
        submodule: Name of the module to export; None takes the LightningModule's own forward.
        batches: How many batches to record.

    Raises:
        InvalidArgumentError: If there is no such submodule, or validation never calls it.
        CalibrationError: If there are no batches.
        ExportError: If it takes anything but one tensor.
    """
    path = submodule or ""
    called = named_module(copy, path)
    loaders = validation_loaders(trainer)
    if loaders and next(iter(loaders[0]), None) is not None:
        recorded = first_inputs(trainer, copy, loaders, called, batches)
        if not recorded and not path:
            return _called_child(trainer, copy, batches)
    else:
        recorded = [] if loaders or path else _training_inputs(trainer, batches)
    if not recorded:
        raise CalibrationError(
            "there are no batches to calibrate with: give the fit validation data"
            + (f" whose validation_step calls {submodule!r}" if submodule else "")
            + ", and calibration_batches of at least 1"
        )
    inputs = tuple(_one_tensor(args, called) for args in recorded)
    return Network(path, _inner(copy, path, inputs[0]), inputs)


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


def _called_child(trainer: Trainer, copy: LightningModule, batches: int) -> Network:
    """Return the child that holds all weights, where validation calls it and not forward."""
    for name, child in copy.named_children():
        if _holds_all(child, copy):
            recorded = first_inputs(trainer, copy, validation_loaders(trainer), child, batches)
            if recorded:
                return Network(name, name, tuple(_one_tensor(args, child) for args in recorded))
    names = ", ".join(name for name, _ in copy.named_children()) or "none"
    raise InvalidArgumentError(
        f"validation_step of {type(copy).__name__} does not call its forward, so there is nothing "
        f"to calibrate with: name the network it calls by submodule (children: {names})"
    )


def _inner(copy: LightningModule, path: str, sample: Tensor) -> str:
    """Return the child that alone computes what the module does, bit for bit, or the module."""
    if path:
        return path
    with torch.no_grad():
        expected = copy(sample)
        for name, child in copy.named_children():
            if _holds_all(child, copy) and isinstance(expected, Tensor):
                try:
                    found = child(sample)
                except Exception:  # noqa: S112 - a child that takes other inputs is not the one
                    continue
                if isinstance(found, Tensor) and torch.equal(found, expected):
                    return name
    return path


def _holds_all(child: nn.Module, module: nn.Module) -> bool:
    own = {id(parameter) for parameter in child.parameters()}
    return bool(own) and all(id(parameter) in own for parameter in module.parameters())


def _one_tensor(args: tuple[Any, ...], called: nn.Module) -> Tensor:
    if len(args) != 1 or not isinstance(args[0], Tensor):
        got = ", ".join(type(arg).__name__ for arg in args) or "nothing"
        raise ExportError(
            f"the forward of {type(called).__name__} must take one tensor to be exported, got "
            f"{got}: name a part that does by submodule"
        )
    return args[0].detach().cpu()


def _training_inputs(trainer: Trainer, batches: int) -> list[tuple[Any, ...]]:
    loader = trainer.train_dataloader
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is not None:
        loader = data.train_dataloader()
    if loader is None:
        return []
    inputs = []
    for _, batch in zip(range(batches), loader, strict=False):
        inputs.append((batch[0] if isinstance(batch, (tuple, list)) else batch,))
    return inputs
