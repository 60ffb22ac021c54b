"""Run ``.pte`` files by ExecuTorch."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_compress.runtimes.interface import Run


def open_executorch(content: bytes, threads: int) -> Run:
    """Open a ``.pte`` file.

    Args:
        content: Content of the file.
        threads: Number of threads of all ExecuTorch files of this process; 0 means one per core.

    Raises:
        RuntimeError: Of ExecuTorch, if it cannot load the file.
    """
    import executorch.kernels.quantized  # noqa: F401 - operators that XNNPACK does not take
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

    wanted = threads or os.cpu_count() or 1
    if portable_lib._threadpool_get_thread_count() != wanted:
        portable_lib._unsafe_reset_threadpool(wanted)
    own = threading.local()  # a method serves one call at a time

    def method() -> Any:
        if not hasattr(own, "method"):
            program = Runtime.get().load_program(
                content, verification=Verification.InternalConsistency
            )
            own.program = program
            own.method = program.load_method("forward")
        return own.method

    method()

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = method().execute([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])
        # A copy, since the method writes its next outputs into the same memory.
        return [np.array(tensor.numpy()) for tensor in found]

    return run
