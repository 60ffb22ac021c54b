"""An artefact is loaded as its card says, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import lit_compress
from artifact.conftest import FILES, INPUTS, WEIGHT, write_artifact, write_model
from lit_compress.artifact import load, read_card
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.runtimes import onnx, open_format


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_load(artifact: Path, threads: int) -> None:
    model = load(str(artifact), threads)
    np.testing.assert_allclose(model(INPUTS), INPUTS @ WEIGHT, rtol=1e-6)
    assert model.card == read_card(artifact)
    assert model.card is not None
    assert model.card.variant("int8").nonzero == 11
    assert lit_compress.load is load


def test_threads_that_cannot_be(artifact: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="threads must be a whole number"):
        load(artifact, -1)


#: What may be imported where an artefact runs: numpy, ONNX Runtime and what it depends on.
NEEDED = """
import importlib.abc, site, sys, sysconfig

ALLOWED = {"numpy", "onnxruntime", "lit_compress", "google", "flatbuffers", "packaging", "sympy",
           "mpmath", "coloredlogs", "humanfriendly"}

class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        first = name.partition(".")[0]
        if first not in ALLOWED and first not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Only())
for name in [name for name in sys.modules if name.partition(".")[0] in ("torch", "jsonschema")]:
    del sys.modules[name]
"""


def test_load_needs_numpy_and_onnxruntime_alone(artifact: Path) -> None:
    """The card was checked with jsonschema, which another machine had to install."""
    script = NEEDED + (
        "import lit_compress, numpy\n"
        "model = lit_compress.load(sys.argv[1])\n"
        "print(model(numpy.ones((1, 3), numpy.float32)).tolist(), model.card.run)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(artifact)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{WEIGHT.sum(0, keepdims=True).tolist()} run"


def test_a_machine_that_computes_something_else(artifact: Path) -> None:
    """Without VNNI, sums of products saturate in 16 bits, and nothing says so."""
    write_model(artifact / "model.onnx", WEIGHT.clip(-2, 2))
    write_artifact(artifact, *FILES)
    message = r"computes other outputs on this machine: \d.*where 40\.0 dB were recorded"
    with pytest.raises(ArtifactError, match=message):
        load(artifact)
    model = load(artifact, check=False)
    np.testing.assert_allclose(model(INPUTS), INPUTS @ WEIGHT.clip(-2, 2), rtol=1e-6)


def test_nothing_to_check_with(artifact: Path) -> None:
    write_artifact(artifact, "model.onnx")
    with pytest.raises(ArtifactError, match=r"has no replay\.npz.*check=False"):
        load(artifact)
    assert load(artifact, check=False)(INPUTS).shape == (2, 4)


def test_a_damaged_replay(artifact: Path) -> None:
    (artifact / "replay.npz").write_bytes(b"PK not a zip")
    write_artifact(artifact, *FILES)
    with pytest.raises(ArtifactError, match=r"replay\.npz cannot be read"):
        load(artifact)


@pytest.mark.parametrize("runtime", ["openvino", "fastest"])
def test_other_runtimes(artifact: Path, runtime: Any) -> None:
    pytest.importorskip("openvino")
    model = load(artifact, 1, runtime)
    assert runtime in (model.runtime, "fastest")
    np.testing.assert_allclose(model(INPUTS), INPUTS @ WEIGHT, rtol=1e-5)
    first = model(INPUTS)
    model(INPUTS * 2)
    np.testing.assert_allclose(first, INPUTS @ WEIGHT, rtol=1e-5)


def test_a_runtime_that_is_not_installed(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(ArtifactError, match="openvino is not installed: pip install openvino"):
        load(artifact, runtime="openvino")
    assert load(artifact, runtime="fastest").runtime == "onnxruntime"


def test_a_check_that_is_none(artifact: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="check must be True, False or 'all', got 'al'"):
        load(artifact, check="al")  # type: ignore[arg-type]


def test_each_file_is_opened_once(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest file was opened to be timed, and again to be returned."""
    write_model(artifact / "model-fp32.onnx")
    write_artifact(artifact, *FILES, "model-fp32.onnx")
    opened: list[Any] = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *arguments, **more: opened.append(0) or real(*arguments, **more),
    )
    monkeypatch.setattr(onnx, "is_installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(open_format, "is_installed", lambda name: False)
    assert load(artifact, runtime="fastest", check=False)(INPUTS).shape == (2, 4)
    assert len(opened) == 2


def test_a_runtime_that_is_none(artifact: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="runtime must be one of"):
        load(artifact, runtime="tensorrt")  # type: ignore[arg-type]


def test_a_model_that_is_none(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"not a model")
    write_artifact(artifact, "model.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read"):
        load(artifact)
