"""Print where ONNX Runtime spends the time of an int8 file, and what leaving out shuffles saves.

::

    python benchmarks/onnx_nodes.py [--networks shufflenet_v2] [--batches 1 32]

The file without its channel shuffles is timed against the file with them, in turn, on one thread:
the median ratio and its bootstrap interval at 95 %. The shares are those of ONNX Runtime's profile;
its clock costs about 2 microseconds a node, which are subtracted. Weights are random, as they do
not change the time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime
import torch
from int8_latency import SIZES, build

from lit_compress.artifact import OnnxModel
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization.convert import Calibrated
from lit_compress.timing.in_turn import interleaved_times, warm_up
from lit_compress.timing.intervals import bootstrap, median_interval

#: Microseconds that the profile adds to each node.
CLOCK = 2.0
ROUNDS, SLICE = 60, 0.01


def write(name: str, folder: Path) -> np.ndarray:
    """Write the int8 file of a network without and with its shuffles, and return inputs."""
    network, side = build(name), SIZES[name]
    images = torch.randn(32, 1, side, side, generator=torch.Generator().manual_seed(0))
    calibrated = Calibrated(network, images.chunk(4), images)
    write_onnx(calibrated.convert(), images, folder / "folded.onnx")
    with patch("lit_compress.quantization.convert.fold_shuffles", lambda graph: 0):
        write_onnx(calibrated.convert(), images, folder / "shuffled.onnx")
    pixels: np.ndarray = images.numpy()
    return pixels


def compare(folder: Path, inputs: np.ndarray) -> str:
    """Return the time of the file without shuffles, as a share of that with them."""
    models = {stem: OnnxModel(folder / f"{stem}.onnx") for stem in ("folded", "shuffled")}
    equal = np.array_equal(*(model(inputs) for model in models.values()))
    runners = {stem: lambda model=model: model(inputs) for stem, model in models.items()}
    calls = {stem: warm_up(run, 0.3, SLICE) for stem, run in runners.items()}
    random = np.random.default_rng(0)
    times = interleaved_times(runners, calls, ROUNDS, random)
    ratios = times["folded"] / times["shuffled"]
    low, high = median_interval(ratios, bootstrap(random, ROUNDS), 0.95)
    same = "outputs equal" if equal else "OUTPUTS DIFFER"
    return f"{np.median(ratios):.2f}x [{low:.2f}, {high:.2f}] of the time with shuffles; {same}"


def profile(file: Path, inputs: np.ndarray, runs: int = 200) -> list[tuple[str, int, float]]:
    """Return by operator, slowest first: its name, its nodes, and their microseconds a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, {session.get_inputs()[0].name: inputs})
    events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault(event["name"], []).append(event["dur"])
            operators[event["name"]] = event["args"]["op_name"]
    total, count = Counter[str](), Counter(operators.values())
    for node, found in times.items():
        total[operators[node]] += max(0.0, float(np.mean(found)) - CLOCK)  # type: ignore[assignment]
    return [(name, count[name], spent) for name, spent in total.most_common()]


def main() -> None:
    """Print the ratio and the profile of each network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    arguments = parser.parse_args()
    for name in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            images = write(name, Path(folder))
            for batch in arguments.batches:
                print(f"{name}, batch {batch}: {compare(Path(folder), images[:batch])}")
                found = profile(Path(folder) / "folded.onnx", images[:batch])
                total = sum(spent for _, _, spent in found)
                for operator, nodes, spent in found:
                    print(f"  {operator:16} {nodes:3} nodes {spent / total:6.1%}")


if __name__ == "__main__":
    main()
