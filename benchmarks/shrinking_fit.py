"""Measure how much faster training gets when channels are removed.

    python benchmarks/shrinking_fit.py [rounds]

Each network trains nine epochs on random images: without pruning, with ``FilterPruning(0.7)`` that
removes channels at every pruning step (of a cubic schedule), and with one that removes them at the
end. The three run in turn, for several rounds. Printed are medians: the time of each epoch divided
by the first epoch without pruning, and the total time divided by that without pruning.
"""

from __future__ import annotations

import logging
import sys
import warnings
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.callbacks import FilterPruning
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2

EPOCHS = 9
#: Class, side length in pixels, and number of training images of each network.
NETWORKS: dict[str, tuple[type[LightningModule], int, int]] = {
    "MobileNetV2": (MobileNetV2, 32, 1536),
    "ShuffleNetV2": (ShuffleNetV2, 32, 1536),
    "AlexNet": (AlexNet, 64, 320),
}


class Clock(Callback):
    """Records the seconds of each epoch, including the work before its first batch."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the start; this callback runs before the others."""
        self.started = perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the seconds since the start of the epoch."""
        self.epochs.append(perf_counter() - self.started)


def fit(name: str, shrink: str | None) -> tuple[float, list[float]]:
    """Return the seconds of a fit, and of each of its epochs.

    Args:
        name: Name of the network.
        shrink: When FilterPruning removes channels; None trains without pruning.
    """
    seed_everything(0, verbose=False)
    kind, size, images = NETWORKS[name]
    module = kind(in_channels=3)
    module.example_input_array = torch.zeros(2, 3, size, size)
    data = TensorDataset(torch.randn(images, 3, size, size), torch.randint(0, 10, (images,)))
    clock = Clock()
    callbacks: list[Any] = [clock]
    if shrink is not None:
        callbacks.append(FilterPruning(0.7, shrink=shrink))  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = perf_counter()
    trainer.fit(module, DataLoader(data, batch_size=64))
    return perf_counter() - start, clock.epochs


def main(rounds: int) -> None:
    """Print a table for each network."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{torch.get_num_threads()} threads, {rounds} rounds")
    for name in NETWORKS:
        fit(name, None)
        results = [
            {kind: fit(name, kind) for kind in (None, "every", "end")} for _ in range(rounds)
        ]
        print(name)
        for kind in (None, "every", "end"):
            total = median(r[kind][0] / r[None][0] for r in results)
            first = [r[kind][1][0] if kind != "every" else r[None][1][0] for r in results]
            epochs = [
                median(r[kind][1][epoch] / one for r, one in zip(results, first, strict=True))
                for epoch in range(EPOCHS)
            ]
            ratios = " ".join(f"{epoch:.2f}" for epoch in epochs)
            print(f"  shrink={kind or 'none':5}  total {total:.2f}x  epochs {ratios}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
