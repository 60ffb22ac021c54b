"""Options that are refused before a file is opened."""

from __future__ import annotations

from typing import Any

import pytest

from lit_compress.benchmark import Options
from lit_compress.errors import LitCompressError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batches": (1, 0)}, "batch must be at least 1, got 1 0"),
        ({"threads": (0,)}, "threads must be at least 1, got 0"),
        ({"threads": ()}, "at least one number of threads"),
        ({"runtimes": ()}, "and one runtime"),
        ({"runtimes": ("tflite",)}, "runtime must be one of"),
        ({"rounds": 9}, "rounds must be at least 10"),
        ({"seconds": 0.0}, "seconds above 0"),
        ({"seconds": float("nan")}, "seconds above 0"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(LitCompressError, match=message):
        Options(**given)


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("onnx", "open_format"):
        path = f"lit_compress.runtimes.{home}.is_installed"
        monkeypatch.setattr(path, lambda name: name == "onnxruntime")
    with pytest.raises(LitCompressError, match="openvino is not installed: pip install openvino"):
        Options(runtimes=("onnxruntime", "openvino"))
    with pytest.raises(LitCompressError, match="litert is not installed: pip install ai-edge-"):
        Options(runtimes=("litert",))
