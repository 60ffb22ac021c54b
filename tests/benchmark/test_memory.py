"""Memory of a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.conftest import model
from lit_compress.benchmark import memory
from lit_compress.benchmark.memory import Job, UnmeasuredError, peak_memory

MIB = 1 << 20


def wide(path: Path, size: int) -> Path:
    """Write a file whose output has a number of elements for each example."""
    path.write_bytes(
        model(
            f"net (float[batch, 1] x) => (float[batch, {size}] y) "
            f"<int64[2] shape = {{1, {size}}}> {{ y = Expand(x, shape) }}"
        )
    )
    return path


def test_the_memory_grows_with_what_is_computed(tmp_path: Path) -> None:
    """Of 64 MiB of float32, at least those are seen, and none of the imports' 40."""
    small, large = (wide(tmp_path / f"{n}.onnx", n) for n in (MIB // 4, 16 * MIB))
    found = [peak_memory(Job(str(path), "onnxruntime", 1, 1)) for path in (small, large)]
    assert found[1] - found[0] > 50 * MIB
    assert found[0] < 40 * MIB


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnmeasuredError, match="there is no file or folder"):
        peak_memory(Job(str(tmp_path / "nothing.onnx"), "onnxruntime", 1, 1))


def test_a_process_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PATIENCE", 0.01)
    with pytest.raises(UnmeasuredError, match="did not run"):
        peak_memory(Job(str(wide(tmp_path / "a.onnx", 4)), "onnxruntime", 1, 1))


def test_what_is_imported_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def process(job: Job) -> int:
        seen.append(job.batch)
        return 100 + 10 * job.batch

    memory._of_imports.cache_clear()
    monkeypatch.setattr(memory, "_of_process", process)
    job = Job("a.onnx", "onnxruntime", 1, 2)
    assert [peak_memory(job), peak_memory(job)] == [20, 20]
    assert seen == [2, 0, 2]
    memory._of_imports.cache_clear()
    assert np.iinfo(np.int64).max > peak_memory(job) > 0
    memory._of_imports.cache_clear()
