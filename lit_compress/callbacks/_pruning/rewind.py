"""Rewinding: after each pruning step, weights go back to an early epoch (lottery tickets)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.surgery import cut_tensor


class Rewind:
    """Copies the weights of an early epoch, and puts the unpruned part of the copy back.

    The lottery ticket hypothesis (Frankle & Carbin 2019, arXiv 1803.03635) and its later form
    (Frankle et al. 2019, arXiv 1903.01611): after pruning, the kept weights are trained again from
    their values at the start, or after a few epochs.

    Args:
        spec: ``init`` for the weights at the start of the fit, ``epoch k`` for those at the start
            of that epoch, None to copy nothing.
    """

    def __init__(self, spec: str | None) -> None:
        self.spec = spec
        self.epoch = _epoch(spec)
        self._kept: dict[str, Tensor] = {}

    def check(self, first: int) -> None:
        """Check that the copy is made before the first pruning step.

        Args:
            first: Epoch of the first pruning step.

        Raises:
            InvalidArgumentError: If it is not.
        """
        if self.epoch is not None and self.epoch > first:
            raise InvalidArgumentError(
                f"rewind is {self.spec!r}, but the first pruning step is at epoch {first}: rewind "
                "to an earlier epoch, or set schedule.first later"
            )

    def clear(self) -> None:
        """Drop the copy."""
        self._kept = {}

    def observe(self, module: LightningModule, epoch: int) -> None:
        """Copy the weights if this is the epoch to rewind to.

        Args:
            module: The module, at the start of an epoch.
            epoch: Its number, from 0.
        """
        if epoch == self.epoch and not self._kept:
            self._kept = {n: t.detach().cpu().clone() for n, t in _tensors(module).items()}

    def cut(self, plan: Plan) -> None:
        """Remove channels from the copy too.

        Args:
            plan: What was removed from the module.
        """
        for name, dims in plan.by_tensor().items():
            if name in self._kept:
                self._kept[name] = cut_tensor(self._kept[name], dims)

    @torch.no_grad()
    def apply(self, module: LightningModule, optimizers: Iterable[Optimizer]) -> None:
        """Put the copy back, and drop the state of the optimizers, whose momentum no longer fits.

        Args:
            module: The module.
            optimizers: Its optimizers; learning rates stay as they are.

        Raises:
            CheckpointError: If the run was resumed from a checkpoint without a copy, or with one
                of other shapes.
        """
        if self.epoch is None:
            return
        own = _tensors(module)
        if set(self._kept) != set(own):
            raise CheckpointError(
                f"rewind: {self.spec!r} needs the weights of epoch {self.epoch}, and the "
                "checkpoint that the run was resumed from does not hold them: start a new fit, or "
                "remove rewind"
            )
        for name, tensor in own.items():
            if self._kept[name].shape != tensor.shape:
                raise CheckpointError(
                    f"rewind: the copy of {name} in the checkpoint is "
                    f"{tuple(self._kept[name].shape)}, and the weight {tuple(tensor.shape)}: take "
                    "another checkpoint"
                )
            tensor.copy_(self._kept[name])
        for optimizer in optimizers:
            optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """Return the copy, for a checkpoint."""
        return dict(self._kept)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the copy of a checkpoint.

        Raises:
            CheckpointError: If it does not hold tensors by name.
        """
        kept = dict(state)
        if not all(isinstance(value, Tensor) for value in kept.values()):
            raise CheckpointError(
                "rewind: the copy of early weights in the checkpoint is damaged: take another one"
            )
        self._kept = kept


@torch.no_grad()
def reinitialize_linear(module: nn.Module, seed: int = 0) -> None:
    """Initialize the linear layers of a module again, as the paper's original code does.

    Weights are drawn from a uniform distribution between minus and plus one over the square root of
    the number of inputs; biases become zero.

    Args:
        module: The module. The global random state does not change.
        seed: Random seed of the weights, the same on every process.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            drawn = torch.rand(layer.weight.shape, generator=generator).mul_(2).sub_(1).mul_(bound)
            layer.weight.copy_(drawn)
            if layer.bias is not None:
                layer.bias.zero_()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights and statistics of a module that a checkpoint stores."""
    state: dict[str, Any] = module.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _epoch(spec: str | None) -> int | None:
    if spec is None:
        return None
    if spec == "init":
        return 0
    found = re.fullmatch(r"epoch (\d{1,9})", spec) if isinstance(spec, str) else None
    if found is None:
        raise InvalidArgumentError(
            f"rewind must be 'init', or 'epoch k' with the number of an epoch, got {spec!r}"
        )
    return int(found[1])
