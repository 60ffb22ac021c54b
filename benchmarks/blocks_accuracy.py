"""Print what MobileNetV2 loses without blocks, and without filters of as many MACs.

::

    python benchmarks/blocks_accuracy.py --data-dir DIR [--epochs 6] [--more 3] [--blocks 4]

FashionMNIST, 32 px. A dense network is trained; then each contender goes on from it for the same
number of epochs, the first of them with its pruning step: nothing, blocks, filters down to the MACs
that the blocks leave, and blocks and then half of that share by filters. Accuracy on the 10,000
test images: of the float network just after the step and at the end, and of its int8 file. Time of
that file: batch 1, one thread, ratios within a round in which all files are timed in turn, in a new
random order; the median and its bootstrap interval at 95 %. One seed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from blocks import write
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_compress import Schedule
from lit_compress.artifact import OnnxModel
from lit_compress.callbacks import BlockPruning, FilterPruning
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.measure import cost
from lit_compress.measure.latency import compare
from lit_compress.modules import MobileNetV2

ONCE = Schedule(shape="one_shot")


class TestsFirst(Callback):
    """Measures the network just after the pruning step, on the test data."""

    def __init__(self, data: FashionMNISTDataModule) -> None:
        self.data, self.accuracy = data, 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, index: int
    ) -> None:
        """Measure before the first batch."""
        if not index and not trainer.current_epoch:
            pl_module.eval()
            self.accuracy = accuracy(pl_module, self.data)
            pl_module.train()


@torch.no_grad()
def accuracy(model: Callable[..., Any], data: FashionMNISTDataModule) -> float:
    """Return the share of test images that a network, or its file, classifies rightly."""
    hits = count = 0
    for images, labels in data.test_dataloader():
        hits += int((torch.as_tensor(model(images)).argmax(1) == labels).sum())
        count += len(labels)
    return hits / count


def fit(
    module: MobileNetV2, data: FashionMNISTDataModule, epochs: int, share: float, *callbacks: Any
) -> None:
    """Train a module on a share of the training batches in each epoch."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=share,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=data)


def contenders(blocks: int, macs: float) -> dict[str, list[Any]]:
    """Return the pruning callbacks of each contender.

    Args:
        blocks: Number of blocks that go.
        macs: Share of the MACs that go with them.
    """

    def by_blocks() -> BlockPruning:
        return BlockPruning(blocks / 10, schedule=ONCE, rank_by="val_loss")

    def filters(share: float) -> FilterPruning:
        return FilterPruning(share, of="macs", schedule=ONCE, scope="global", round_to=8)

    return {
        "dense": [],
        f"without {blocks} blocks": [by_blocks()],
        "as few MACs by filters": [filters(macs)],
        "blocks, then filters": [by_blocks(), filters(macs / 2)],
    }


def module(rate: float) -> MobileNetV2:
    """Return a network with random weights, trained by SGD with momentum."""
    return MobileNetV2(
        in_channels=1, optimizer=lambda params: torch.optim.SGD(params, rate, momentum=0.9)
    )


def measure(given: argparse.Namespace, data: FashionMNISTDataModule, folder: Path) -> None:
    """Train, time, and print a row for each contender."""
    seed_everything(0, verbose=False)
    dense, image, macs = module(0.05), torch.zeros(1, 1, 32, 32), 0.5
    data.setup("test")
    fit(dense, data, given.epochs, given.share)
    whole = cost(dense.model, image).macs
    rows, models = {}, {}
    for label in contenders(given.blocks, macs):
        pruning, first = contenders(given.blocks, macs)[label], TestsFirst(data)
        small = module(0.01)
        small.load_state_dict(dense.state_dict())
        fit(small, data, given.more, given.share, *pruning, first)
        costs = cost(small.model.eval(), image)
        if label.startswith("without"):
            macs = 1 - costs.macs / whole
        calibration = data.preprocess(next(iter(data.pixels("val")))[0])
        nodes = write(small.model, calibration, folder / label)
        models[label] = OnnxModel(folder / label, 1)
        right = (first.accuracy, accuracy(small.eval(), data), accuracy(models[label], data))
        shares = " ".join(f"{share:7.2%}" for share in right)
        rows[label] = f"{label:24} {costs.parameters:10,d} {costs.macs:10,d} {nodes:5d}  {shares}  "
        gone = [name for one in pruning[:1] for name in getattr(one, "removed", ())]
        print(rows[label], *gone, flush=True)
    runners = {name: lambda model=model: model(image.numpy()) for name, model in models.items()}
    times = compare(runners, rounds=200, confidence=0.95)
    print(f"{'':24} parameters       MACs nodes  at once  at end    int8  time, of dense")
    for label, row in rows.items():
        for over in times[label].speedups:
            low, high = over.interval
            row += f"{1 / over.ratio:.3f}x ({1 / high:.3f} to {1 / low:.3f})"
        print(row if times[label].speedups else f"{row}1")


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--more", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = FashionMNISTDataModule(given.data_dir, download=False, batch_size=128)
    with tempfile.TemporaryDirectory() as folder:
        measure(given, data, Path(folder))


if __name__ == "__main__":
    main()
