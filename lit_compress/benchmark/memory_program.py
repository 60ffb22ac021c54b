"""The program of a process whose peak memory is measured: a job as JSON in, bytes out."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from lit_compress.benchmark.memory import CALLS, Job
from lit_compress.benchmark.subjects.opening import open_subject
from lit_compress.benchmark.subjects.subject import EAGER

#: What Linux says of a process.
STATUS = Path("/proc/self/status")

#: By runtime, the modules that opening a file imports.
MODULES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "executorch": (
        "executorch.kernels.quantized",
        "executorch.extension.pybindings.portable_lib",
        "executorch.runtime",
    ),
    "litert": ("ai_edge_litert.interpreter",),
}


def main() -> int:
    """Run the job that stands on the standard input, and print the peak memory in bytes.

    Returns:
        The exit code: 1 if the system does not tell the memory of a process.
    """
    job = Job(**json.load(sys.stdin))
    if job.batch:
        _run(job)
    else:
        _import(job)
    peak = peak_bytes()
    if peak is None:
        print("this system does not tell the peak memory of a process", file=sys.stderr)
        return 1
    print(peak)
    return 0


def peak_bytes() -> int | None:
    """Return the peak memory of this process in bytes; None if the system does not tell.

    On Linux it is ``VmHWM``, since ``getrusage`` counts what the parent process had before it
    started this one.
    """
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(job: Job) -> None:
    shapes = [tuple(shape) for shape in job.shapes]
    subject = open_subject(job.path, shapes, job.model, check=False)
    with subject.with_threads(job.threads):
        run = subject.runner(job.runtime, job.threads, job.batch)
        for _ in range(CALLS):
            run()


def _import(job: Job) -> None:
    """Import what the job needs, and no more."""
    if job.runtime == EAGER:
        from lit_compress.benchmark.subjects import checkpoint

        if job.model is not None:
            checkpoint.imported(job.model)
        return
    import_module("onnxruntime")  # it reads the inputs of the file for every runtime
    for name in MODULES[job.runtime]:
        import_module(name)


if __name__ == "__main__":
    sys.exit(main())
