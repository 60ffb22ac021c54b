"""What it costs to add int8 products in 32 bits, on a processor without VNNI.

    python benchmarks/exact_sums.py --data-dir DIR

Opens the int8 files in ``experiments/results`` in ONNX Runtime with its own settings, and as
``lit_compress.load`` opens them. Prints the right answers of both on the test data, and the time of
a call as a multiple of that of ONNX Runtime: the median of 60 pairs, each timed in turn.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import onnxruntime

from lit_compress.runtimes.processor import lacks_vnni, processor_name
from lit_compress.runtimes.session import open_session

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
#: Batch sizes, and calls of each in a round.
CALLS = {1: 40, 32: 5}
ROUNDS = 60


def as_it_is(content: bytes) -> Any:
    """Open a file with the settings of ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def seconds(session: Any, images: np.ndarray, calls: int) -> float:
    """Return the CPU seconds of calls of a session."""
    name = session.get_inputs()[0].name
    start = process_time()
    for _ in range(calls):
        session.run(None, {name: images})
    return process_time() - start


def right(session: Any, images: np.ndarray, labels: np.ndarray) -> int:
    """Return how many images a session gives the right class for."""
    name, step = session.get_inputs()[0].name, 500
    found = [
        session.run(None, {name: images[start : start + step]})[0].argmax(-1)
        for start in range(0, len(images), step)
    ]
    return int((np.concatenate(found) == labels).sum())


def main() -> None:
    """Print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    given = parser.parse_args()
    if not lacks_vnni():
        sys.exit(f"{processor_name()} has VNNI, so no sums overflow: there is nothing to measure")
    read = runpy.run_path(str(EXPERIMENTS / "check.py"))["READERS"]
    print(processor_name())
    for path in sorted(EXPERIMENTS.glob("results/*/*/model.onnx")):
        row, stage = path.parts[-3:-1]
        images, labels = next(read[end] for end in read if row.endswith(end))(given.data_dir)
        own, exact = as_it_is(path.read_bytes()), open_session(path.read_bytes(), threads=1)
        counts = f"{right(own, images, labels):,} and {right(exact, images, labels):,}"
        ratios = []
        for batch, calls in CALLS.items():
            part = images[:batch]
            pairs = [
                (seconds(exact, part, calls), seconds(own, part, calls)) for _ in range(ROUNDS)
            ]
            ratios.append(f"{median(one / other for one, other in pairs):.2f}x at batch {batch}")
        print(f"{row} {stage}: {counts} of {len(labels):,} right, {', '.join(ratios)}")


if __name__ == "__main__":
    main()
