"""Load an exported file into a runtime (ONNX Runtime or OpenVINO), with the same interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.files.onnx_check import check_onnx
from lit_compress.files.reading import as_path, read_limited, reading, short
from lit_compress.packed.model import onnx_content
from lit_compress.runtimes.calls import REMEDY, or_error, with_forks
from lit_compress.runtimes.interface import Engine, Input, Run, Runtime
from lit_compress.runtimes.openvino import openvino_run

#: The runtimes that read an ONNX file.
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")

#: Largest size of a model in bytes: that of protocol buffers.
LARGEST = (1 << 31) - 1

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


def is_installed(runtime: Runtime) -> bool:
    """Tell whether the package of a runtime can be imported."""
    return find_spec(runtime) is not None


def open_engine(
    path: str | Path, runtime: Runtime, threads: int, content: bytes | None = None
) -> Engine:
    """Load an ONNX file into a runtime.

    Args:
        path: The ONNX file, or a packed file of one.
        runtime: The runtime to use.
        threads: Number of threads that the runtime may use; 0 means one per core.
        content: Content of the file, if it was read already.

    Raises:
        ArtifactError: If the runtime is not installed or cannot load the file, the file has
            something that this package never writes, such as control flow, or the type of an input
            or output is not supported.
    """
    if runtime not in RUNTIMES:
        raise ArtifactError(f"{runtime} reads no ONNX file: use {' or '.join(RUNTIMES)}")
    if not is_installed(runtime):
        raise ArtifactError(
            f"{runtime} is not installed: pip install {runtime}, or use another runtime"
        )
    if content is None:
        content = read_limited(as_path(path, ArtifactError), LARGEST, ArtifactError, "a model")
    with reading(path, ArtifactError, REMEDY):
        content = onnx_content(content, str(path))
        check_onnx(content)
    session = _onnxruntime_session(path, content, threads)
    with reading(path, ArtifactError, REMEDY):
        inputs = tuple(_input(description, path) for description in session.get_inputs())
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        outputs = tuple(_output(description, path) for description in session.get_outputs())
    if not inputs or not outputs:
        missing = "output" if inputs else "input"
        raise ArtifactError(f"{path} has no {missing}, so it is no network: {REMEDY}")
    if runtime == "openvino":
        run = openvino_run(path, (content,), threads)
    else:
        run = _onnxruntime_run(session, [item.name for item in inputs])
    again = partial(open_engine, path, runtime, threads, content)
    run = with_forks(or_error(run, path, runtime), lambda: again().run)
    return Engine(runtime, inputs, outputs, metadata, run, again)


def _onnxruntime_run(session: Any, names: Sequence[str]) -> Run:
    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
        return found

    return run


def _onnxruntime_session(path: str | Path, content: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads wait busily after a call: they made another model of the process 1.5 times slower.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors only
    try:
        # A second try with the same provider prints a warning, and fails in the same way.
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ArtifactError(f"ONNX Runtime cannot load {path}: {short(error)}") from error


def _output(description: Any, path: str | Path) -> str:
    _check_type("output", description, path)
    return str(description.name)


def _check_type(what: str, description: Any, path: str | Path) -> None:
    if description.type not in NUMPY_TYPES:
        raise ArtifactError(
            f"the {what} {description.name} of {path} has the type {description.type}, which is "
            f"not supported (supported: {', '.join(NUMPY_TYPES)}): cast it inside the network"
        )


def _input(description: Any, path: str | Path) -> Input:
    """Convert ONNX Runtime's description of an input; a first axis without a size is the batch."""
    _check_type("input", description, path)
    shape = list(description.shape)
    batched = bool(shape) and not isinstance(shape[0], int)
    return Input(
        name=description.name,
        shape=tuple(shape[1:] if batched else shape),
        dtype=np.dtype(NUMPY_TYPES[description.type]),
        batched=batched,
    )
