"""Prune the same networks with Torch-Pruning, as the example in its README does.

    python tests/zoo/peer.py [--only TEXT]

Writes ``tests/zoo/torch_pruning.json``: for each network the share of parameters that is left, or
what went wrong. The last linear or convolution layer is ignored, as in that example, and the
network must give outputs of the same shapes afterwards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.networks import Entry, entries
from zoo.trial import TARGET, parameters, tensors_of

PEER = Path(__file__).with_name("torch_pruning.json")
SECONDS = 300


def pruned(entry: Entry) -> dict[str, Any]:
    """Return what Torch-Pruning makes of a network."""
    import torch_pruning as tp

    torch.manual_seed(0)
    net, inputs = entry.build().eval(), entry.inputs(2)
    before = parameters(net)
    shapes = [tensor.shape for tensor in tensors_of(net(inputs))]
    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    pruner = tp.pruner.BasePruner(
        net,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=TARGET,
        ignored_layers=layers[-1:],
        output_transform=lambda out: sum(t.sum() for t in tensors_of(out)),
    )
    pruner.step()
    found = [tensor.shape for tensor in tensors_of(net(inputs))]
    if found != shapes:
        return {"error": f"the outputs have other shapes: {[tuple(s) for s in found][:2]}"}
    return {"left": parameters(net) / before}


def one(name: str) -> None:
    """Print the result of one network as a line of JSON."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    try:
        found = pruned(entries()[name])
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    print(json.dumps({"name": name, **found}))


def tried(name: str) -> dict[str, Any]:
    """Return the result of one network, in a process of its own."""
    words = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"did not end within {SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"name": name, "error": f"ended with {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Prune the networks with Torch-Pruning.")
    parser.add_argument("--only", default="", help="Part of the names to run.")
    parser.add_argument("--one", help="Run one network in this process.")
    options = parser.parse_args()
    if options.one:
        return one(options.one)
    known = {r["name"]: r for r in json.loads(PEER.read_text("utf-8"))} if PEER.exists() else {}
    for name in entries():
        if options.only in name:
            known[name] = tried(name)
            print(json.dumps(known[name]), flush=True)
            kept = [known[name] for name in entries() if name in known]
            PEER.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
