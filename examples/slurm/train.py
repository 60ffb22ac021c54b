"""A fit of a SLURM job; see array.sh and requeue.sh, which start it.

    srun python examples/slurm/train.py FOLDER TARGET EPOCHS

Removes TARGET of the parameters, and writes the artefact into FOLDER/artifact. When the time of the
job is nearly over, SLURM sends the signal that the script asks for. Lightning then saves a
checkpoint in FOLDER, after the same batch in all processes, and asks SLURM to run the job again.
The same command goes on from that checkpoint.
"""

import os
import sys

from lightning.pytorch import Trainer, seed_everything

from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import DigitsDataModule
from lit_compress.modules import ShuffleNetV2


def main(folder: str, target: float, epochs: int) -> None:
    """Fit, or go on with the fit.

    Args:
        folder: Folder of this fit: each task of an array needs one of its own.
        target: Share of the parameters that is removed.
        epochs: Number of epochs.
    """
    seed_everything(0, verbose=False)
    trainer = Trainer(
        devices=int(os.environ["SLURM_NTASKS_PER_NODE"]),
        num_nodes=int(os.environ["SLURM_NNODES"]),
        strategy="ddp",
        accelerator="auto",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=[
            FilterPruning(target, of="parameters"),
            PostTrainingQuantization(monitor="val_acc", dirpath=f"{folder}/artifact"),
            CompressionReport(),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = ShuffleNetV2(in_channels=1, num_classes=10, width=0.5)
    trainer.fit(module, datamodule=DigitsDataModule())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
