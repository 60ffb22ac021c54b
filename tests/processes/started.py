"""Programs in several processes, as users start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Examples of the validation: no number of processes and of batches divides it.
EXAMPLES = 101
#: Seconds that a program may take, on a busy machine.
PATIENCE = 900


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program: it finds the tests, and uses one thread."""
    folders = [HERE, HERE.parent / "callbacks", HERE.parent]
    path = os.pathsep.join([*map(str, folders), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def start(command: list[object], **more: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**more),
        start_new_session=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    """Return the output of a process when it has ended; it is killed if it does not end."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def finished(command: list[object], **more: str) -> str:
    """Return the output of a command that ends well."""
    process = start(command, **more)
    output = output_of(process)
    assert process.returncode == 0, output[-4000:]
    return output


def nodes(count: int, each: int, command: list[object]) -> list[str]:
    """Run a program by torchrun on so many nodes, all of them this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    torchrun: list[object] = ["-m", "torch.distributed.run", f"--nnodes={count}"]
    torchrun += [f"--nproc-per-node={each}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    started = [start([*torchrun, f"--node-rank={rank}", *command]) for rank in range(count)]
    outputs = [output_of(process) for process in started]
    assert [process.returncode for process in started] == [0] * count, outputs[0][-4000:]
    return outputs


def left_by(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """Return what each process of ``fit_program.py`` has left."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
