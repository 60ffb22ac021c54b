"""The teacher of a network: its own dense weights, those of a checkpoint, or another network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.callbacks._distillation.calls import NetworkCall, outputs_of
from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.evaluation.run_view.copies import clone


class Teacher:
    """A network in eval mode without gradients, which gives outputs to learn from.

    Args:
        module: The module: a copy of the user's, or a network of another kind.
        is_copy: Whether it is a copy of the user's module, so that parts have the same names.
    """

    def __init__(self, module: nn.Module, is_copy: bool) -> None:
        self.module, self.is_copy = module.eval().requires_grad_(False), is_copy

    @classmethod
    def snapshot(cls, trainer: Trainer, module: LightningModule) -> Teacher:
        """Return a teacher with the present weights of the user's module."""
        return cls(clone(trainer, module), True)

    @classmethod
    def loaded(cls, trainer: Trainer, module: LightningModule, path: str) -> Teacher:
        """Return a teacher with the weights of a checkpoint.

        Raises:
            CheckpointError: If the file is missing, or of another architecture.
        """
        twin = clone(trainer, module)
        load_weights(twin, path, "teacher")
        return cls(twin, True)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights, for a checkpoint."""
        return {name: tensor.cpu() for name, tensor in self.module.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a checkpoint of the run.

        Raises:
            CheckpointError: If they are of another network.
        """
        try:
            self.module.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise CheckpointError(
                "the teacher in the checkpoint is of another network than this run builds "
                f"({str(error).splitlines()[-1].strip()}): resume with the same module"
            ) from error

    @contextmanager
    def on_device_of(self, module: LightningModule) -> Iterator[None]:
        """Let the teacher be on the device of the user's module, and in its precision."""
        dtype = module.dtype if isinstance(module.dtype, torch.dtype) else None
        self.module.to(device=module.device, dtype=dtype)
        yield

    def answers(self, call: NetworkCall, layers: tuple[str, ...]) -> tuple[Any, dict[str, Tensor]]:
        """Return what the teacher returns for a call of the network, and the outputs of its layers.

        Raises:
            InvalidArgumentError: If it cannot be called so.
        """
        called = self.module.get_submodule(call.path) if self.is_copy else self.module
        features: dict[str, Tensor] = {}
        with torch.no_grad(), outputs_of(self.module, layers, features):
            try:
                return called(*call.args, **call.kwargs), features
            except Exception as error:
                if self.is_copy:
                    raise
                raise InvalidArgumentError(
                    f"teacher: {type(self.module).__name__} cannot be called as the network is "
                    f"({type(error).__name__}: {str(error).partition(chr(10))[0]}): give a teacher "
                    "that takes the same inputs"
                ) from error
