"""Measure the time and memory of channel analysis, against torch-pruning's dependency graph.

    python benchmarks/channel_analysis.py [model ...]

Time: for each torchvision classifier up to the size of ResNet-50, on images of 64 pixels, the
median of three analyses, timed in turn with three builds of torch-pruning's graph. Memory: for some
models, the peak memory of an analysis divided by that of a forward pass. Each runs in a process of
its own, and the weights count in both.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torchvision import models

from lit_compress.pruning import analyse

#: Largest number of parameters; ResNet-50 has 25.6 million.
LARGEST = 26_000_000
ROUNDS = 3
#: Models whose memory is measured, if no models are named.
MEMORY_MODELS = ("resnet50", "mobilenet_v2", "shufflenet_v2_x1_0", "densenet121", "regnet_y_1_6gf")


def build(name: str) -> nn.Module:
    """Return a torchvision classifier with random weights, in eval mode."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model.eval()


def example(name: str) -> Tensor:
    """Return an image of 64 pixels, or of the smallest size that the model can take."""
    large = {"vit": 224, "maxvit": 224, "inception": 96}
    size = next((size for start, size in large.items() if name.startswith(start)), 64)
    return torch.randn(1, 3, size, size)


def seconds(work: Callable[[], object]) -> float:
    """Return how many seconds a function takes."""
    gc.collect()
    start = perf_counter()
    work()
    return perf_counter() - start


def peer(model: nn.Module, inputs: Tensor) -> Callable[[], object] | None:
    """Return a function that builds torch-pruning's graph; None if that fails."""
    try:
        import torch_pruning
    except ImportError:
        return None

    def work() -> object:
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)

    try:
        work()
    except Exception:  # torch-pruning raises many kinds of errors for graphs it cannot follow
        return None
    return work


def memory(name: str, what: str) -> float:
    """Return the peak memory in MB of a "forward" or an "analysis", weights included."""
    words = [sys.executable, __file__, "--memory", what, name]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def measure_memory(what: str, name: str) -> None:
    """Print by how many MB the peak memory of this process grows from before the model is built."""
    torch.set_num_threads(1)
    status = Path("/proc/self/status")

    def line(key: str) -> int:
        return int(next(t for t in status.read_text().splitlines() if t.startswith(key)).split()[1])

    # Imports and caches that any model needs are loaded before the first measurement.
    models.get_model("squeezenet1_1", weights=None)
    analyse(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), torch.zeros(1, 3, 4, 4))
    before = line("VmRSS")
    model, inputs = build(name), example(name)
    Path("/proc/self/clear_refs").write_text("5")
    with torch.no_grad():
        model(inputs) if what == "forward" else analyse(model, inputs)
    print((line("VmHWM") - before) / 1024)


def main(names: list[str]) -> None:
    """Print a line for each model, and the medians."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ratios, times, memories = [], [], []
    print(f"{'model':22} {'analysis':>9} {'peer':>9} {'ratio':>6} {'memory':>7}")
    for name in names or models.list_models(module=models):
        model = build(name)
        if not names and sum(p.numel() for p in model.parameters()) > LARGEST:
            continue
        inputs = example(name)
        ours = partial(analyse, model, inputs)
        theirs = peer(model, inputs)
        ours()
        pairs = [(seconds(ours), seconds(theirs) if theirs else 0.0) for _ in range(ROUNDS)]
        own, other = (median(column) for column in zip(*pairs, strict=True))
        times.append((own, name))
        memory_ratio = ""
        if names or name in MEMORY_MODELS:
            peak = memory(name, "analysis") / memory(name, "forward")
            memories.append((peak, name))
            memory_ratio = f"{peak:6.2f}x"
        comparison = f"{other:8.2f}s {own / other:6.2f}" if theirs else f"{'fails':>9} {'':6}"
        if theirs:
            ratios.append(own / other)
        print(f"{name:22} {own:8.2f}s {comparison} {memory_ratio}".rstrip(), flush=True)
    if ratios:
        print(f"median ratio over {len(ratios)} models where both work: {median(ratios):.2f}")
    print(f"slowest analysis: {max(times)[1]}, {max(times)[0]:.2f} s")
    print(f"most memory: {max(memories)[1]}, {max(memories)[0]:.2f}x of a forward pass")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        measure_memory(sys.argv[2], sys.argv[3])
    else:
        main(sys.argv[1:])
