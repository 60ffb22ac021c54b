"""Print the speed of the int8 file of a pruned network, against the dense network in PyTorch.

::

    python benchmarks/pruned_latency.py [--removed 0.5] [--round-to 8] [--batches 1]

Each layer loses a share of its filters. All files of the pruned network are timed in turn with the
dense float network in eager PyTorch, as in ``int8_latency.py``: each in a process of its own, on
one thread. Printed are the median of the ratios within a round, and its bootstrap interval at 95 %.
Weights are random, as they do not change the time.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import other_runtimes
from int8_latency import CONTENDERS, SIZES, build, timed

if TYPE_CHECKING:  # the processes of the runtimes must not import torch
    from torch import Tensor, nn

EAGER = "eager fp32"
OURS = tuple(name for name in CONTENDERS if name.endswith(" ours"))


def pruned(network: nn.Module, images: Tensor, removed: float, round_to: int) -> nn.Module:
    """Return a copy of a network whose layers have lost a share of their filters."""
    from lit_compress.callbacks import FilterPruning
    from lit_compress.pruning import apply

    selector = FilterPruning(removed, round_to=round_to).selector
    smaller = copy.deepcopy(network)
    state = selector.analyse(smaller, images[:2])
    apply(state.plan(selector.select(smaller, state).selected), smaller)
    return smaller.eval()


def prepare(
    name: str, folder: Path, batches: Sequence[int], removed: float, round_to: int
) -> tuple[int, int]:
    """Write the files of the pruned network, and return the parameters before and after."""
    import torch

    from lit_compress.export.onnx import write_onnx
    from lit_compress.formats import exporter
    from lit_compress.quantization import quantize

    dense, side = build(name), SIZES[name]
    images = torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0))
    network = pruned(dense, images, removed, round_to)
    graph = quantize(network, images.chunk(4), images)
    write_onnx(graph, images, folder / "ours.onnx")
    for batch in batches:
        for runtime in other_runtimes.installed():
            file = folder / f"ours-b{batch}"
            exporter(runtime).write(graph, [images[:batch]], file, folder / "ours.onnx")  # type: ignore[arg-type]
    before, after = (sum(p.numel() for p in one.parameters()) for one in (dense, network))
    return before, after


def report(times: dict[str, np.ndarray]) -> None:
    """Print how many times faster each file is than the dense network in PyTorch."""
    random = np.random.default_rng(0)
    for name in OURS:
        ratios = times[EAGER] / times[name]
        draws = np.median(ratios[random.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        print(
            f"  {name:17} {1000 * np.median(times[name]):7.3f} ms, {np.median(ratios):5.1f}x as "
            f"fast as the dense network in PyTorch [{low:.1f}, {high:.1f}]",
            flush=True,
        )


def main() -> None:
    """Print a table for each network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--removed", type=float, default=0.5)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in words.networks:
        with tempfile.TemporaryDirectory() as folder:
            before, after = prepare(
                name, Path(folder), words.batches, words.removed, words.round_to
            )
            print(f"{name}, {SIZES[name]} px: {before:,} to {after:,} parameters", flush=True)
            for batch in words.batches:
                print(f" batch {batch}", flush=True)
                report(timed(name, Path(folder), batch, 1, words.rounds, (EAGER, *OURS)))


if __name__ == "__main__":
    main()
