"""The runtimes that can run an exported file, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lit_compress.errors import ArtifactError

Runtime = Literal["onnxruntime", "openvino"]

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class Input:
    """One input of a file.

    Attributes:
        name: Its name.
        shape: Of one input, without the batch axis where it has one.
        dtype: Its numpy type.
        batched: Whether it has a batch axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool


@dataclass(frozen=True)
class Engine:
    """A file, loaded.

    Attributes:
        runtime: What runs it.
        inputs: Its inputs, in order.
        metadata: Its text entries.
        run: Takes an array for each input, returns the outputs.
    """

    runtime: Runtime
    inputs: tuple[Input, ...]
    metadata: dict[str, str]
    run: Callable[[Sequence[np.ndarray]], np.ndarray]


def is_installed(runtime: Runtime) -> bool:
    """Tell whether a runtime can be imported."""
    return find_spec(runtime) is not None


def open_engine(path: str | Path, runtime: Runtime, threads: int) -> Engine:
    """Load a file into a runtime.

    Args:
        path: The ONNX file.
        runtime: What is to run it.
        threads: Threads it may use; 0 takes one a core.

    Raises:
        ArtifactError: If the runtime is not installed, or cannot load the file.
    """
    if not is_installed(runtime):
        raise ArtifactError(
            f"{runtime} is not installed: pip install {runtime}, or use another runtime"
        )
    session = _onnxruntime_session(path, threads)
    inputs = tuple(_input(given, path) for given in session.get_inputs())
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    if runtime == "openvino":
        return Engine(runtime, inputs, metadata, _openvino_run(path, threads))
    names = [given.name for given in inputs]

    def run(arrays: Sequence[np.ndarray]) -> np.ndarray:
        outputs: np.ndarray = session.run(None, dict(zip(names, arrays, strict=True)))[0]
        return outputs

    return Engine(runtime, inputs, metadata, run)


def _onnxruntime_session(path: str | Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, unrelated classes
        first = str(error).splitlines()[0]
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {first}") from error


def _openvino_run(path: str | Path, threads: int) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    import openvino

    # Lower precision where the processor has it would give other answers.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:  # openvino raises RuntimeError for everything
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        raise ArtifactError(f"OpenVINO cannot load {path}: {first}") from error
    request = compiled.create_infer_request()

    def run(arrays: Sequence[np.ndarray]) -> np.ndarray:
        # Copied: the request writes its next outputs into the same memory.
        return np.array(request.infer(list(arrays))[0])

    return run


def _input(given: Any, path: str | Path) -> Input:
    if given.type not in NUMPY_TYPES:
        raise ArtifactError(f"{path} takes {given.type}, which this runner does not know")
    shape = list(given.shape)
    batched = bool(shape) and not isinstance(shape[0], int)
    return Input(
        given.name,
        tuple(shape[1:] if batched else shape),
        np.dtype(NUMPY_TYPES[given.type]),
        batched,
    )
