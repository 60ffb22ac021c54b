"""What the float network returns, which a file is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_compress.callbacks._quantization.quality import joined
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import Batch, as_tuple, first_rows


class FloatOutputs:
    """Outputs of the network that a file should have.

    Args:
        inputs: The recorded inputs, at least one batch.
        copy: The user's module that it is in.
        captured: Its forward, from tensors to tensors.
        trained: Runs it as it was trained, for a module and inputs. Default: its own forward.
    """

    def __init__(
        self,
        inputs: Sequence[Batch],
        copy: LightningModule,
        captured: nn.Module,
        trained: Callable[[LightningModule, Sequence[Tensor]], Any] | None = None,
    ) -> None:
        self._batches = [as_tuple(batch) for batch in inputs]
        self._copy, self._captured, self._trained = copy, captured, trained

    @property
    def is_fake_quantized(self) -> bool:
        """Whether the network computes as it was trained, with rounded numbers."""
        return self._trained is not None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output for a batch."""
        with torch.no_grad():
            return tuple(self._of(self._batches[0])[0].shape)

    @cached_property
    def all(self) -> list[np.ndarray]:
        """Each output for all recorded inputs."""
        with torch.no_grad():
            batches = [self._of(batch) for batch in self._batches]
        return joined([[tensor.numpy() for tensor in batch] for batch in batches], self.length)

    @property
    def length(self) -> int:
        """Number of examples in the first batch of recorded inputs."""
        return len(self._batches[0][0])

    @property
    def examples(self) -> int:
        """Number of examples in all recorded inputs."""
        return sum(len(batch[0]) for batch in self._batches)

    def first(self, count: int) -> list[np.ndarray]:
        """Return each output for the first inputs.

        The network is run again: an output without a batch axis may depend on how many there are.

        Args:
            count: Number of inputs.
        """
        rows = first_rows(self._batches, count)
        with torch.no_grad():
            found = self._of(rows)
        return [np.atleast_1d(tensor.numpy()) for tensor in found]

    def _of(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs = [tensor.clone() for tensor in batch]  # a forward may write to its inputs
        if self._trained is not None:
            return as_tensors(self._trained(self._copy, inputs))
        return as_tensors(self._captured(*inputs))
