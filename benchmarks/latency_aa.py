"""Print how often the latency comparison finds a difference where there is none (an A/A test).

A network is compared with itself and with its copy::

    python benchmarks/latency_aa.py
"""

from __future__ import annotations

import argparse
import copy

import torch

from lit_compress.measure import compare, module_runner
from lit_compress.modules import ShuffleNetV2


def main() -> None:
    """Print one line for the network itself and one for its copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", type=int, default=100)
    options = parser.parse_args()
    network = ShuffleNetV2(width=0.5).model.eval()
    inputs = torch.randn(1, 3, 32, 32)
    for name, other in (("itself", network), ("its copy", copy.deepcopy(network))):
        runners = {"a": module_runner(network, inputs), "b": module_runner(other, inputs)}
        claims = sum(
            compare(runners, seed=seed, warmup=0.05)["b"].speedups[0].significant
            for seed in range(options.comparisons)
        )
        print(f"against {name:<9}{claims:>4} of {options.comparisons} called different")


if __name__ == "__main__":
    main()
