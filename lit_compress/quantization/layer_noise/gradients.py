"""Carry the noise of all layers to the outputs at once, by gradients.

What rounding one tensor adds to it, times the gradient of an output there, is what the output
changes, up to terms of second order. One backward pass gives the gradients at all tensors, so the
time grows with the number of layers, where a run of the rest of the graph for each layer would grow
with its square. A backward pass is of one number: the sum of all outputs with random signs. The
square of what that number changes is, on average, the sum of the squares of what all outputs change
(Hutchinson 1990, Communications in Statistics 19(2), whose estimator of a trace it is).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from lit_compress.artifact.fidelity import sqnr_db
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import first_rows, is_batched
from lit_compress.quantization.calibrate import Track
from lit_compress.quantization.layer_noise import sources as limits
from lit_compress.quantization.layer_noise.errors import Errors, NotDifferentiableError
from lit_compress.quantization.layer_noise.sources import Source

#: Squares that are averaged for each figure, if the budget allows it: a standard error of 0.8 dB.
SAMPLES = 64
#: Least number of them: a standard error of 1.1 dB.
FEWEST_SAMPLES = 32
#: Number of inputs with which it is found out where the images are in each value.
FEW_INPUTS = 3
#: An axis that holds the images, and whether each has parts in it that are not one after the other.
Place: TypeAlias = tuple[int, bool]
#: Most elements of the values of a forward pass, which are all kept: 256 MB.
KEPT = 2**26


def noise_by_gradients(
    prepared: GraphModule,
    sources: Mapping[Source, set[Node]],
    inputs: tuple[Tensor, ...],
    track: Track,
) -> dict[Source, float]:
    """Return the lowest SQNR of the outputs in dB if a single weight or activation is quantised.

    Args:
        prepared: Graph with calibrated observers.
        sources: The observers of each weight and activation.
        inputs: Inputs to measure with.
        track: Shows how far it is.

    Raises:
        NotDifferentiableError: If an operation of the graph, or an output, has no gradient.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        errors = Errors(prepared)
        inputs = tuple(tensor.clone() for tensor in inputs)
        places = _places(errors, first_rows([inputs], FEW_INPUTS))
        elements = errors.elements // errors.rows
        samples = min(max(limits.BUDGET // (3 * elements), FEWEST_SAMPLES), SAMPLES)
        inputs = first_rows([inputs], samples)
        power = _Power(sources, places, passes=math.ceil(samples / len(inputs[0])))
        # Where the images are mixed in a value, each is run by itself.
        chunks = _chunks(inputs, 1 if None in places else max(1, KEPT // elements))
        for chunk in track(chunks, "noise of each layer"):
            power.add(errors, chunk)
    return power.decibels()


def _chunks(inputs: tuple[Tensor, ...], rows: int) -> list[tuple[Tensor, ...]]:
    """Return inputs in parts of a number of rows."""
    length = len(inputs[0])
    return [
        tuple(
            tensor[start : start + rows] if is_batched(tensor, length) else tensor
            for tensor in inputs
        )
        for start in range(0, length, rows)
    ]


class _Power:
    """Adds up the squares of what quantising changes the outputs by.

    Args:
        sources: The observers of each weight and activation.
        places: For each error, where the images are.
        passes: Number of backward passes for each output.
    """

    def __init__(
        self, sources: Mapping[Source, set[Node]], places: Sequence[Place | None], passes: int
    ) -> None:
        self._sources = sources
        self._places = places
        self._passes = passes
        self._generator = torch.Generator().manual_seed(0)
        self._signals: dict[int, float] = defaultdict(float)
        self._noises: dict[tuple[Source, int], float] = defaultdict(float)

    def add(self, errors: Errors, inputs: tuple[Tensor, ...]) -> None:
        """Add those of a few inputs.

        Args:
            errors: Runs the graph.
            inputs: The inputs.
        """
        outputs = as_tensors(errors.run(*inputs))
        for index, output in enumerate(outputs):
            self._signals[index] += float(output.detach().double().square().sum())
            for _ in range(self._passes):
                signs = torch.randint(2, output.shape, generator=self._generator) * 2 - 1
                gradients = _gradients([output], [signs.to(output.dtype)], errors.points)
                self._add_changes(index, errors, gradients)

    def _add_changes(self, output: int, errors: Errors, gradients: Sequence[Tensor]) -> None:
        """Add the squares of what the signed sum of an output changes by, image by image."""
        found: dict[Node, Tensor] = {}
        for observer, error, gradient, place in zip(
            errors.observers, errors.errors, gradients, self._places, strict=True
        ):
            change = _by_image(gradient * error, place, errors.rows).sum(1, dtype=torch.float64)
            found[observer] = found[observer] + change if observer in found else change
        for source, observers in self._sources.items():
            changes = [found[observer] for observer in observers if observer in found]
            self._noises[source, output] += float(sum(changes, torch.zeros(1)).square().sum())

    def decibels(self) -> dict[Source, float]:
        """Return the lowest SQNR of the outputs for each source."""
        return {
            source: min(
                _decibels(signal, self._noises[source, index] / self._passes)
                for index, signal in self._signals.items()
            )
            for source in self._sources
        }


def _gradients(
    outputs: Sequence[Tensor], factors: Sequence[Tensor], points: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return the gradients of the sum of outputs times factors, at each point."""
    if not points:
        return ()
    return torch.autograd.grad(
        outputs, points, factors, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def _places(errors: Errors, inputs: tuple[Tensor, ...]) -> list[Place | None]:
    """Return where the images are in each value; None if they are mixed there.

    It is seen by the gradient of the outputs for the first image, which is zero for all others.

    Raises:
        NotDifferentiableError: If an operation or an output has no gradient.
    """
    outputs = as_tensors(errors.run(*inputs))
    if errors.points and not all(output.requires_grad for output in outputs):
        raise NotDifferentiableError
    if any(output.dim() == 0 or len(output) != errors.rows for output in outputs):
        return [None] * len(errors.points)
    first = [torch.zeros_like(output) for output in outputs]
    for factors in first:
        factors[0] = 1
    gradients = _gradients(outputs, first, errors.points)
    return [_place(gradient, errors.rows) for gradient in gradients]


def _place(gradient: Tensor, rows: int) -> Place | None:
    for axis, size in enumerate(gradient.shape):
        for inner in (False, True):
            if size % rows == 0 and not _by_image(gradient, (axis, inner), rows)[1:].any():
                return axis, inner
    return None


def _by_image(value: Tensor, place: Place | None, rows: int) -> Tensor:
    """Return a value with the images in the first of two axes."""
    if place is None or rows == 1:
        return value.reshape(1, -1)
    axis, inner = place
    parts = value.shape[axis] // rows
    split = (parts, rows) if inner else (rows, parts)
    shape = (*value.shape[:axis], *split, *value.shape[axis + 1 :])
    return value.reshape(shape).movedim(axis + inner, 0).reshape(rows, -1)


def _decibels(signal: float, noise: float) -> float:
    root = np.sqrt([signal])
    return sqnr_db(root, root - np.sqrt([noise]))
