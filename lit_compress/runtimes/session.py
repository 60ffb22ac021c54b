"""A session of ONNX Runtime whose sums of int8 products do not overflow."""

from __future__ import annotations

from typing import Any

from lit_compress.files.onnx_unshared import unshared
from lit_compress.runtimes.processor import lacks_vnni


def open_session(content: bytes, threads: int) -> Any:
    """Open a file in ONNX Runtime, on the CPU.

    On a processor without VNNI, int8 weights become uint8, whose products are added in 32 bits
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        content: Content of an ONNX file.
        threads: Number of threads that it may use; 0 means one per core.

    Returns:
        The ``onnxruntime.InferenceSession``.
    """
    if lacks_vnni() and b"DequantizeLinear" in content:
        options = _options(threads)
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 4  # that it cannot is no error
        try:
            return _session(unshared(content), options)
        except Exception:  # noqa: S110  # ONNX Runtime's exceptions have no common base class
            pass  # a file of another program may have other nodes; stored inputs show an overflow
    return _session(content, _options(threads))


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads wait busily after a call: they made another model of the process 1.5 times slower.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors only
    return options


def _session(content: bytes, options: Any) -> Any:
    import onnxruntime

    # A second try with the same provider prints a warning, and fails in the same way.
    return onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
