"""Several processes on one or several machines, started by torchrun. A minute on a CPU.

    torchrun --nproc-per-node 2 examples/torchrun.py

On two machines with two processes each, run on both, with 0 and 1 as the rank of the node:

    torchrun --nnodes 2 --node-rank 0 --nproc-per-node 2 \
        --master-addr first.machine --master-port 29500 examples/torchrun.py

The processes train together. The first one decides what goes, and writes the artefact into
./artifact; all of them measure it, each on a part of the images. Then they share the layers of a
scan, whose rules the first one writes into ./scan.
"""

import os

from lightning.pytorch import Trainer, seed_everything

from lit_compress import Schedule, scan
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import DigitsDataModule
from lit_compress.modules import ShuffleNetV2


def main() -> None:
    """Fit, then scan the network that is left."""
    seed_everything(0, verbose=False)
    started = "WORLD_SIZE" in os.environ  # by torchrun
    trainer = Trainer(
        devices=int(os.environ["LOCAL_WORLD_SIZE"]) if started else 1,
        num_nodes=int(os.environ["GROUP_WORLD_SIZE"]) if started else 1,
        strategy="ddp" if started else "auto",
        accelerator="cpu",
        max_epochs=3,
        callbacks=[
            FilterPruning(0.3, schedule=Schedule(1, 1)),
            PostTrainingQuantization(monitor="val_acc", dirpath="artifact"),
            CompressionReport(),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = ShuffleNetV2(in_channels=1, num_classes=10, width=0.5)
    trainer.fit(module, datamodule=DigitsDataModule())
    scan(module, DigitsDataModule(), levels=[0.5], images=100, curves=False, progress=False)


if __name__ == "__main__":
    main()
