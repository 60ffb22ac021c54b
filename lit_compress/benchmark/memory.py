"""Peak memory of a network: that of a process of its own, minus that of its imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import lit_compress
from lit_compress.benchmark.subjects.inputs import Shape
from lit_compress.errors import LitCompressError

#: Seconds after which a process is stopped.
PATIENCE = 300.0
#: Calls in the process: some memory is taken at the second one.
CALLS = 3


@dataclass(frozen=True)
class Job:
    """What a process loads and runs.

    Attributes:
        path: The artefact, ONNX file or checkpoint.
        runtime: The runtime.
        threads: Number of threads.
        batch: Number of examples; 0 imports what is needed, and runs nothing.
        shapes: Shapes of one example, where the file leaves them open.
        model: Import path of the class of a checkpoint's module.
    """

    path: str
    runtime: str
    threads: int
    batch: int
    shapes: tuple[Shape, ...] = ()
    model: str | None = None


class UnmeasuredError(LitCompressError):
    """The memory of a process cannot be measured; the message says why."""


def peak_memory(job: Job) -> int:
    """Return the peak memory in bytes that loading and running a network takes.

    Args:
        job: What to load and run.

    Raises:
        UnmeasuredError: If the system does not tell, or the process fails.
    """
    imports = Job("", job.runtime, 1, 0, (), job.model)
    return max(0, _of_process(job) - _of_imports(imports))


@cache
def _of_imports(job: Job) -> int:
    return _of_process(job)


def _of_process(job: Job) -> int:
    root = str(Path(lit_compress.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "lit_compress.benchmark.memory_program"]
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            command,
            input=json.dumps(asdict(job)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnmeasuredError(f"a process of its own did not run ({error})") from error
    if done.returncode or not done.stdout.strip().isdigit():
        last = _last_line(done.stderr.splitlines()) or f"it ended with {done.returncode}"
        raise UnmeasuredError(f"a process of its own failed: {last[:200]}")
    return int(done.stdout)


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
