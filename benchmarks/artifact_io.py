"""Print the size and the reading time of packed weights, against those of the dense network.

    python benchmarks/artifact_io.py [--rounds 15]

The weights are those of torchvision's AlexNet with 10 classes (57 million), not trained, 90 % of
each weight tensor zeroed by magnitude: as torchvision draws them, and from a normal distribution.
int8: symmetric, a scale for each output channel. The dense file is what torch.save writes of the
same weights. Each round reads all files in turn; a figure is the median of the ratios within the
rounds, with its bootstrap interval at 95 %. One thread; the files are in the cache of the file
system. The bound is the order-0 entropy of the int8 weights of each tensor.

Fails if reading takes more than 1.5 times torch.load, or the packed weights have more than 0.12
times (fp32) or 0.035 times (int8) the bytes of the dense file. The int8 weights from a normal
distribution fail: their entropy is already more than that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torchvision.models import alexnet

from lit_compress.packed.model import pack_arrays, read_arrays

ZEROS = 0.9
#: Largest time and bytes, as multiples of those of the dense file.
TIME, BYTES = 1.5, {"fp32": 0.12, "int8": 0.035}


def sparse_weights(normal: bool) -> dict[str, torch.Tensor]:
    """Return the weights of a network, of which 90 % are zero."""
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = alexnet(num_classes=10).state_dict()
    for weight in (weight for weight in weights.values() if weight.dim() > 1):
        if normal:
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


def entropy_bytes(arrays: dict[str, np.ndarray]) -> float:
    """Return the order-0 entropy of the int8 weights, and the bytes of all else."""
    total = 0.0
    for array in arrays.values():
        if array.dtype == np.int8:
            counts = np.bincount(array.ravel().view(np.uint8))
            total += sum(-n * np.log2(n / array.size) for n in counts if n) / 8
        else:
            total += array.nbytes
    return float(total)


def measure(drawn: str, rounds: int) -> bool:
    """Print a row for each packed file; return whether one is above its limit."""
    weights = sparse_weights(normal=drawn == "normal")
    floats = {name: tensor.numpy() for name, tensor in weights.items()}
    arrays = {"fp32": floats, "int8": int8_arrays(weights)}
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder, "dense.pt")
        torch.save(weights, dense)
        readers: dict[str, Callable[[], object]] = {"dense": lambda: torch.load(dense)}
        for kind, content in arrays.items():
            path = Path(folder, kind)
            path.write_bytes(pack_arrays(content))
            readers[kind] = partial(read_arrays, path)
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
    failed = False
    for kind, count in sizes.items():
        ratios = np.array(times[kind]) / np.array(times["dense"])
        low, high = interval(ratios)
        middle = float(np.median(ratios))
        over = middle > TIME or count > BYTES[kind] * size
        failed |= over
        bound = f"{entropy_bytes(arrays[kind]) / size:.4f}x" if kind == "int8" else ""
        print(
            f"| {kind}, {drawn} | {count:,} | {count / size:.4f}x | {bound} | {middle:.2f}x "
            f"({low:.2f} to {high:.2f}){' FAILED' if over else ''} |",
            flush=True,
        )
    return failed


def main() -> int:
    """Print the table; return 1 if a file is above its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| packed | bytes | of the dense file | bound | time over torch.load |")
    print("| --- | --- | --- | --- | --- |")
    failed = [measure(drawn, rounds) for drawn in ("as torchvision draws", "normal")]
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
