"""Run ONNX files and OpenVINO's own format by OpenVINO."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from lit_compress.errors import ArtifactError
from lit_compress.files.reading import short
from lit_compress.runtimes.interface import Run

#: The processes that have used OpenVINO; a forked process has those of its parents.
_USED_OPENVINO: set[int] = set()


def openvino_run(path: str | Path, contents: Sequence[bytes], threads: int) -> Run:
    """Open a file by OpenVINO.

    Args:
        path: The file, for messages.
        contents: Content of an ONNX file, or of an ``.xml`` and a ``.bin`` file.
        threads: Number of threads; 0 means one per core.

    Raises:
        ArtifactError: If OpenVINO cannot load the file, or this process was forked from one that
            used OpenVINO.
    """
    import openvino

    if _USED_OPENVINO - {os.getpid()}:
        raise ArtifactError(
            f"OpenVINO cannot run {path} in a process that was forked from one that used OpenVINO, "
            "where it may wait for ever: start processes with spawn, or load it with the runtime "
            "onnxruntime"
        )
    _USED_OPENVINO.add(os.getpid())
    # Without the precision hint, OpenVINO may use bf16 where the processor supports it, and the
    # outputs would differ from those that were measured.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    try:
        core = openvino.Core()
        network = core.read_model(*map(BytesIO, contents))
        compiled = core.compile_model(network, "CPU", options)
    except Exception as error:  # OpenVINO raises RuntimeError for all kinds of failures
        raise ArtifactError(f"OpenVINO cannot load {path}: {short(error)}") from error
    own = threading.local()  # a request serves one call at a time, and refuses a second

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer(list(arrays))
        # A copy, since the request writes its next outputs into the same memory.
        return [np.array(found[index]) for index in range(len(compiled.outputs))]

    return run
