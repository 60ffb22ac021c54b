"""Calibration: the activation ranges, from real batches that were looked at first."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.errors import CalibrationError
from lit_compress.export.signature import Batch, as_tuple

Calibration = Literal["minmax", "histogram", "percentile"]
WeightRange = Literal["full", "reduced"]


def calibrate(
    prepared: GraphModule,
    batches: Iterable[Batch],
    owners: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> int:
    """Run a prepared graph over the calibration batches.

    Args:
        prepared: Graph with observers in it.
        batches: Input batches of the network.
        owners: For each node of the graph, by name, the layer it belongs to; for messages.
        names: Names of the inputs, where there are several; for messages.

    Returns:
        The number of images seen.

    Raises:
        CalibrationError: If there is no batch, one is empty, or it or what a layer makes of it
            holds NaN or infinity (such values would silently end in a wrong scale).
    """
    images = 0
    with torch.no_grad(), warnings.catch_warnings():
        # What an observer says of infinity, which is an error here.
        warnings.filterwarnings("ignore", message=r"torch\.inf detected")
        for index, batch in enumerate(batches):
            tensors = as_tuple(batch)
            for place, tensor in enumerate(tensors):
                of = f" ({names[place]})" if len(tensors) > 1 and place < len(names) else ""
                _check(tensor, f"calibration batch {index}{of}")
            try:
                outputs = prepared(*tensors)
            except (RuntimeError, ValueError) as error:
                # Observers fail on what is not finite; which layer gave it is found out apart.
                _Watch(prepared, index, owners or {}).run(*tensors)
                raise CalibrationError(
                    f"calibration batch {index} of shape {tuple(tensors[0].shape)} cannot be run: "
                    f"{next(iter(str(error).splitlines()), type(error).__name__)}"
                ) from error
            if not all(_is_finite(value) for value in tree_leaves(outputs)):
                _Watch(prepared, index, owners or {}).run(*tensors)
            images += len(tensors[0])
    if not images:
        raise CalibrationError(
            "calibration got no batches: give the fit validation (or training) data, and "
            "calibration_batches of at least 1"
        )
    return images


class _Watch(Interpreter):
    """Runs a graph up to the first layer that gives NaN or infinity, and names it."""

    def __init__(self, graph: GraphModule, batch: int, owners: Mapping[str, str]) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # it would be written into the error's message
        self.batch = batch
        self.owners = owners

    def run_node(self, n: Node) -> Any:
        """Run one node and look at what it gives; observers are passed over."""
        if n.op == "call_module":
            return self.env[n.args[0]] if isinstance(n.args[0], Node) else super().run_node(n)
        value = super().run_node(n)
        if not all(_is_finite(leaf) for leaf in tree_leaves(value)):
            raise CalibrationError(
                f"layer {self.owners.get(n.name, n.name)} gives NaN or infinity for calibration "
                f"batch {self.batch}: the training has diverged (lower the learning rate, or take "
                "an earlier checkpoint)"
            )
        return value


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())


def _check(tensor: Tensor, name: str) -> None:
    if not tensor.numel():
        raise CalibrationError(f"{name} is empty, of shape {tuple(tensor.shape)}")
    bad = ~torch.isfinite(tensor)
    if bad.any():
        raise CalibrationError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite: mend the data or its "
            "transform"
        )
