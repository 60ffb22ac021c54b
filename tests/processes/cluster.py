"""A stand-in of SLURM on one machine: a method ``sbatch``, the commands ``srun`` and ``scontrol``.

It reads the ``#SBATCH`` lines of a script, runs the tasks of an array one after the other, gives
each process the variables that SLURM gives it, sends the signal that the script asks for, and ends
and starts a job again that asks for it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .started import HERE, PATIENCE, environment

ROOT = HERE.parents[1]
JOB = 4711
#: Starts a process for each task, and writes their numbers into a file.
SRUN = """#!{python}
import os, subprocess, sys
count = int(os.environ["SLURM_NTASKS"])
each = int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = []
for rank in range(count):
    place = {{"SLURM_PROCID": rank, "SLURM_LOCALID": rank % each, "SLURM_NODEID": rank // each}}
    env = dict(os.environ, **{{name: str(value) for name, value in place.items()}})
    tasks.append(subprocess.Popen([sys.executable, *sys.argv[2:]], env=env))
with open("{folder}/tasks", "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> "{folder}/asked"
"""


class Cluster:
    """Runs the jobs of a script.

    Args:
        folder: Folder of its commands and notes.

    Attributes:
        jobs: For each job that was started, its output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, list[str]()
        (folder / "bin").mkdir(parents=True)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            command = folder / "bin" / name
            command.write_text(text.format(python=sys.executable, folder=folder))
            command.chmod(0o755)

    def sbatch(
        self, script: Path, *words: object, nearly_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Run a script to its end.

        Args:
            script: The script.
            words: Its arguments.
            nearly_over: Tells whether the time of the first job is nearly over.
        """
        found = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.M))
        first, last = (found.get("array") or "0-0").split("-")
        number = getattr(signal, (found["signal"] or "").partition("@")[0])
        for index in range(int(first), int(last) + 1):
            variables = _variables(found, index)
            self._job([script, *words], variables, nearly_over, number)
            if self._asked():
                assert "requeue" in found
                self._job([script, *words], variables | {"SLURM_RESTART_COUNT": "1"})

    def _job(
        self,
        command: list[object],
        variables: dict[str, str],
        nearly_over: Callable[[], bool] = lambda: False,
        number: int = 0,
    ) -> None:
        """Run a job until it ends, or has asked to be run again."""
        env = environment(**variables)
        env["PATH"] = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{env['PATH']}"
        before, sent, begun = self._asked(), False, time.monotonic()
        with (self.folder / "out").open("w+") as out:
            job = subprocess.Popen(
                ["/bin/bash", *map(str, command)],
                cwd=ROOT,
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while job.poll() is None and self._asked() == before:
                assert time.monotonic() - begun < PATIENCE
                if not sent and nearly_over():
                    sent = True
                    for task in (self.folder / "tasks").read_text().split():
                        os.kill(int(task), number)
                time.sleep(0.1)
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
            out.seek(0)
            self.jobs.append(out.read())
        asked = self._asked() != before
        assert asked or job.wait(60) == 0, self.jobs[-1][-4000:]

    def _asked(self) -> list[str]:
        """Return what ``scontrol`` was asked for."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []


def _variables(found: dict[str, str], index: int) -> dict[str, str]:
    nodes, each = int(found["nodes"]), int(found["ntasks-per-node"])
    variables = {
        "SLURM_JOB_ID": str(JOB + index),
        "SLURM_JOB_NAME": found["job-name"],
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * each),
        "SLURM_NTASKS_PER_NODE": str(each),
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1",
    }
    if "array" in found:
        variables |= {"SLURM_ARRAY_JOB_ID": str(JOB), "SLURM_ARRAY_TASK_ID": str(index)}
    return variables
