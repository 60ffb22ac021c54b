"""Run the exported file. Needs numpy and onnxruntime; imports neither torch nor lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_compress.errors import InvalidArgumentError
from lit_compress.runtimes.interface import Engine, Input, Runtime
from lit_compress.runtimes.onnx import RUNTIMES, open_engine

if TYPE_CHECKING:
    from lit_compress.artifact.card import Card

#: Keys of the file's metadata.
CLASSES = "lit_compress.classes"
SIZE = "lit_compress.size"


class OnnxModel:
    """An exported network as a callable: takes a batch of inputs, returns the network's outputs.

    :func:`lit_compress.load` returns one for an artefact. The class itself also runs an ONNX file
    without an artefact around it.

    Args:
        path: The ONNX file.
        threads: Number of threads of the runtime; 0 means one per core.
        card: Card of the artefact, if there is one.
        runtime: ``onnxruntime`` or ``openvino``.
        content: Content of the file, if it was read already.
        engine: The file in a runtime, if it was opened already. It is taken as it is.

    Attributes:
        inputs: Inputs of the file, in order: name, shape, type.
        outputs: Names of its outputs, in order.
        input_shape: Shape of the first input without the batch axis.
        input_dtype: numpy type of the first input: uint8 if the file takes raw pixels.
        classes: Class names, indexed by label; empty if the file has none.
        runtime: Name of the runtime.
        card: Card of the artefact, or None.

    Raises:
        ArtifactError: If the runtime is not installed or cannot load the file.
        InvalidArgumentError: If ``threads`` or ``runtime`` is invalid.

    Example:
        >>> import numpy as np, onnx.parser
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "model.onnx")
        ...     onnx.save(onnx.parser.parse_model('''
        ...         <ir_version: 10, opset_import: ["": 20]>
        ...         twice (float[batch, 3] x) => (float[batch, 3] y) { y = Add(x, x) }
        ...     '''), file)
        ...     model = OnnxModel(file)
        >>> model
        OnnxModel(x: float32 batch x 3, onnxruntime)
        >>> model.input_shape, str(model.input_dtype)
        ((3,), 'float32')
        >>> model(np.array([[1, 2, 3]], np.float32))
        array([[2., 4., 6.]], dtype=float32)
    """

    def __init__(
        self,
        path: str | Path,
        threads: int = 1,
        card: Card | None = None,
        runtime: Runtime = "onnxruntime",
        content: bytes | None = None,
        engine: Engine | None = None,
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InvalidArgumentError(f"threads must be a whole number from 0, got {threads!r}")
        if engine is None and runtime not in RUNTIMES:
            raise InvalidArgumentError(f"runtime must be one of {RUNTIMES}, got {runtime!r}")
        self._engine = engine or open_engine(path, runtime, threads, content)
        self.inputs: tuple[Input, ...] = self._engine.inputs
        self.outputs: tuple[str, ...] = self._engine.outputs
        self.input_shape: tuple[int, ...] = self.inputs[0].shape
        self.input_dtype = self.inputs[0].dtype
        names = self._engine.metadata.get(CLASSES, "")
        self.classes: tuple[str, ...] = tuple(names.split("\n")) if names else ()
        self.runtime: Runtime = self._engine.runtime
        self.card = card

    def __repr__(self) -> str:
        axes = (("batch",) * found.batched + found.shape for found in self.inputs)
        shapes = [" x ".join(map(str, sizes)) for sizes in axes]
        takes = ", ".join(
            f"{found.name}: {found.dtype} {shape}"
            for found, shape in zip(self.inputs, shapes, strict=True)
        )
        classes = f", {len(self.classes)} classes" if self.classes else ""
        run = "" if self.card is None else f", card of {self.card.run!r}"
        return f"OnnxModel({takes}{classes}, {self.runtime}{run})"

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the network's outputs for a batch.

        Args:
            inputs: A numpy array, or anything that numpy converts, such as a torch tensor on the
                CPU, of shape (batch, ``*input_shape``) and type ``input_dtype``. A model with
                several inputs takes them in order, by name, or as one mapping from names.
            named: Inputs by name.

        Returns:
            The output of the file as an array, whose first axis is the batch. If the file has
            several outputs, a dictionary of arrays by name, in the order of ``outputs``.

        Raises:
            InvalidArgumentError: If the number, a name, the shape or the type of the inputs is
                wrong.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            named, inputs = {**inputs[0], **named}, ()
        found = self._engine.run(self._arrays(inputs, named))
        return found[0] if len(found) == 1 else dict(zip(self.outputs, found, strict=True))

    def all_outputs(self, *inputs: Any) -> list[np.ndarray]:
        """Return all outputs for a batch as a list of arrays, even if there is only one.

        Args:
            inputs: The inputs in order.

        Raises:
            InvalidArgumentError: As in a call.
        """
        found = self(*inputs)
        return list(found.values()) if isinstance(found, dict) else [found]

    def _arrays(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> list[np.ndarray]:
        names = [expected.name for expected in self.inputs]
        values = dict(zip(names, inputs, strict=False)) | named
        if len(inputs) + len(named) != len(names) or set(values) != set(names):
            raise InvalidArgumentError(
                f"this model takes {len(names)} inputs ({', '.join(names)}), got {len(inputs)}"
                + (f" and {', '.join(named)}" if named else "")
            )
        return [_checked_array(expected, values[expected.name]) for expected in self.inputs]


def _checked_array(expected: Input, value: Any) -> np.ndarray:
    """Return a value as an array, after a check of its type and shape."""
    array = np.ascontiguousarray(value)
    shape = array.shape[1:] if expected.batched else np.shape(value)
    no_batch = expected.batched and not array.ndim
    if array.dtype != expected.dtype or shape != expected.shape or no_batch:
        wanted = [*(["batch"] if expected.batched else []), *map(str, expected.shape)]
        raise InvalidArgumentError(
            f"this model takes {expected.dtype} of shape {' x '.join(wanted)}, got {array.dtype} "
            f"of shape {' x '.join(str(size) for size in array.shape)}"
        )
    return array
