"""The whole way on real data: set LIT_COMPRESS_DATA to a folder with FashionMNIST in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_compress.cli import main

DATA = os.environ.get("LIT_COMPRESS_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="LIT_COMPRESS_DATA is not set"),
    # Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Lightning, where `test` loads a checkpoint of `fit`: another folder, and no pruning callback.
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]

CLASSIFY = """
import sys
import numpy as np, onnxruntime
raw, model = sys.argv[1:]
images = np.fromfile(raw + "-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 1, 28, 28)
labels = np.fromfile(raw + "-labels-idx1-ubyte", np.uint8)[8:]
session = onnxruntime.InferenceSession(model)
found = [session.run(None, {"input": images[i : i + 500]})[0] for i in range(0, 10000, 500)]
assert not {"torch", "lightning", "lit_compress"} & set(sys.modules)
print((np.concatenate(found).argmax(1) == labels).mean())
"""


def test_the_int8_file_is_within_a_point_of_the_float_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--config", "shufflenet_v2_fashion_mnist.yaml", "--data.data_dir", str(DATA)]
    base += ["--trainer.enable_progress_bar=false"]
    parts = ["--config", "prune_elements.yaml", "--config", "quantize.yaml"]
    assert main(["fit", *base, *parts, "--trainer.max_epochs=3"]) == 0
    run = tmp_path / "runs" / "shufflenet_v2_fashion_mnist" / "version_0"
    capsys.readouterr()
    assert main(["test", *base, f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "test_acc" in line)
    raw = f"{DATA}/FashionMNIST/raw/t10k"
    command = [sys.executable, "-c", CLASSIFY, raw, str(run / "artifact" / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert abs(float(done.stdout) - float(line.split()[-2 if "│" in line else -1])) < 0.01
