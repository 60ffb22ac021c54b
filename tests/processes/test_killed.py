"""All processes of a run are killed, and the run goes on in as many, in fewer or in more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .started import HERE, finished, start

pytestmark = pytest.mark.slow
PROGRAM = HERE.parent / "callbacks" / "pruning_program.py"
#: Epoch in which the processes are killed, between the pruning steps of epochs 4 and 6.
KILLED = 5


def killed(folder: Path, ranks: int, kind: str) -> None:
    """Kill all processes of a run in an epoch."""
    process = start([PROGRAM, folder, ranks, "-", kind])
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"epoch {KILLED}"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait(60)
    assert not (folder / "final-0").exists()


def run(folder: Path, ranks: int, kind: str) -> list[str]:
    finished([PROGRAM, folder, ranks, "-", kind])
    return [(folder / f"final-{rank}").read_text() for rank in range(ranks)]


@pytest.mark.parametrize("kind", ["filters", "rules", "aware"])
def test_two_processes_go_on_in_two_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    final = run(whole, 2, kind)
    assert final[0] == final[1]
    killed(part, 2, kind)
    assert run(part, 2, kind) == final


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["filters", "rules"])
def test_it_goes_on_in_fewer_and_in_more(
    before: int, after: int, kind: str, tmp_path: Path
) -> None:
    killed(tmp_path, before, kind)
    final = run(tmp_path, after, kind)
    assert final == [final[0]] * after
