"""Print what MobileNetV2 loses without blocks, and without filters of as many MACs.

::

    python benchmarks/blocks_accuracy.py --data-dir DIR [--epochs 2] [--more 1] [--share 0.5]

FashionMNIST, 32 px. A dense network is trained; then each contender goes on from it for the same
number of epochs, the first of them with its pruning step: nothing, blocks, filters down to the MACs
that the blocks leave, and blocks and then half of that share by filters. Accuracy: of the float
network, on the 10,000 test images, before the network is trained further and after it. One seed.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_compress import Schedule
from lit_compress.callbacks import BlockPruning, FilterPruning
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.measure import cost
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
            self.accuracy = accuracy(pl_module, self.data)


@torch.no_grad()
def accuracy(module: MobileNetV2, data: FashionMNISTDataModule) -> float:
    """Return the share of test images that a network classifies rightly."""
    hits = count = 0
    module.eval()
    for images, labels in data.test_dataloader():
        hits += int((module(images).argmax(1) == labels).sum())
        count += len(labels)
    module.train()
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


def measure(given: argparse.Namespace, data: FashionMNISTDataModule) -> None:
    """Train, and print a row for each contender."""
    seed_everything(0, verbose=False)
    dense, image, macs = module(0.05), torch.zeros(1, 1, 32, 32), 0.5
    data.setup("test")
    fit(dense, data, given.epochs, given.share)
    whole = cost(dense.model, image).macs
    print(f"{'':24} parameters       MACs  at once   after  blocks that went")
    for label in contenders(given.blocks, macs):
        pruning, first = contenders(given.blocks, macs)[label], TestsFirst(data)
        small = module(0.01)
        small.load_state_dict(dense.state_dict())
        fit(small, data, given.more, given.share, *pruning, first)
        costs = cost(small.model, image)
        if label.startswith("without"):
            macs = 1 - costs.macs / whole
        gone = [
            name.rpartition(".")[2] for one in pruning[:1] for name in getattr(one, "removed", ())
        ]
        print(
            f"{label:24} {costs.parameters:10,d} {costs.macs:10,d}   {first.accuracy:.2%}  "
            f"{accuracy(small, data):.2%}  {' '.join(gone)}",
            flush=True,
        )


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--more", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    measure(given, FashionMNISTDataModule(given.data_dir, download=False, batch_size=128))


if __name__ == "__main__":
    main()
