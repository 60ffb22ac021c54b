"""An artefact is loaded where torch was never installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from importlib.util import find_spec
import numpy as np
import lit_compress

net = lit_compress.load(sys.argv[1])
scores = net(np.zeros((3, *net.input_shape), net.input_dtype))
print(len(scores), [name for name in ("torch", "lightning", "jsonschema") if find_spec(name)])
"""


@pytest.mark.slow
def test_numpy_and_onnxruntime_are_all_it_takes(tmp_path: Path) -> None:
    """It read the card with a library that only the training had installed."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lit_compress", source / "lit_compress")  # pip leaves files beside it
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "pip", "install", "--quiet"]
    subprocess.run([*pip, "numpy", "onnxruntime"], check=True)
    subprocess.run([*pip, "--no-deps", source], check=True)
    artefact = ROOT / "tests" / "golden" / "files" / "artefact"
    python = tmp_path / "venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", CODE, artefact], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert found.stdout == "3 []\n"
    words = [python, "-m", "lit_compress", "benchmark", artefact, "--rounds", "10", "--json", "-"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tmp_path)
    (row,) = json.loads(done.stdout)["rows"]
    assert row["macs"] > 0 < row["peak_bytes"]
    assert not row["absent"]
