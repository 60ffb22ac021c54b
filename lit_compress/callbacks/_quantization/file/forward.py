"""A file in the place of a network's forward, in any process of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lit_compress.artifact import OnnxModel
from lit_compress.datamodules.transforms import Preprocess
from lit_compress.evaluation.export_target import ExportTarget


@dataclass(frozen=True)
class FileForward:
    """Runs a file on the arguments of a network's forward, and returns what the network would.

    It can be pickled, for another process.

    Attributes:
        network: The network.
        undone: The normalisation that is in the file, and so is undone in its inputs; None if the
            file takes what the network takes.
        model: The file, in a runtime.
    """

    network: ExportTarget
    undone: Preprocess | None
    model: OnnxModel

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the file.

        Args:
            args: Arguments of the forward, by position.
            kwargs: Arguments of the forward, by name.
        """
        tensors = self.network.tensors(args, kwargs)
        if self.undone is not None:
            tensors = (self.undone.undo(tensors[0])[0],)
        found = self.model.all_outputs(*self.network.arrays(self.model, tensors))
        return self.network.outputs.structured([torch.from_numpy(array) for array in found])
