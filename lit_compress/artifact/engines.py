"""Load an exported file into a runtime (ONNX Runtime or OpenVINO), with the same interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.packed.model import onnx_content

Runtime = Literal["onnxruntime", "openvino"]
#: Takes one array per input of a file, returns one per output.
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class Input:
    """One input of an ONNX file.

    Attributes:
        name: Name of the input in the file.
        shape: Shape of the input without the batch axis.
        dtype: numpy type of the input.
        batched: Whether the first axis of the input is the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool


@dataclass(frozen=True)
class Engine:
    """An ONNX file that is loaded into a runtime.

    Attributes:
        runtime: Name of the runtime.
        inputs: Inputs of the file, in order.
        outputs: Names of its outputs, in order.
        metadata: Metadata of the file: text values by key.
        run: Function that takes one array per input and returns one per output.
    """

    runtime: Runtime
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]
    run: Run


def is_installed(runtime: Runtime) -> bool:
    """Tell whether the package of a runtime can be imported."""
    return find_spec(runtime) is not None


def open_engine(path: str | Path, runtime: Runtime, threads: int) -> Engine:
    """Load an ONNX file into a runtime.

    Args:
        path: The ONNX file, or a packed file of one.
        runtime: The runtime to use.
        threads: Number of threads that the runtime may use; 0 means one per core.

    Raises:
        ArtifactError: If the runtime is not installed or cannot load the file, or the type of an
            input is not supported.
    """
    if not is_installed(runtime):
        raise ArtifactError(
            f"{runtime} is not installed: pip install {runtime}, or use another runtime"
        )
    content = onnx_content(path)
    session = _onnxruntime_session(path, content, threads)
    inputs = tuple(_input(description, path) for description in session.get_inputs())
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    outputs = tuple(description.name for description in session.get_outputs())
    if runtime == "openvino":
        run = _openvino_run(path, content, threads, len(outputs))
        return Engine(runtime, inputs, outputs, metadata, run)
    names = [item.name for item in inputs]

    def run_session(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
        return found

    return Engine(runtime, inputs, outputs, metadata, run_session)


def _onnxruntime_session(path: str | Path, content: str | bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        first = str(error).splitlines()[0]
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {first}") from error


def _openvino_run(path: str | Path, content: str | bytes, threads: int, outputs: int) -> Run:
    import openvino

    # Without the precision hint, OpenVINO may use bf16 where the processor supports it, and the
    # outputs would differ from those that were measured.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        core = openvino.Core()
        model = content if isinstance(content, str) else core.read_model(content)
        compiled = core.compile_model(model, "CPU", options)
    except Exception as error:  # OpenVINO raises RuntimeError for all kinds of failures
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ArtifactError(f"OpenVINO cannot load {path}: {first}") from error
    request = compiled.create_infer_request()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = request.infer(list(arrays))
        # A copy, since the request writes its next outputs into the same memory.
        return [np.array(found[index]) for index in range(outputs)]

    return run


def _input(description: Any, path: str | Path) -> Input:
    """Convert ONNX Runtime's description of an input; a first axis without a size is the batch."""
    if description.type not in NUMPY_TYPES:
        raise ArtifactError(
            f"the input {description.name} of {path} has the type {description.type}, which is not "
            f"supported (supported: {', '.join(NUMPY_TYPES)}): cast it inside the network"
        )
    shape = list(description.shape)
    batched = bool(shape) and not isinstance(shape[0], int)
    return Input(
        name=description.name,
        shape=tuple(shape[1:] if batched else shape),
        dtype=np.dtype(NUMPY_TYPES[description.type]),
        batched=batched,
    )
