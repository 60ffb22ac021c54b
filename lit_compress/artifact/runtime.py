"""Running the exported file; needs numpy and onnxruntime, and neither torch nor lightning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_compress.errors import ArtifactError, InvalidArgumentError

if TYPE_CHECKING:
    from lit_compress.artifact.card import Card

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OnnxModel:
    """An exported network as a callable: a batch of inputs in, the outputs of the network out.

    Args:
        path: The ONNX file.
        threads: Threads of ONNX Runtime; 0 takes one a core.
        card: The artefact's card, where it has one.

    Attributes:
        input_shape: Shape of one input, without the batch axis.
        input_dtype: numpy type of the inputs: uint8 where the file takes raw pixels.
        card: As given.
    """

    def __init__(self, path: str | Path, threads: int = 1, card: Card | None = None) -> None:
        import onnxruntime

        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InvalidArgumentError(f"threads must be a whole number from 0, got {threads!r}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own, unrelated classes
            first = str(error).splitlines()[0]
            raise ArtifactError(f"ONNX Runtime cannot load {path}: {first}") from error
        given = self._session.get_inputs()[0]
        if given.type not in NUMPY_TYPES:
            raise ArtifactError(f"{path} takes {given.type}, which this runner does not know")
        self._input_name = given.name
        self.input_shape: tuple[int, ...] = tuple(given.shape[1:])
        self.input_dtype = np.dtype(NUMPY_TYPES[given.type])
        self.card = card

    def __call__(self, inputs: Any) -> np.ndarray:
        """Return the outputs for a batch.

        Args:
            inputs: numpy array, or anything numpy can read such as a torch tensor on the CPU;
                first axis the batch, of ``input_shape`` and ``input_dtype``.

        Raises:
            InvalidArgumentError: If its shape or type is another.
        """
        batch = np.ascontiguousarray(inputs)
        if batch.dtype != self.input_dtype or batch.shape[1:] != self.input_shape:
            wanted = " x ".join(str(size) for size in ("batch", *self.input_shape))
            raise InvalidArgumentError(
                f"this model takes {self.input_dtype} of shape {wanted}, got {batch.dtype} of "
                f"shape {' x '.join(str(size) for size in batch.shape)}"
            )
        outputs: np.ndarray = self._session.run(None, {self._input_name: batch})[0]
        return outputs
