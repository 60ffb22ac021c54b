"""Equal weights give equal bytes: in another process, at another time, with more threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ForeignModule

from lit_compress.artifact import write_replay
from lit_compress.checkpoints.saved_weights import save_weights
from lit_compress.pruning import analyse
from lit_compress.pruning.channels.resize import UnprunedShapes

HERE = Path(__file__).parent
FILES = ("model.onnx", "model.safetensors", "replay.npz")


def converted(folder: Path, threads: int, seed: int) -> Path:
    """Convert in a process with a hash seed of its own."""
    path = os.pathsep.join([str(HERE.parent), *sys.path])
    environment = {"PYTHONPATH": path, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, str(HERE / "conversion_program.py"), str(folder), str(threads)],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def figures(folder: Path) -> Any:
    """Return a card without the times on it, and its digest, which is also of them."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    return {name: value for name, value in card.items() if name not in ("environment", "digest")}


@pytest.mark.slow
def test_conversions_of_equal_weights_are_equal(tmp_path: Path) -> None:
    """``model.safetensors`` had its metadata in another order each time."""
    folders = [
        converted(tmp_path / f"{number}", threads, seed)
        for number, (threads, seed) in enumerate([(1, 0), (2, 1), (1, 2), (2, 3)])
    ]
    for name in FILES:
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    assert all(figures(folder) == figures(folders[0]) for folder in folders)


def test_weights_files_of_equal_weights_are_equal(tmp_path: Path) -> None:
    """The library writes the keys of the metadata in another order each time."""
    module = ForeignModule()
    shapes = UnprunedShapes.of(analyse(module, module.net[0].weight.new_zeros(2, 1, 8, 8)), set())
    for number in range(20):
        save_weights(module, tmp_path / f"{number}.safetensors", shapes)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_stored_inputs_that_are_equal_give_equal_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, outputs = np.arange(12.0).reshape(4, 3), np.ones((4, 2))
    for number, time in enumerate((1e9, 2e9)):
        monkeypatch.setattr("time.time", lambda time=time: time)
        write_replay(tmp_path / f"{number}.npz", [inputs], outputs)
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
