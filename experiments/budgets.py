"""Whether budgets hold: bytes of the int8 file, and a limit for what the accuracy may lose.

    python experiments/budgets.py bytes --data-dir DIR
    python experiments/budgets.py latency --data-dir DIR
    python experiments/budgets.py contract --data-dir DIR --dense CHECKPOINT

``bytes`` prunes three networks to two sizes each, and prints the size of the written file. Shapes
alone decide it, so a single training batch is enough.

``latency`` prunes three networks to a share of the time of their dense int8 file, for batches of 1
and of 32, and prints the time of the written file: the median, and its interval at 95 %. Nothing
else should run on the machine.

``contract`` prunes a trained ShuffleNetV2 with ``Compress(max_drop=0.01)``, for 20 splits of the
22,000 images of FashionMNIST that it was not trained on: one half is its validation data, the other
half is only counted at the end. It prints how often the int8 file loses at most a point there, too.
What it counted comes to ``experiments/results/contract.json``; what is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FashionMNIST

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import Compress, FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2

KEPT = Path(__file__).parent / "results" / "contract.json"
#: How much of the accuracy the file may lose, and how many splits are tried.
MAX_DROP, SPLITS = 0.01, 20
#: Epochs of each, of 80 batches.
EPOCHS = 8
#: Largest sizes of the files in bytes.
BUDGETS: Mapping[type[LightningModule], tuple[int, int]] = {
    ShuffleNetV2: (150_000, 400_000),
    MobileNetV2: (200_000, 600_000),
    AlexNet: (500_000, 2_000_000),
}
#: Shares of the time to remove, by network and batch size.
TIMES: Mapping[tuple[type[LightningModule], int], float] = {
    (ShuffleNetV2, 1): 0.25,
    (ShuffleNetV2, 32): 0.5,
    (MobileNetV2, 1): 0.3,
    (MobileNetV2, 32): 0.5,
    (AlexNet, 1): 0.5,
    (AlexNet, 32): 0.5,
}


def trainer(folder: str, epochs: int, *callbacks: Any, **more: Any) -> Trainer:
    """Return a quiet Trainer on the CPU."""
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )


def in_bytes(data_dir: str) -> None:
    """Print the size of each file next to its budget."""
    held = 0
    for kind, sizes in BUDGETS.items():
        side = 64 if kind is AlexNet else 32
        data = FashionMNISTDataModule(data_dir, image_size=side if side > 32 else None)
        for budget in sizes:
            seed_everything(0, verbose=False)
            with tempfile.TemporaryDirectory() as folder:
                writer = PostTrainingQuantization(dirpath=f"{folder}/artifact")
                pruner = FilterPruning(budget, of="bytes", schedule=Schedule(shape="one_shot"))
                run = trainer(
                    folder, 1, pruner, writer, limit_train_batches=1, limit_val_batches=10
                )
                run.fit(kind(in_channels=1), data)
                size = Path(folder, "artifact", "model.onnx").stat().st_size
            held += 0.95 * budget <= size <= budget
            print(
                f"{kind.__name__}: {size:,} of {budget:,} bytes ({size / budget:.1%})", flush=True
            )
    print(f"{held} of {2 * len(BUDGETS)} within 95 and 100 % of the bytes")


def in_time(data_dir: str) -> None:
    """Print the time of each file next to its budget."""
    held = 0
    for (kind, batch), target in TIMES.items():
        side = 224 if kind is AlexNet else 32
        data = FashionMNISTDataModule(data_dir, image_size=side if side > 32 else None)
        module = AlexNet(in_channels=1, image_size=side) if kind is AlexNet else kind(in_channels=1)
        seed_everything(0, verbose=False)
        with tempfile.TemporaryDirectory() as folder:
            writer = PostTrainingQuantization(dirpath=f"{folder}/artifact", calibration_batches=4)
            pruner = FilterPruning(
                target,
                of="latency",
                latency_batch=batch,
                schedule=Schedule(shape="one_shot"),
            )
            run = trainer(folder, 1, pruner, writer, limit_train_batches=1, limit_val_batches=2)
            run.fit(module, data)
        found = pruner.progress()["latency"]
        allowed, ratio, (low, high) = found["allowed"], found["ratio"], found["interval"]
        held += abs(ratio / allowed - 1) <= 0.05 and ratio < 1
        print(
            f"{kind.__name__}, batch {batch}: {ratio:.1%} ({low:.1%} to {high:.1%}) of the dense "
            f"file's time, allowed {allowed:.0%}",
            flush=True,
        )
    print(f"{held} of {len(TIMES)} within 5 % of the time that was asked for")


class Halves(LightningDataModule):
    """FashionMNIST with the images that were not trained on split in two halves."""

    def __init__(self, data_dir: str, seed: int) -> None:
        super().__init__()
        self._own = FashionMNISTDataModule(data_dir, batch_size=128, crop=2)
        self._own.setup("fit")
        pixels, labels = [], []
        for train, part in ((True, slice(48_000, None)), (False, slice(None))):
            data = FashionMNIST(data_dir, train=train)
            pixels.append(data.data[part])
            labels.append(data.targets[part])
        order = torch.randperm(22_000, generator=torch.Generator().manual_seed(seed))
        self.pixels = torch.cat(pixels)[order][:, None]
        self.labels = torch.cat(labels)[order]

    def train_dataloader(self) -> Any:
        """The 48,000 images that the dense network was trained on."""
        return self._own.train_dataloader()

    def val_dataloader(self) -> Any:
        """One half of the others."""
        with torch.no_grad():
            images = self._own.preprocess(self.pixels[:11_000])
        return DataLoader(TensorDataset(images, self.labels[:11_000]), batch_size=500)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Only training batches are pixels."""
        if batch[0].dtype != torch.uint8:
            return batch
        return self._own.on_after_batch_transfer(batch, dataloader_idx)


