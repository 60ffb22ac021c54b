"""Running the exported file; needs numpy and onnxruntime, and neither torch nor lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_compress.artifact.engines import RUNTIMES, Input, Runtime, open_engine
from lit_compress.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lit_compress.artifact.card import Card

#: Keys of the file's metadata.
CLASSES = "lit_compress.classes"
SIZE = "lit_compress.size"


class OnnxModel:
    """An exported network as a callable: a batch of inputs in, the outputs of the network out.

    Args:
        path: The ONNX file.
        threads: Threads of the runtime; 0 takes one a core.
        card: The artefact's card, where it has one.
        runtime: ``onnxruntime`` or ``openvino``.

    Attributes:
        inputs: The file's inputs, in order.
        input_shape: Shape of one input (the first, of several), without the batch axis.
        input_dtype: numpy type of the inputs: uint8 where the file takes raw pixels.
        classes: Class names by label, where the file has them.
        runtime: What runs it.
        card: As given.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int = 1,
        card: Card | None = None,
        runtime: Runtime = "onnxruntime",
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InvalidArgumentError(f"threads must be a whole number from 0, got {threads!r}")
        if runtime not in RUNTIMES:
            raise InvalidArgumentError(f"runtime must be one of {RUNTIMES}, got {runtime!r}")
        self._engine = open_engine(path, runtime, threads)
        self.inputs: tuple[Input, ...] = self._engine.inputs
        self.input_shape: tuple[int, ...] = self.inputs[0].shape
        self.input_dtype = self.inputs[0].dtype
        names = self._engine.metadata.get(CLASSES, "")
        self.classes: tuple[str, ...] = tuple(names.split("\n")) if names else ()
        self.runtime: Runtime = runtime
        self.card = card

    def __call__(self, *inputs: Any, **named: Any) -> np.ndarray:
        """Return the outputs for a batch.

        Args:
            inputs: numpy array, or anything numpy can read such as a torch tensor on the CPU;
                first axis the batch, of ``input_shape`` and ``input_dtype``. Several inputs come in
                order, by name, or in one mapping of names.
            named: Inputs by name.

        Raises:
            InvalidArgumentError: If their number, shape or type is another.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            named, inputs = {**inputs[0], **named}, ()
        return self._engine.run(self._arrays(inputs, named))

    def _arrays(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> list[np.ndarray]:
        names = [given.name for given in self.inputs]
        values = dict(zip(names, inputs, strict=False)) | named
        if len(inputs) + len(named) != len(names) or set(values) != set(names):
            raise InvalidArgumentError(
                f"this model takes {len(names)} inputs ({', '.join(names)}), got {len(inputs)}"
                + (f" and {', '.join(named)}" if named else "")
            )
        return [_checked(given, values[given.name]) for given in self.inputs]


def _checked(given: Input, value: Any) -> np.ndarray:
    array = np.ascontiguousarray(value)
    shape = array.shape[1:] if given.batched else np.shape(value)
    if array.dtype != given.dtype or shape != given.shape or (given.batched and not array.ndim):
        wanted = [*(["batch"] if given.batched else []), *map(str, given.shape)]
        raise InvalidArgumentError(
            f"this model takes {given.dtype} of shape {' x '.join(wanted)}, got {array.dtype} of "
            f"shape {' x '.join(str(size) for size in array.shape)}"
        )
    return array
