"""Holding weights at zero while optimizers step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class WeightMasks:
    """Multiplies weights by their masks after each optimizer step."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def hold(self, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        """Keep float masks where the weights are: one multiplication a step is then enough.

        Args:
            weights: Parameters by name.
            masks: For each of them, True where it is kept.
        """
        self._weights = [weights[name] for name in masks]
        self._masks = [masks[name].to(weights[name].device, weights[name].dtype) for name in masks]
        for index, weight in enumerate(self._weights):
            if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last):
                mask = self._masks[index].contiguous(memory_format=torch.channels_last)
                self._masks[index] = mask
        self.apply()

    def apply(self) -> None:
        """Set to zero what the masks drop."""
        if self._weights:
            with torch.no_grad():
                torch._foreach_mul_(self._weights, self._masks)

    def apply_to_gradients(self) -> None:
        """Set the gradients of what the masks drop to zero, so that no norm counts them."""
        for weight, mask in zip(self._weights, self._masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Apply the masks after each step of these optimizers."""
        self.release()
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def release(self) -> None:
        """Let the optimizers go."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def clear(self) -> None:
        """Forget weights and masks."""
        self._weights, self._masks = [], []

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.apply()
