"""Print the peak memory of a fit with callbacks as a multiple of a plain fit's.

::

    python benchmarks/growth_memory.py [--network resnet50] [--side 64] [--images 64]

Each fit runs in a process of its own. Before it, the process runs the same fit with a small
network, so that all libraries are loaded, and then resets its peak (Linux:
``/proc/self/clear_refs``). What counts is by how much the resident memory then rises above what it
was: weights, gradients, the state of the optimizer, activations, and all that the callbacks add.
Also printed is what the process still holds after the fit, when its freed memory is given back to
the system. Weights and images are random, as they do not change the memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization

#: By name, the callbacks of a fit; its folder is given to them.
ARMS: dict[str, Callable[[str], list[Callback]]] = {
    "plain": lambda folder: [],
    "CompressionReport": lambda folder: [CompressionReport("val_acc", dirpath=folder)],
    "PostTrainingQuantization": lambda folder: [
        PostTrainingQuantization("val_acc", dirpath=folder)
    ],
    "PostTrainingQuantization, CompressionReport": lambda folder: [
        PostTrainingQuantization("val_acc", dirpath=folder),
        CompressionReport(),
    ],
    "FilterPruning, PostTrainingQuantization": lambda folder: [
        FilterPruning(0.5, schedule=Schedule(first=0, shape="one_shot")),
        PostTrainingQuantization("val_acc", dirpath=folder),
    ],
}
MIB = 1 << 20


class Classifier(LightningModule):
    """A network that is trained by plain steps."""

    def __init__(self, network: nn.Module, optimizer: str) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        scores: Tensor = self.network(images)
        return scores

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Log the accuracy."""
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), lr=1e-3)
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


def fit(arm: str, module: LightningModule, side: int, images: int) -> None:
    """Train for two epochs of a few batches."""
    data = TensorDataset(torch.randn(images, 3, side, side), torch.arange(images) % 10)
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(data, batch_size=32)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            limit_train_batches=2,
            callbacks=ARMS[arm](str(Path(folder) / "artifact")),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, loader, loader)


def memory(key: str) -> int:
    """Return a line of what Linux says of this process, in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    found = next(line for line in lines if line.startswith(f"{key}:"))
    return int(found.split()[1]) * 1024


def trim() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def child(options: argparse.Namespace) -> None:
    """Print how much memory a fit takes, as JSON."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    fit(options.arm, Classifier(small, options.optimizer), 32, 64)
    trim()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    network = torchvision.models.get_model(options.network)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    module = Classifier(network, options.optimizer)
    fit(options.arm, module, options.side, options.images)
    peak = memory("VmHWM") - before
    del module, network
    trim()
    print(json.dumps({"peak": peak, "held": memory("VmRSS") - before, "weights": weights}))


def measured(arm: str, options: argparse.Namespace) -> dict[str, int]:
    """Return the memory of a fit in a process of its own."""
    given = [f"--{name}={getattr(options, name)}" for name in ("network", "side", "images")]
    command = [sys.executable, __file__, *given, f"--optimizer={options.optimizer}", "--arm", arm]
    result = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print one line for each fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--arm", choices=ARMS, help="the fit of this process")
    options = parser.parse_args()
    if options.arm:
        child(options)
        return
    plain = measured("plain", options)
    weights = plain["weights"]
    print(
        f"{options.network}, {weights / MIB:.0f} MiB of weights, {options.optimizer}, "
        f"{options.side} px, {options.images} images"
    )
    for arm in options.arms:
        found = plain if arm == "plain" else measured(arm, options)
        print(
            f"{arm}: peak {found['peak'] / MIB:.0f} MiB, {found['peak'] / weights:.2f} times the "
            f"weights, {found['peak'] / plain['peak']:.2f} times a plain fit; "
            f"{found['held'] / MIB:.0f} MiB held after it",
            flush=True,
        )


if __name__ == "__main__":
    main()
