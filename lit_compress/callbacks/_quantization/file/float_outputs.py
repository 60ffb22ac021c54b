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
    """Outputs of the network that a file should have. Each is computed once.

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output for a batch."""
        return self._first_batch[0].shape

    @cached_property
    def all(self) -> list[np.ndarray]:
        """Each output for all recorded inputs."""
        batches = [self._first_batch, *map(self.of, self._batches[1:])]
        return joined(batches, self.length)

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

        Where an output has no batch axis, the network is run again: it may depend on how many
        inputs there are.

        Args:
            count: Number of inputs.
        """
        if all(output.shape[:1] == (self.length,) for output in self._first_batch):
            return [output[:count] for output in self.all]
        return list(map(np.atleast_1d, self.of(first_rows(self._batches, count))))

    def of(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """Run the network, and return each of its outputs.

        Args:
            inputs: Inputs of the network.
        """
        own = [tensor.clone() for tensor in inputs]  # a forward may write to its inputs
        with torch.no_grad():
            if self._trained is not None:
                found = self._trained(self._copy, own)
            else:
                found = self._captured(*own)
        return [tensor.numpy() for tensor in as_tensors(found)]

    @cached_property
    def _first_batch(self) -> list[np.ndarray]:
        return self.of(self._batches[0])
