"""Print the size and the reading time of packed weights, against those of the dense network.

    python benchmarks/artifact_io.py [--rounds 15]

The weights are those of torchvision's AlexNet with 10 classes (57 million), normal, not trained,
90 % of each weight tensor zeroed by magnitude; int8: symmetric, one scale per output channel. The
dense file is what torch.save writes of the same weights. Each round reads all files in turn; a
figure is the median of the ratios within the rounds, with its bootstrap interval at 95 %. One
thread; the files are in the cache of the file system.

Fails if reading takes more than 1.5 times torch.load, or the packed fp32 weights more than 0.12
times, or the int8 ones more than 0.035 times the bytes of the dense file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torchvision.models import alexnet

from lit_compress.packed.model import pack_arrays, read_arrays

ZEROS = 0.9
#: Largest time and bytes, as multiples of those of the dense file.
TIME, BYTES = 1.5, {"fp32": 0.12, "int8": 0.035}


def sparse_weights() -> dict[str, torch.Tensor]:
    """Return the weights of a network, of which 90 % are zero."""
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = alexnet(num_classes=10).state_dict()
    for weight in (weight for weight in weights.values() if weight.dim() > 1):
        weight.normal_(0, 0.01)
        size = weight.abs().flatten()
        weight[weight.abs() <= size.kthvalue(int(ZEROS * len(size))).values] = 0
    return weights


def int8_arrays(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return int8 weights with a scale a channel, and the biases as they are."""
    arrays = {}
    for name, tensor in weights.items():
        values = tensor.numpy()
        arrays[name] = values
        if values.ndim > 1:
            rows = values.reshape(len(values), -1)
            scales = np.abs(rows).max(1) / 127
            quantised = np.rint(rows / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
            arrays |= {name: quantised.reshape(values.shape), f"{name}.scale": scales}
    return arrays


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap interval of the median at 95 %."""
    random = np.random.default_rng(0)
    medians = np.median(random.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    """Print a row for each packed file; return 1 if one is above its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder, "dense.pt")
        weights = sparse_weights()
        torch.save(weights, dense)
        arrays = {
            "fp32": {name: tensor.numpy() for name, tensor in weights.items()},
            "int8": int8_arrays(weights),
        }
        readers: dict[str, Callable[[], object]] = {"dense": lambda: torch.load(dense)}
        for kind, content in arrays.items():
            path = Path(folder, kind)
            path.write_bytes(pack_arrays(content))
            readers[kind] = lambda path=path: read_arrays(path)  # type: ignore[misc]
            found = read_arrays(path)
            if any(not np.array_equal(found[name], array) for name, array in content.items()):
                raise ValueError(f"{kind} does not come back")
            del found
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(rounds):
            for name, read in readers.items():
                start = perf_counter()
                read()
                times[name].append(perf_counter() - start)
        size = dense.stat().st_size
        sizes = {kind: Path(folder, kind).stat().st_size for kind in arrays}
    print(f"torch.load of {size:,} bytes: {np.median(times['dense']):.3f} s on this machine")
    print("| packed | bytes | of the dense file | time over torch.load |")
    print("| --- | --- | --- | --- |")
    failed = False
    for kind, count in sizes.items():
        ratios = np.array(times[kind]) / np.array(times["dense"])
        low, high = interval(ratios)
        middle = float(np.median(ratios))
        over = count > BYTES[kind] * size or middle > TIME
        failed |= over
        print(
            f"| {kind} | {count:,} | {count / size:.4f}x | {middle:.2f}x ({low:.2f} to {high:.2f})"
            f"{' FAILED' if over else ''} |"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
