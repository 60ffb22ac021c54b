"""Keeping pruned weights at zero while optimizers step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class WeightMasks:
    """Multiplies weights by their masks, after each step of the optimizer that changes them."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._optimizers: list[Optimizer] = []
        self._owned: dict[int, tuple[int, list[int]]] = {}

    def set(self, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        """Take new masks, and apply them.

        The masks are stored as floats on the device of their weights, so that a step costs one
        multiplication.

        Args:
            weights: Parameters by name.
            masks: By the name of a parameter, a boolean tensor of its shape: True keeps an element.
        """
        self._owned = {}
        self._weights = [weights[name] for name in masks]
        self._masks = [masks[name].to(weights[name].device, weights[name].dtype) for name in masks]
        for index, weight in enumerate(self._weights):
            if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last):
                mask = self._masks[index].contiguous(memory_format=torch.channels_last)
                self._masks[index] = mask
        self.apply()

    def apply(self) -> None:
        """Set the pruned elements to zero."""
        if self._weights:
            with torch.no_grad():
                torch._foreach_mul_(self._weights, self._masks)

    def apply_to_gradients(self) -> None:
        """Set the gradients of pruned elements to zero, so that no gradient norm counts them."""
        for weight, mask in zip(self._weights, self._masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Apply the masks after each step of these optimizers."""
        self.detach()
        self._optimizers = list(optimizers)
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def detach(self) -> None:
        """Remove the hooks from the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._optimizers = []

    def clear(self) -> None:
        """Drop weights and masks."""
        self._weights, self._masks, self._owned = [], [], {}

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        # Other weights are not written to: the loss of another optimizer (the discriminator's in a
        # GAN) may still go backward through a graph that uses them.
        if owned := self._owned_by(optimizer):
            weights, masks = ([all_[i] for i in owned] for all_ in (self._weights, self._masks))
            with torch.no_grad():
                torch._foreach_mul_(weights, masks)

    def _owned_by(self, optimizer: Optimizer) -> list[int]:
        """Return the positions of the weights that an optimizer changes, or that none does."""
        count = sum(len(g["params"]) for one in self._optimizers for g in one.param_groups)
        known = self._owned.get(id(optimizer))
        if known is None or known[0] != count:  # parameters may be added during the training
            others = {id(p) for one in self._optimizers if one is not optimizer for p in _held(one)}
            others -= {id(p) for p in _held(optimizer)}
            owned = [i for i, weight in enumerate(self._weights) if id(weight) not in others]
            known = self._owned[id(optimizer)] = (count, owned)
        return known[1]


def mask_cost(trainer: Trainer, weights: Iterable[Tensor]) -> str:
    """Return what it costs to keep elements of some weights at zero, as text.

    Args:
        trainer: The run, whose number of optimizer steps in an epoch counts.
        weights: All weights that may have masks; copies of them are multiplied, once for the
            weights and once for the gradients, as in each step.
    """
    copies = [weight.detach().clone() for weight in weights]
    seconds = 2 * min(_seconds_to_multiply(copies) for _ in range(3))
    steps = trainer.num_training_batches / trainer.accumulate_grad_batches
    if not math.isfinite(steps):
        return f"keeping weights at zero takes at most about {1000 * seconds:.1f} ms of each step"
    return f"keeping weights at zero takes at most about {seconds * steps:.1f} s of each epoch"


def _seconds_to_multiply(tensors: list[Tensor]) -> float:
    is_on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    start = time.monotonic()
    torch._foreach_mul_(tensors, tensors)
    if not is_on_cpu:  # other devices only queue the work
        torch.accelerator.synchronize()
    return time.monotonic() - start


def _held(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