def hits(scores: np.ndarray, labels: Tensor) -> int:
    """Return how many scores are largest at their label."""
    return int((scores.argmax(1) == labels.numpy()).sum())


def split(data_dir: str, dense: str, seed: int) -> dict[str, Any]:
    """Compress with one split, and count on the half that nothing has seen."""
    seed_everything(seed, verbose=False)
    data = Halves(data_dir, seed)
    module = ShuffleNetV2(
        in_channels=1,
        init_from=dense,
        optimizer=lambda p: torch.optim.SGD(p, 0.005, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    )
    with torch.no_grad():
        images = data._own.preprocess(data.pixels)
        before = torch.cat([module.eval()(part) for part in images.split(500)]).numpy()
    module.train()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Compress(
            "val_acc", 0.7, max_drop=MAX_DROP, dense_epochs=0, dirpath=f"{folder}/artifact"
        )
        trainer(folder, EPOCHS, recipe, limit_train_batches=80).fit(module, data)
        net = lit_compress.load(f"{folder}/artifact")
        after = np.concatenate([net(part.numpy()) for part in images.split(500)])
        reached = net.card.pruning[0]["reached"]  # type: ignore[union-attr]
    counted = {}
    for name, half in (("validation", slice(None, 11_000)), ("unseen", slice(11_000, None))):
        labels = data.labels[half]
        counted[name] = {"dense": hits(before[half], labels), "int8": hits(after[half], labels)}
    return {"seed": seed, "images": 11_000, "reached": reached, **counted}


def contract(data_dir: str, dense: str) -> None:
    """Compress with each split, and print how often the limit holds."""
    found = json.loads(KEPT.read_text()) if KEPT.is_file() else []
    for seed in range(len(found), SPLITS):
        found.append(split(data_dir, dense, seed))
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
        print(found[-1], flush=True)
    lost = [(row["unseen"]["dense"] - row["unseen"]["int8"]) / row["images"] for row in found]
    held = sum(one <= MAX_DROP for one in lost)
    print(f"{held} of {len(found)} lose at most {MAX_DROP:g} on the unseen half: {max(lost):.4f}")


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["bytes", "latency", "contract"])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dense", help="checkpoint of the dense network, for contract")
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if words.what == "bytes":
        in_bytes(words.data_dir)
    elif words.what == "latency":
        in_time(words.data_dir)
    elif words.dense is None:
        parser.error("contract needs --dense, the checkpoint of the trained dense network")
    else:
        contract(words.data_dir, words.dense)


if __name__ == "__main__":
    main()
