from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lit_compress.errors import ArtifactError
from lit_compress.runtimes import FormatFile, Port, open_format

PORT = Port("x", (2,), "float32", True)


def file(batch: int) -> FormatFile:
    name = f"model-b{batch}.tflite"
    return FormatFile("litert", (name,), 3, (PORT,), (PORT,), batch, metadata={"a": "b"})


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_format, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match="litert is not installed: pip install ai-edge-litert"):
        open_format.open_format(tmp_path, "litert", [(file(1), (b"",))], 1)


def test_files_of_several_batch_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[int] = []

    def opened(content: bytes, threads: int) -> object:
        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            called.append(int(content))
            return [arrays[0] * 2]

        return run

    monkeypatch.setattr(open_format, "find_spec", lambda name: name)
    monkeypatch.setattr(open_format, "open_litert", opened)
    files = [(file(batch), (str(batch).encode(),)) for batch in (1, 4)]
    engine = open_format.open_format(tmp_path, "litert", files, 1)
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(engine.run([values])[0], values * 2)
    assert called == [4, 1, 1]
    assert (engine.inputs[0].shape, engine.outputs, engine.metadata) == ((2,), ("x",), {"a": "b"})


def test_a_file_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(content: bytes, threads: int) -> object:
        raise ValueError("not a flatbuffer")

    monkeypatch.setattr(open_format, "find_spec", lambda name: name)
    monkeypatch.setattr(open_format, "open_litert", fails)
    with pytest.raises(ArtifactError, match=r"cannot load .*model-b1\.tflite \(.*not a flatbuffer"):
        open_format.open_format(tmp_path, "litert", [(file(1), (b"",))], 1)
