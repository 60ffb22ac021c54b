"""Print the time of MobileNetV2's int8 file without some of its residual blocks.

::

    python benchmarks/blocks.py [--counts 2 4 6 8] [--rounds 200]

32 px, batch 1, one thread, ONNX Runtime. The figures are ratios within a round, in which all files
are timed in turn, in a new random order: the median, and its bootstrap interval at 95 %. The blocks
that compute most go first. Next to them is the network with all blocks, of which filters were
removed until it has the same MACs: what the same work costs in more layers. Weights are random, as
they do not change the time.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from int8_latency import build
from torch import nn

from lit_compress.artifact import OnnxModel
from lit_compress.export.onnx import write_onnx
from lit_compress.measure import cost
from lit_compress.measure.latency import compare
from lit_compress.pruning import apply
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.block import BlockGraph
from lit_compress.pruning.blocks.surgery import remove_blocks
from lit_compress.pruning.selection.uniform import UniformSelector
from lit_compress.quantization import quantize

SIDE = 32


def without_blocks(network: nn.Module, graph: BlockGraph, count: int) -> nn.Module:
    """Return a copy of a network without the blocks that compute most."""
    made = copy.deepcopy(network)
    ranked = sorted(graph.blocks.values(), key=lambda block: -block.macs)
    for block in ranked[:count]:
        remove_blocks(made, block.kinds)
    return made


def with_fewer_filters(network: nn.Module, images: torch.Tensor, macs: int) -> nn.Module:
    """Return a copy of a network without some filters of each layer, with so many MACs."""
    made, share = copy.deepcopy(network), 1 - Fraction(macs, cost(network, images).macs)
    selector = UniformSelector(target=share, of="macs", round_to=8)
    state = selector.analyse(made, images, "")
    apply(state.plan(selector.select(made, state).selected), made)
    return made


def write(network: nn.Module, images: torch.Tensor, path: Path) -> int:
    """Write the int8 file of a network; return the nodes that ONNX Runtime runs of it."""
    write_onnx(quantize(network, images.chunk(4), images), images, path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return len(onnx.load(options.optimized_model_filepath).graph.node)


def measure(counts: Sequence[int], rounds: int, folder: Path) -> None:
    """Write the files, time them, and print a row for each."""
    network = build("mobilenet_v2")
    images = torch.randn(64, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    graph = find_blocks(network, images[:2])
    networks = {"all blocks": network}
    for count in counts:
        small = without_blocks(network, graph, count)
        networks[f"without {count} blocks"] = small
        macs = cost(small, images[:1]).macs
        networks[f"as few MACs as without {count}"] = with_fewer_filters(network, images[:2], macs)
    nodes = {name: write(one, images, folder / name) for name, one in networks.items()}
    models = {name: OnnxModel(folder / name, 1) for name in networks}
    one = np.asarray(images[:1])
    runners = {name: lambda model=model: model(one) for name, model in models.items()}
    times = compare(runners, rounds=rounds, confidence=0.95)
    print(f"{len(graph.blocks)} blocks can be removed")
    print(f"{'':28} parameters       MACs  nodes  time, of all blocks")
    for name, module in networks.items():
        costs = cost(module, images[:1])
        row = f"{name:28} {costs.parameters:10,d} {costs.macs:10,d} {nodes[name]:6d}  "
        for over in times[name].speedups:
            low, high = over.interval
            row += f"{1 / over.ratio:.3f}x ({1 / high:.3f} to {1 / low:.3f})"
        print(row if times[name].speedups else f"{row}1")
    many, few = f"as few MACs as without {counts[-1]}", f"without {counts[-1]} blocks"
    saved = (times[many].seconds - times[few].seconds) * 1e6 / (nodes[many] - nodes[few])
    print(f"a node costs {saved:.1f} us on this machine, at the same number of MACs")


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.counts, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
