"""Print how the costs of pruning grow with the number of layers, and compare with torch-pruning.

::

    python benchmarks/growth_pruning.py [--rounds 3] [--networks resnet18 vit_b_16 ...]

Growth: CPU seconds of the channel analysis, of the choice of what is removed (with one target, and
with one rule for each layer), of the preview, and of a pruning event (choice, trial, removal), on
chains of 30 to 1,000 layers and on networks of dense connectivity of 12 to 48. A slope of 1 is
linear in the layers.

Comparison: an analysis and a pruning event that removes half of the filters, as a multiple of what
torch-pruning's ``MagnitudePruner`` takes from its start to the end of its step. Both remove
channels from the network alone, without an optimizer. Our analysis tries its result, counts the
costs, and our event tries the removal. They run in turn; a ratio is the median of the rounds.
"""

from __future__ import annotations

import argparse
import copy
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from statistics import median

import torch
from growth import Dense, chain, print_slopes, seconds, write
from torch import Tensor, nn
from torchvision import models

from lit_compress.pruning import apply
from lit_compress.pruning.channels.analysis import verify
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.selection.by_rules import RuleSelector
from lit_compress.pruning.selection.state import PruningState
from lit_compress.pruning.selection.uniform import UniformSelector

HALF = Fraction(1, 2)
CHAINS, DENSE = (30, 100, 300, 1000), (12, 24, 48)
#: Networks of torchvision to compare on; torch-pruning succeeds on all but a few of torchvision's.
NETWORKS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "vit_b_16",
    "densenet121",
)


def dense(layers: int) -> nn.Module:
    """Return a network of dense connectivity, in eval mode."""
    return Dense(layers).eval()


def known(name: str) -> nn.Module:
    """Return a network of torchvision with random weights, in eval mode."""
    network: nn.Module = models.get_model(name, weights=None)
    return network.eval()


def stages(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the seconds of each stage of pruning; channels are removed from the network."""
    selector = UniformSelector(HALF)
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    ruled = RuleSelector(tuple(Rule(n, HALF, f"rules.yaml:{i}") for i, n in enumerate(names)))
    found: dict[str, PruningState] = {}

    def analyse() -> None:
        found["state"] = selector.analyse(network, images)

    analysis = seconds(analyse)
    state = found["state"]
    selection = selector.select(network, state)
    return {
        "analysis": analysis,
        "choice": seconds(lambda: selector.select(network, state)),
        "choice by rules": seconds(lambda: ruled.select(network, state)),
        "preview": seconds(lambda: selector.preview(network, state, selection)),
        "event": seconds(lambda: event(selector, network, images, state)),
    }


def event(
    selector: UniformSelector, network: nn.Module, images: Tensor, state: PruningState
) -> None:
    """Choose what goes, try its removal, and remove it."""
    plan = state.plan(selector.select(network, state).selected)
    verify(network, images, state.current_graph(), plan)
    apply(plan, network)


def ours(network: nn.Module, images: Tensor) -> None:
    """Analyse a network, and remove half of its filters."""
    selector = UniformSelector(HALF)
    event(selector, network, images, selector.analyse(network, images))


def theirs(network: nn.Module, images: Tensor) -> None:
    """Do the same with torch-pruning."""
    import torch_pruning

    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    torch_pruning.pruner.MagnitudePruner(
        network,
        images,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[head],
    ).step()


def growth(
    build: Callable[[int], nn.Module], sizes: tuple[int, ...], rounds: int
) -> dict[int, dict[str, float]]:
    """Return, by number of layers, the median seconds of each stage."""
    images = torch.randn(1, 3, 64, 64)
    networks = {size: build(size) for size in sizes}
    stages(build(sizes[0]), images)  # loads what each first call loads
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size, network in networks.items():
            runs[size].append(stages(copy.deepcopy(network), images))
    return {
        size: {stage: median(one[stage] for one in found) for stage in found[0]}
        for size, found in runs.items()
    }


def compared(network: nn.Module, side: int, rounds: int) -> tuple[float, float | None, str]:
    """Return the seconds of our pruning, the ratio to torch-pruning's, and why there is none."""
    images = torch.randn(1, 3, side, side)
    ours(copy.deepcopy(network), images)
    try:
        theirs(copy.deepcopy(network), images)
    except ImportError:
        return 0.0, None, "torch-pruning is not installed"
    except Exception as error:  # it raises many kinds of errors for graphs it cannot follow
        return 0.0, None, f"torch-pruning fails: {type(error).__name__}"
    times = []
    for _ in range(rounds):
        one, other = copy.deepcopy(network), copy.deepcopy(network)
        times.append((seconds(partial(ours, one, images)), seconds(partial(theirs, other, images))))
    return median(own for own, _ in times), median(own / other for own, other in times), ""


def compare(names: list[str], rounds: int) -> Mapping[str, dict[str, object]]:
    """Print a line for each network, and return the lines."""
    rows: dict[str, dict[str, object]] = {}
    print("analysis and one pruning event: CPU seconds, and as a multiple of torch-pruning's")
    networks: dict[str, Callable[[], nn.Module]] = {
        **{f"chain of {size}": partial(chain, size) for size in CHAINS[:3]},
        **{f"dense of {size}": partial(dense, size) for size in DENSE},
        **{name: partial(known, name) for name in names},
    }
    for name, build in networks.items():
        torch.manual_seed(0)
        own, ratio, why = compared(build(), 224 if name.startswith("vit") else 64, rounds)
        rows[name] = {"seconds": own, "ratio": ratio, "why": why}
        print(f"{name:18} " + (why or f"{own:7.2f} s {ratio:6.2f}"), flush=True)
    return rows


def main() -> None:
    """Print the growth of the costs, and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    result: dict[str, object] = {}
    for title, build, sizes in (
        ("chains", chain, CHAINS),
        ("dense connectivity", dense, DENSE),
    ):
        torch.manual_seed(0)
        costs = growth(build, sizes, words.rounds)
        result[title] = {"seconds": costs, "slopes": print_slopes(title, costs)}
        sys.stdout.flush()
    result["torch-pruning"] = compare(words.networks, words.rounds)
    write("pruning", result)


if __name__ == "__main__":
    main()
