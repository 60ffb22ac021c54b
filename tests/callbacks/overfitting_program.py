"""A run of two processes that overfits and prunes: python overfitting_program.py FOLDER.

Leaves, for each process, what it measured and the weights' digest in ``RANK.json``.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from pruning_program import digest
from test_overfitting import Data, Dropped

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, Overfitting


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    module, callback = Dropped(lr=0.1), Overfitting("my_acc", threshold=0.6)
    pruner = FilterPruning(0.5, schedule=Schedule(40, shape="one_shot"))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=42,
        callbacks=[callback, pruner],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=Data())
    content = {
        "digest": digest(module),
        "steps": [[step.step, step.epoch, step.train, step.val] for step in callback.steps],
        "held": sorted({epoch for epoch, norm, _ in module.flags if not norm}),
        "augmented": sorted(epoch for epoch, seen in module.augmented.items() if True in seen),
    }
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
