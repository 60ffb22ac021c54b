"""Print what MobileNetV2 loses without blocks, and without filters, and the time of its int8 files.

::

    python benchmarks/blocks_accuracy.py --data-dir DIR [--epochs 4] [--more 2] [--blocks 4]

FashionMNIST, 32 px. A dense network is trained; then each contender goes on from it for the same
number of epochs, the first of them with its pruning step: nothing, blocks, filters down to the MACs
that the blocks leave, and blocks and then filters. Accuracy: of the int8 file, on the test data.
Time: batch 1, one thread, ratios within a round in which all files are timed in turn: the median
and its bootstrap interval at 95 %. One seed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

from lit_compress import Schedule
from lit_compress.artifact import OnnxModel
from lit_compress.callbacks import BlockPruning, FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.measure import cost
from lit_compress.measure.latency import compare
from lit_compress.modules import MobileNetV2

ONCE = Schedule(shape="one_shot")


def fit(
    module: MobileNetV2, data: FashionMNISTDataModule, epochs: int, folder: Path, *pruning: Any
) -> None:
    """Train a module, and write its int8 file."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*pruning, PostTrainingQuantization(dirpath=str(folder))],
    )
    trainer.fit(module, datamodule=data)


def accuracy(model: OnnxModel, data: FashionMNISTDataModule) -> float:
    """Return the share of test images that an int8 file, which takes pixels, classifies rightly."""
    hits, count = 0, 0
    for images, labels in data.pixels("test"):
        hits += int((model(np.asarray(images)).argmax(1) == np.asarray(labels)).sum())
        count += len(labels)
    return hits / count


def contenders(blocks: int, macs: float) -> dict[str, list[Any]]:
    """Return the pruning callbacks of each contender.

    Args:
        blocks: Number of blocks that go.
        macs: Share of the MACs that go with them.
    """
    by_blocks = {"target": blocks / 10, "schedule": ONCE, "rank_by": "val_loss"}
    filters = {"target": macs, "of": "macs", "schedule": ONCE, "round_to": 8}
    return {
        "dense": [],
        f"without {blocks} blocks": [BlockPruning(**by_blocks)],
        "as few MACs by filters": [FilterPruning(**filters)],
        "blocks, then filters": [BlockPruning(**by_blocks), FilterPruning(**filters)],
    }


def module(rate: float) -> MobileNetV2:
    """Return a network with random weights, trained by SGD with momentum."""
    return MobileNetV2(
        in_channels=1, optimizer=lambda params: torch.optim.SGD(params, rate, momentum=0.9)
    )


def measure(given: argparse.Namespace, data: FashionMNISTDataModule, folder: Path) -> None:
    """Train, time, and print a row for each contender."""
    seed_everything(0, verbose=False)
    dense, image = module(0.05), torch.zeros(1, 1, 32, 32)
    fit(dense, data, given.epochs, folder / "start")
    data.setup("test")
    whole, share = cost(dense.model, image).macs, 0.5
    rows, models = {}, {}
    for label in contenders(given.blocks, share):
        pruning = contenders(given.blocks, share)[label]
        small = module(0.01)
        small.load_state_dict(dense.state_dict())
        fit(small, data, given.more, folder / label, *pruning)
        costs = cost(small.model, image)
        if label.startswith("without"):
            share = 1 - costs.macs / whole
        models[label] = OnnxModel(folder / label / "model.onnx", 1)
        rows[label] = (costs.parameters, costs.macs, accuracy(models[label], data))
        print(label, *rows[label], [getattr(one, "removed", "") for one in pruning], flush=True)
    pixels = np.zeros((1, 1, 28, 28), np.uint8)
    runners = {label: lambda model=model: model(pixels) for label, model in models.items()}
    times = compare(runners, rounds=200, confidence=0.95)
    print(f"{'':24} parameters       MACs  accuracy  time, of dense")
    for label, (parameters, macs, right) in rows.items():
        row = f"{label:24} {parameters:10,d} {macs:10,d}   {right:.2%}  "
        for over in times[label].speedups:
            low, high = over.interval
            row += f"{1 / over.ratio:.3f}x ({1 / high:.3f} to {1 / low:.3f})"
        print(row if times[label].speedups else f"{row}1")


def main() -> None:
    """Read the arguments, and measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--more", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = FashionMNISTDataModule(given.data_dir, download=False, batch_size=128)
    with tempfile.TemporaryDirectory() as folder:
        measure(given, data, Path(folder))


if __name__ == "__main__":
    main()
