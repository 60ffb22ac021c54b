"""Prune and quantise one foreign network in a real fit, and check from outside what comes out.

    python tests/zoo/trial.py NAME          prints one line of JSON

Nothing of this package judges its own work here: the pruned network is compared with one in which
nothing reads the removed channels, and the file is run with onnxruntime alone.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.artifact import read_card
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.errors import ChannelError
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.analysis import Norm

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.networks import Entry, entries

#: Share of the filters that is asked for.
TARGET = 0.3
#: A file whose outputs are nearer to the float network's than this, in dB, is right.
NEAR_DB = 10.0
IMAGES = 8


class Lit(lightning.LightningModule):
    """Any network in a LightningModule; the loss is the size of its outputs."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        floats = [t for t in tensors_of(self(batch[0])) if t.is_floating_point()]
        return torch.stack([t.square().mean() for t in floats]).sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4, momentum=0.9)


def tensors_of(result: Any) -> list[Tensor]:
    """Return the tensors in any result."""
    values = list(result.values()) if isinstance(result, Mapping) else result
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def fit(module: Lit, data: Tensor, *callbacks: Any) -> Path:
    """Train for three epochs of two batches; return the folder of the run."""
    folder = Path(tempfile.mkdtemp())
    loader = DataLoader(TensorDataset(data), IMAGES // 2)
    lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    ).fit(module, loader, loader)
    return folder


def unread_difference(net: nn.Module, inputs: Tensor, norm: Norm) -> tuple[float, bool]:
    """Return how far removing differs from zeros in what reads, and if a norm is computed anew.

    The difference is a share of the largest output. The zeros are set in the parameters that read
    the channels, by a copy of the network.
    """
    net = net.double().eval()
    given = inputs.double() if inputs.is_floating_point() else inputs
    graph = analyse(net, given[:1], norm=norm)
    rng = np.random.default_rng(0)
    removed: list[int] = []
    for group in graph.groups:
        count = min(graph.removable(group), max(1, len(group.channels) // 3))
        removed += rng.permutation(group.channels)[:count].tolist()
    plan = make_plan(graph, removed)
    twin = copy.deepcopy(net)
    own = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for cut in plan.cuts:
            if graph.roles[cut.tensor, cut.dim] == "input":
                gone = sorted(set(range(cut.size)) - set(cut.keep))
                own[cut.tensor].index_fill_(cut.dim, torch.tensor(gone), 0)
        expected = tensors_of(twin(given))
        apply(plan, net)
        found = tensors_of(net(given))
    pairs = [(a, b) for a, b in zip(expected, found, strict=True) if a.is_floating_point()]
    anew = any("parametrizations" in cut.tensor for cut in plan.cuts) or _standardised(net)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs), anew


def _standardised(net: nn.Module) -> bool:
    """Tell whether a layer computes its weight from a parameter by a norm over its inputs."""
    return any("Std" in type(layer).__name__ for layer in net.modules())


def pruned(entry: Entry) -> dict[str, Any]:
    """Prune in a fit; a network in which no channel can go exactly is pruned approximately."""
    try:
        return {"norm": "exact", **pruned_with(entry, "exact")}
    except ChannelError as error:
        if "no channel of" not in str(error):
            raise
        return {"norm": "approximate", **pruned_with(entry, "approximate")}


def pruned_with(entry: Entry, norm: Norm) -> dict[str, Any]:
    torch.manual_seed(0)
    module = Lit(entry.build())
    before = parameters(module)
    fit(module, entry.inputs(IMAGES), FilterPruning(TARGET, norm=norm))
    left = parameters(module) / before
    torch.manual_seed(0)
    difference, anew = unread_difference(entry.build(), entry.inputs(2), norm)
    return {"left": left, "difference": difference, "anew": anew or norm == "approximate"}


def quantised(entry: Entry) -> dict[str, Any]:
    torch.manual_seed(0)
    module, data = Lit(entry.build()), entry.inputs(IMAGES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        folder = fit(module, data, PostTrainingQuantization(calibration_batches=2))
    card_file = next(folder.rglob("card.json"))
    file = card_file.with_name("model.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    files = session.run(None, {name: data.numpy()})
    with torch.no_grad():
        floats = [t.numpy() for t in tensors_of(module.eval()(data))]
    card = read_card(card_file.parent).variant("int8")
    return {
        "sqnr": min(sqnr(a, b) for a, b in zip(floats, files, strict=True)),
        "warned": any("dB of SQNR" in str(warning.message) for warning in said),
        "outputs": len(files),
        "int8": int8_share(onnx.load(file)),
        "said": card.int8_share,
        "bytes": file.stat().st_size,
        "bytes_of_weights": 4 * parameters(module),
    }


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    signal = float((expected.astype(np.float64) ** 2).sum())
    noise = float(((expected.astype(np.float64) - found) ** 2).sum())
    return 200.0 if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))


def int8_share(model: onnx.ModelProto) -> float:
    """Return the share of the weights in a file that are stored in 8 bits."""
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    matrices = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    size = {
        bits: sum(int(np.prod(t.dims)) for t in matrices if (t.data_type in kinds) == bits)
        for bits in (True, False)
    }
    return size[True] / max(1, size[True] + size[False])


def attempt(step: Callable[[Entry], dict[str, Any]], entry: Entry) -> dict[str, Any]:
    start = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = step(entry)
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return {**found, "seconds": round(time.monotonic() - start, 1)}


def main(name: str) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    entry = entries()[name]
    result = {"pruned": attempt(pruned, entry), "quantised": attempt(quantised, entry)}
    print(json.dumps({"name": name, **result}))


if __name__ == "__main__":
    main(sys.argv[1])
