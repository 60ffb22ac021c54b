"""Print how costs grow with a network, in CPU seconds: all parts, or the named ones.

::

    python benchmarks/growth.py [--part pruning]

A part is a script ``growth_PART.py`` next to this one, and runs in a process of its own. The
networks and the arithmetic that parts share are here.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from math import log
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
#: Largest slope of the logarithm of the time against that of the number of layers.
MOST = 1.15


def chain(layers: int, width: int = 16) -> nn.Module:
    """Return a network of convolutions with norms, one after another, in eval mode."""
    parts: list[nn.Module] = [nn.Conv2d(3, width, 3, 4, 1)]
    for _ in range(layers):
        conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        parts.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(*parts, *head).eval()


class Dense(nn.Module):
    """A network of dense connectivity: each layer reads all earlier ones, concatenated anew.

    Args:
        layers: Number of layers.
        growth: Channels that each of them adds.
    """

    def __init__(self, layers: int, growth: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, growth, 3, 4, 1)
        widths = [growth * (layer + 1) for layer in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, 1, 1, bias=False)
            )
            for width in widths
        )
        self.head = nn.Linear(growth * (layers + 1), 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        parts = [self.stem(images)]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        scores: Tensor = self.head(torch.cat(parts, 1).mean((2, 3)))
        return scores


def seconds(work: Callable[[], object]) -> float:
    """Return how many seconds of the processor a function takes."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def slope(costs: Mapping[int, float]) -> float:
    """Return the slope of the regression line through the logarithms of sizes and costs."""
    x = [log(size) for size in costs]
    y = [log(max(cost, 1e-9)) for cost in costs.values()]
    middle, level = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle) ** 2 for a in x)


def print_slopes(title: str, costs: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Print the seconds of each stage by the number of layers, and return the slopes.

    Args:
        title: What the networks are.
        costs: By number of layers and by stage, the seconds.
    """
    stages = list(next(iter(costs.values())))
    print(f"{title}: seconds of the processor, by layers")
    print(f"{'':22}" + "".join(f"{size:9d}" for size in costs) + "    slope")
    slopes = {}
    for stage in stages:
        slopes[stage] = slope({size: one[stage] for size, one in costs.items()})
        row = "".join(f"{one[stage]:9.4f}" for one in costs.values())
        mark = "" if slopes[stage] <= MOST else f"  more than {MOST}"
        print(f"{stage:22}{row} {slopes[stage]:8.2f}{mark}")
    return slopes


def write(part: str, result: object) -> None:
    """Write the result of a part to ``results/growth_PART.json``."""
    path = HERE / "results" / f"growth_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"written to {path.relative_to(HERE.parent)}")


def main(words: Sequence[str]) -> int:
    """Run the parts; return 1 if one fails."""
    parts = sorted(path.stem.removeprefix("growth_") for path in HERE.glob("growth_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=parts, help="default: all of them")
    chosen = parser.parse_args(words).part or parts
    codes = []
    for part in chosen:
        print(f"# {part}", flush=True)
        command = [sys.executable, str(HERE / f"growth_{part}.py")]
        codes.append(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own script
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
