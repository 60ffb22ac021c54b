"""An artefact is loaded as its card says, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import lit_compress
from lit_compress.artifact import (
    Card,
    Fidelity,
    Variant,
    load,
    read_card,
    sha256,
    write_card,
    write_replay,
)
from lit_compress.artifact.read import CARD_LIMIT
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.runtimes import onnx

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
FILES = ("model.onnx", "float.safetensors", "replay.npz")
INPUTS = np.array([[1, 2, 3], [-1, 0, 0.5]], np.float32)


def write_model(path: Path, weight: np.ndarray = WEIGHT) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def write_artifact(folder: Path, *names: str) -> Card:
    files = {name: sha256(folder / name) for name in names}
    fidelity = Fidelity(40.0, 1.0, 2, 40.0)
    int8 = Variant("int8", 12, 11, file="model.onnx", fidelity=fidelity)
    card = Card("run", (int8,), {"torch": "2.14"}, files=files)
    write_card(folder, card)
    return card


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_model(folder / "model.onnx")
    (folder / "float.safetensors").write_bytes(b"weights")
    noise = np.random.default_rng(0).normal(size=(2, 4)) * 0.05
    write_replay(folder / "replay.npz", [INPUTS], (INPUTS @ WEIGHT + noise).astype(np.float32))
    write_artifact(folder, *FILES)
    return folder


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


def test_a_runtime_that_is_none(artifact: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="runtime must be one of"):
        load(artifact, runtime="tensorrt")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    with pytest.raises(ArtifactError, match=f"has no {name}, which its card lists"):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [True, False])
def test_a_changed_or_cut_file(artifact: Path, name: str, cut: bool) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(data[:-1] if cut else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name} has another SHA-256 than its card lists"):
        load(artifact)


def test_no_model(artifact: Path) -> None:
    write_artifact(artifact, "float.safetensors")
    with pytest.raises(ArtifactError, match=r"has no model\.onnx: only a run with quantisation"):
        load(artifact)


def test_a_model_that_is_none(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"not a model")
    write_artifact(artifact, "model.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read"):
        load(artifact)


@pytest.mark.parametrize("read", [load, read_card])
@pytest.mark.parametrize("name", ["empty", "missing", "file"])
def test_not_an_artifact(tmp_path: Path, read: Callable[[Path], object], name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ArtifactError, match=rf"{name} is not an artefact: it has no card\.json"):
        read(tmp_path / name)


def test_read_card(artifact: Path) -> None:
    assert read_card(str(artifact)).run == "run"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b"\xff\xfe{}", "is not UTF-8 text"), (b"{}", "does not follow")],
)
def test_a_damaged_card(artifact: Path, content: bytes, message: str) -> None:
    path = artifact / "card.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path} {message}"):
        read_card(artifact)


def test_a_card_that_is_too_large_is_not_read(artifact: Path) -> None:
    with open(artifact / "card.json", "r+b") as file:
        file.truncate(CARD_LIMIT + 1)
    with pytest.raises(ArtifactError, match="larger than 16,777,216 bytes"):
        read_card(artifact)
