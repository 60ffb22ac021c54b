"""Calibration: run a prepared graph over real batches, so that its observers record the ranges."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from lit_compress.errors import CalibrationError
from lit_compress.export.signature import Batch, as_tuple

#: How the range of an activation is taken from its observed values, see :class:`Calibrated`.
Calibration = Literal["minmax", "histogram", "percentile"]
#: How weights are rounded, see :class:`Calibrated`.
Rounding = Literal["nearest", "learned"]
#: Shows how far an iteration is: takes the items and what is done with them, yields the items.
Track = Callable[[Sequence[Any], str], Iterable[Any]]
#: Largest magnitude of int8 weights: 127 (``full``) or 64 (``reduced``).
WeightRange = Literal["full", "reduced"]


def untracked(items: Sequence[Any], description: str) -> Iterable[Any]:
    """Return the items: nothing shows how far an iteration over them is."""
    return items


def calibrate(
    prepared: GraphModule,
    batches: Iterable[Batch],
    owners: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
) -> int:
    """Run a prepared graph over the calibration batches.

    Args:
        prepared: Graph with observers, see :func:`lit_compress.quantization.pt2e.prepare`.
        batches: Input batches of the network: tensors, or tuples of tensors.
        owners: For error messages: by name of a graph node, the name of its layer.
        names: For error messages: names of the inputs, if there are several.

    Returns:
        The number of images in the batches.

    Raises:
        CalibrationError: If there is no batch, a batch is empty, or NaN or infinity occurs in a
            batch or in the output of a layer. Such a value would give a wrong scale without notice.

    Example:
        >>> import torch
        >>> calibrate(torch.nn.Identity(), [torch.zeros(4, 3), torch.ones(2, 3)])
        6
    """
    images = 0
    with torch.no_grad(), warnings.catch_warnings():
        # Observers warn about infinity, which is an error here.
        warnings.filterwarnings("ignore", message=r"torch\.inf detected")
        for index, batch in enumerate(batches):
            tensors = as_tuple(batch)
            _check_batch(tensors, index, names)
            _run_batch(prepared, tensors, index, owners or {})
            images += len(tensors[0])
    if not images:
        raise CalibrationError(
            "calibration got no batches: give the fit validation (or training) data, and "
            "calibration_batches of at least 1"
        )
    return images


def _check_batch(tensors: tuple[Tensor, ...], index: int, names: Sequence[str]) -> None:
    """Check that the tensors of a batch are finite and not empty."""
    for position, tensor in enumerate(tensors):
        several = len(tensors) > 1 and position < len(names)
        name = f"calibration batch {index}" + (f" ({names[position]})" if several else "")
        if not tensor.numel():
            raise CalibrationError(
                f"{name} is empty, of shape {tuple(tensor.shape)}: fix the data or its loader"
            )
        bad = ~torch.isfinite(tensor)
        if bad.any():
            raise CalibrationError(
                f"{name} holds {int(bad.sum())} values that are NaN or infinite: fix the data or "
                "its transform"
            )


def _run_batch(
    prepared: GraphModule, tensors: tuple[Tensor, ...], index: int, owners: Mapping[str, str]
) -> None:
    """Run one batch; if it fails or gives NaN or infinity, name the layer."""
    try:
        outputs = prepared(*tensors)
    except (RuntimeError, ValueError) as error:
        # Observers fail on NaN and infinity. A second run finds the layer that produces them.
        _NonFiniteFinder(prepared, index, owners).run(*tensors)
        raise CalibrationError(
            f"calibration batch {index} of shape {tuple(tensors[0].shape)} cannot be run: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}"
        ) from error
    if not all(_is_finite(value) for value in tree_leaves(outputs)):
        _NonFiniteFinder(prepared, index, owners).run(*tensors)


class _NonFiniteFinder(Interpreter):
    """Runs a graph up to the first layer that gives NaN or infinity, and raises with its name."""

    def __init__(self, graph: GraphModule, batch: int, owners: Mapping[str, str]) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # torch.fx would add the graph to the error message
        self.batch = batch
        self.owners = owners

    def run_node(self, n: Node) -> Any:
        """Run one node and check its output; observers are skipped."""
        if n.op == "call_module":
            return self.env[n.args[0]] if isinstance(n.args[0], Node) else super().run_node(n)
        value = super().run_node(n)
        if not all(_is_finite(leaf) for leaf in tree_leaves(value)):
            raise CalibrationError(
                f"layer {self.owners.get(n.name, n.name)} gives NaN or infinity for calibration "
                f"batch {self.batch}: the training has diverged (lower the learning rate, or take "
                "an earlier checkpoint), or the running statistics of batch norms are not yet "
                "those of the data (train longer, or raise their momentum)"
            )
        return value


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())
