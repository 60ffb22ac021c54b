"""Count the correct answers of the kept int8 files on the test data, with numpy and onnxruntime.

    python experiments/check.py --data-dir DIR

Needs neither PyTorch nor lit_compress. Prints a line for each ``model.onnx`` in
``experiments/results``, and exits with 1 if a count differs from the one in ``test.json``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

RESULTS = Path(__file__).parent / "results"
#: MD5 of CIFAR-10's test batch, as its authors publish it: only this pickle is opened.
CIFAR10_MD5 = "40351d587109b95175f43aff81a1287e"
#: Images given to a file at once.
BATCH = 500

Data = tuple[np.ndarray, np.ndarray]


def fashion_mnist(folder: Path) -> Data:
    """Return the test images of FashionMNIST, 10,000 x 1 x 28 x 28, and their labels."""
    raw = folder / "FashionMNIST" / "raw"
    images = _idx(raw / "t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    return images, _idx(raw / "t10k-labels-idx1-ubyte", 8)


def cifar10(folder: Path) -> Data:
    """Return the test images of CIFAR-10, 10,000 x 3 x 32 x 32, and their labels."""
    path = folder / "cifar-10-batches-py" / "test_batch"
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != CIFAR10_MD5:
        raise SystemExit(f"{path} is not the test batch of CIFAR-10: load the data again")
    batch = pickle.loads(content, encoding="bytes")  # noqa: S301  # the very file, by its digest
    return batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[b"labels"])


def _idx(path: Path, header: int) -> np.ndarray:
    packed = path.with_name(path.name + ".gz")
    content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    return np.frombuffer(content, np.uint8, offset=header)


#: By the end of a row's name, how its data are read.
READERS: dict[str, Callable[[Path], Data]] = {"fashion_mnist": fashion_mnist, "cifar10": cifar10}


def answers(model: Path, images: np.ndarray) -> np.ndarray:
    """Return the class that a file gives for each image."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    found = []
    for start in range(0, len(images), BATCH):
        (scores,) = session.run(None, {given.name: images[start : start + BATCH]})
        found.append(scores.argmax(-1))
    return np.concatenate(found)


def main() -> int:
    """Print one line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    words = parser.parse_args()
    data: dict[str, Any] = {}
    differ = 0
    models = sorted(RESULTS.glob("*/*/model.onnx"))
    if not models:
        raise SystemExit(f"there is no model.onnx in {RESULTS}")
    for model in models:
        row, stage = model.parts[-3:-1]
        kind = next(name for name in READERS if row.endswith(name))
        images, labels = data.setdefault(kind, READERS[kind](words.data_dir))
        counted = int((answers(model, images) == labels).sum())
        recorded = json.loads((model.parent / "test.json").read_text("utf-8"))["correct"]["int8"]
        differ += counted != recorded
        state = "as recorded" if counted == recorded else f"recorded: {recorded}"
        size = model.stat().st_size
        print(f"{row} {stage}: {counted} of {len(labels)} correct, {size:,} bytes ({state})")
    return int(differ > 0)


if __name__ == "__main__":
    raise SystemExit(main())
