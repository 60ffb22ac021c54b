"""A training run to be killed and resumed: pruning_program.py FOLDER [PROCESSES [EPOCH [KIND]]].

Goes on from the newest whole checkpoint in FOLDER, or that of EPOCH, where it is a number; KIND is
``filters`` (FilterPruning), ``rules`` (RulePruning: filters, elements and rewinding), ``blocks``
(BlockPruning, then FilterPruning) or ``aware`` (FilterPruning with max_drop, distillation and
quantization-aware training). Leaves the digest of
the weights at the start of each epoch in ``digest-RANK``, and of the end in ``final-RANK``.
"""

import hashlib
import sys
import warnings
from pathlib import Path

import torch
from conftest import loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from test_filter_pruning import Mobile

from lit_compress import Schedule
from lit_compress.callbacks import (
    BlockPruning,
    FilterPruning,
    KnowledgeDistillation,
    QuantizationAwareTraining,
    RulePruning,
)
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.errors import CheckpointError


def digest(module: LightningModule) -> str:
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode() + str(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    return found.hexdigest()


class Digests(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with open(self.folder / f"digest-{trainer.global_rank}", "a") as file:
            file.write(f"{trainer.current_epoch} {digest(pl_module)}\n")
        print("epoch", trainer.current_epoch, flush=True)


def newest(folder: Path) -> Path | None:
    for path in sorted(folder.glob("*.ckpt"), key=lambda p: int(p.stem), reverse=True):
        try:
            read_checkpoint(path)
        except CheckpointError:
            continue  # killed while it was written
        return path
    return None


def pruning(kind: str, folder: Path) -> list[Callback]:
    schedule = Schedule(2, 6, every=2)
    if kind == "rules":
        return [RulePruning(target=0.5, schedule=schedule, rewind="epoch 1")]
    if kind == "blocks":
        blocks = BlockPruning(0.5, schedule=Schedule(2, 3))
        return [blocks, FilterPruning(0.3, schedule=Schedule(4, 6))]
    if kind == "aware":
        pruner = FilterPruning(0.3, schedule=Schedule(2, 4), monitor="my_acc", max_drop=1.0)
        aware = QuantizationAwareTraining(first=6, freeze=7, dirpath=str(folder / "artifact"))
        return [pruner, KnowledgeDistillation(), aware]
    return [FilterPruning(0.5, schedule=schedule)]


def main(folder: Path, processes: int = 1, epoch: str = "", kind: str = "filters") -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=9,
        callbacks=[
            *pruning(kind, folder),
            Digests(folder),
            ModelCheckpoint(folder, "{epoch}", save_top_k=-1, auto_insert_metric_name=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resume = folder / f"{epoch}.ckpt" if epoch.isdigit() else newest(folder)
    module = Mobile()
    trainer.fit(module, loader(96), loader(16, 1), ckpt_path=resume)
    # Not in on_train_end, which does not come where the last checkpoint was written before a kill.
    (folder / f"final-{trainer.global_rank}").write_text(digest(module))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:] or ["1"])[0]), *sys.argv[3:])
