"""Ray Train: two workers compress, and a fit whose worker is killed goes on from its checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lit_compress.artifact import Card
from lit_compress.artifact.folder.card import read_card

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_train.py"
#: Seconds that a fit may take: a busy machine is no fault.
PATIENCE = 1500
#: Name of a process that trains, as far as Linux keeps it.
WORKER = "ray::RayTrainWo"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc"),
]


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the example; Ray's processes take part in the work as others do, and ask no token."""
    own = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "printed.txt").open("wb") as printed:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(EXAMPLE), "--folder", str(folder / "out")],
            cwd=EXAMPLE.parent,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, OMP_NUM_THREADS="1", **own),
        )


def ended(process: subprocess.Popen[bytes], folder: Path) -> tuple[Card, str]:
    """Return the card of a fit, and what it printed."""
    code = process.wait(PATIENCE)
    printed = (folder / "printed.txt").read_text("utf-8", errors="replace")
    assert code == 0, printed[-5000:]
    return read_card(folder / "out" / "artifact"), printed


def workers(driver: int) -> list[int]:
    """Return the process ids of the train workers that a program started."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, name, rest = re.split(r" \(|\) ", path.read_text(), maxsplit=2)
        except OSError:
            continue  # it has ended
        parents[int(pid)], names[int(pid)] = int(rest.split()[1]), name

    def is_below(pid: int) -> bool:
        while pid in parents:
            if pid == driver:
                return True
            pid = parents[pid]
        return False

    return [pid for pid, name in names.items() if name == WORKER and is_below(pid)]


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_two_workers_prune_and_quantise(tmp_path: Path) -> None:
    card, printed = ended(start(tmp_path), tmp_path)
    assert "the fit goes on from" not in printed
    assert [variant.name for variant in card.variants] == ["pruned", "int8"]
    assert card.pruning[0]["reached"] == pytest.approx(0.5, abs=0.05)
    assert card.variants[-1].metric.value > 0.7
    assert "after epoch 5" in printed


def test_a_killed_worker_restarts_from_the_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path)
    stored = tmp_path / "out" / "digits"
    wait_for(lambda: process.poll() is not None or len(list(stored.glob("checkpoint_*"))) > 0)
    os.kill(wait_for(lambda: workers(process.pid))[-1], signal.SIGKILL)
    card, printed = ended(process, tmp_path)
    assert "the fit goes on from checkpoint_" in printed
    assert card.pruning[0]["reached"] == pytest.approx(0.5, abs=0.05)
    assert "after epoch 5" in printed
