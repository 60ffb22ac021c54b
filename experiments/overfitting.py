"""Test whether pruning reduces overfitting, with ShuffleNetV2 and MobileNetV2 on FashionMNIST.

    python experiments/overfitting.py --data-dir DIR --out DIR [--network ShuffleNetV2] [--seeds 3]

Each seed has four steps, and each step starts from the weights of an earlier one:

- ``reference`` trains with the settings of the packaged configs;
- ``overfitted`` continues from ``reference`` with the callback ``Overfitting``;
- ``pruned`` continues from ``overfitted`` with pruning, and dropout, batch norms and augmentation
  are on again;
- ``continued``, the control, is the same as ``pruned`` without the pruning.

Each step writes its weights and a JSON file to ``--out``. A script that was stopped continues from
these files. The table is made from the JSON files alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lit_compress import Schedule
from lit_compress.callbacks import Overfitting, RulePruning
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.datamodules.images import Collate, PixelDataset
from lit_compress.modules import MobileNetV2, ShuffleNetV2
from lit_compress.modules.classifier import ImageClassifier

NETWORKS: dict[str, Callable[..., ImageClassifier]] = {
    "ShuffleNetV2": ShuffleNetV2,
    "MobileNetV2": MobileNetV2,
}
#: Published test accuracies in per cent: reference, overfitted, pruned.
PUBLISHED = {
    "ShuffleNetV2": {"paper": (90.36, 89.71, 91.01), "reproduction": (89.71, 89.98, 89.95)},
    "MobileNetV2": {"paper": (90.75, 90.55, 91.26), "reproduction": (90.23, 90.60, 90.79)},
}
#: The step whose weights each step starts from.
STEPS = {
    "reference": None,
    "overfitted": "reference",
    "pruned": "overfitted",
    "continued": "overfitted",
}


class Subset(FashionMNISTDataModule):
    """FashionMNIST with only the first of its training images.

    Args:
        data_dir: Folder of the data.
        images: Number of training images; all validation and test images are kept.
    """

    def __init__(self, data_dir: str, images: int) -> None:
        super().__init__(data_dir)
        self.images = images

    def setup(self, stage: str) -> None:
        """Read the images, and keep the first of the training images."""
        super().setup(stage)
        if "train" in self.datasets:
            train = self.datasets["train"]
            kept = PixelDataset(train.images[: self.images], train.labels[: self.images])
            self.datasets["train"] = kept


def pruning(share: float) -> Callback:
    """Return a callback that prunes as in the paper: filters of convolutions, else elements."""
    return RulePruning(target=share, schedule=Schedule(shape="one_shot"), shrink="never")


def epochs_of(step: str, words: argparse.Namespace) -> int:
    """Return the number of epochs of a step."""
    own: dict[str, int] = {"reference": words.epochs, "overfitted": words.overfit_epochs}
    return own.get(step, int(words.pruned_epochs))


def optimizer_of(step: str, words: argparse.Namespace) -> dict[str, Any]:
    """Return the module's optimizer arguments: the packaged config's first, the paper's later."""
    sgd = torch.optim.SGD
    if step == "reference":
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        return {
            "optimizer": lambda p: sgd(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
            "lr_scheduler": lambda o: cosine(o, T_max=words.epochs),
        }
    decay = 0.0 if step == "overfitted" else 1e-5
    return {"optimizer": lambda p: sgd(p, lr=words.lr, momentum=0.9, weight_decay=decay)}


def accuracies(module: ImageClassifier, data: Subset) -> dict[str, float]:
    """Return the accuracy on all training (not augmented), validation and test images."""
    quiet = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    data.setup("fit")
    data.setup("test")
    found = {}
    for split in ("train", "val", "test"):
        loader = DataLoader(
            data.datasets[split], batch_size=256, collate_fn=Collate(preprocess=data.preprocess)
        )
        found[split] = quiet.validate(module, loader, verbose=False)[0]["val_acc"]
    return found


def run(network: str, seed: int, step: str, words: argparse.Namespace) -> None:
    """Do one step, continue it if it was stopped, and write its result."""
    folder = Path(words.out) / network / f"seed{seed}"
    before = STEPS[step]
    seed_everything(seed, verbose=False)
    data = Subset(words.data_dir, words.images)
    module = NETWORKS[network](
        in_channels=1,
        init_from=None if before is None else str(folder / f"{before}.ckpt"),
        **optimizer_of(step, words),
    )
    saving = ModelCheckpoint(folder / step, save_last=True, save_on_train_epoch_end=True)
    callbacks: list[Callback] = [saving]
    if step == "overfitted":
        callbacks.append(Overfitting(threshold=words.threshold, every=words.every))
    if step == "pruned":
        callbacks.append(pruning(words.share))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs_of(step, words),
        callbacks=callbacks,
        logger=False,
        check_val_every_n_epoch=epochs_of(step, words),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last, start = folder / step / "last.ckpt", perf_counter()
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None)
    seconds = perf_counter() - start
    weights = [p for n, p in module.named_parameters() if p.dim() > 1]
    result = {
        "network": network,
        "seed": seed,
        "step": step,
        "epochs": trainer.current_epoch,
        **accuracies(module, data),
        "nonzero": sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights),
        "images": words.images,
        "seconds": round(seconds),
    }
    trainer.save_checkpoint(folder / f"{step}.ckpt", weights_only=True)
    _write(folder / f"{step}.json", result)
    print(json.dumps(result), flush=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a file completely or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def table(out: str) -> str:
    """Return the table of all results in a folder."""
    found = [json.loads(path.read_text()) for path in sorted(Path(out).rglob("seed*/*.json"))]
    lines = []
    for network in dict.fromkeys(result["network"] for result in found):
        ours = [result for result in found if result["network"] == network]
        sizes = ", ".join(sorted({f"{result['images']:,}" for result in ours}))
        lines += [f"{network}, FashionMNIST, {sizes} training images; mean (spread) in per cent"]
        lines += [_row("step", "seeds", "epochs", "training", "validation", "test", "gap")]
        lines += [_line([r for r in ours if r["step"] == step], step) for step in STEPS]
        lines += [_differences(ours)]
        lines += [
            f"{name}, 48,000 training images, one seed, test: "
            + " -> ".join(f"{value:.2f}" for value in row)
            for name, row in PUBLISHED[network].items()
        ]
        lines.append("")
    return "\n".join(lines)


def _row(step: str, seeds: str, epochs: str, *cells: str) -> str:
    return f"{step:12}{seeds:>6}{epochs:>8}" + "".join(f"{cell:>16}" for cell in cells)


def _line(results: list[dict[str, Any]], step: str) -> str:
    if not results:
        return _row(step, "0", "-")
    took = "-".join(dict.fromkeys(str(f({r["epochs"] for r in results})) for f in (min, max)))
    cells = [_spread([r[split] for r in results]) for split in ("train", "val", "test")]
    gap = _spread([r["train"] - r["val"] for r in results], "+")
    return _row(step, str(len(results)), took, *cells, gap)


def _differences(results: list[dict[str, Any]]) -> str:
    """Return by how much the pruned network's test accuracy exceeds the others', by seed."""
    by = {(r["seed"], r["step"]): r["test"] for r in results}
    parts = []
    for other in ("overfitted", "continued", "reference"):
        seeds = [s for s, step in by if step == "pruned" and (s, other) in by]
        if seeds:
            gains = [by[s, "pruned"] - by[s, other] for s in seeds]
            parts.append(f"over {other} {_spread(gains, '+')}")
    return "pruned, test, seed for seed: " + ("; ".join(parts) or "none yet")


def _spread(values: list[float], sign: str = "") -> str:
    middle = f"{100 * mean(values):{sign}.2f}"
    return f"{middle} ({100 * stdev(values):.2f})" if len(values) > 1 else middle


def main() -> None:
    """Do the steps that are not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", default="runs/overfitting")
    parser.add_argument("--network", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=STEPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--overfit-epochs", type=int, default=10)
    parser.add_argument("--pruned-epochs", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=0.9999)
    parser.add_argument("--every", type=int, default=2, help="epochs between measurements")
    parser.add_argument("--share", type=float, default=0.2, help="removed of each layer")
    parser.add_argument("--lr", type=float, default=0.01, help="after the reference")
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if not words.table:
        for network in words.network:
            for seed in range(words.seeds):
                for step in (step for step in STEPS if step in words.steps):
                    if not (Path(words.out) / network / f"seed{seed}" / f"{step}.json").is_file():
                        run(network, seed, step, words)
    print(table(words.out))


if __name__ == "__main__":
    main()
