"""Measure the time of a sensitivity scan, against a loop that evaluates the whole network.

    python benchmarks/scan.py
    python benchmarks/scan.py --checkpoint last.ckpt --network ShuffleNetV2 --data-dir DIR

Without a checkpoint: MobileNetV2 and ShuffleNetV2 on random images of 32 pixels, with the same
layers, levels and images on both sides, which must give the same numbers. For each layer and level,
the loop copies the network, prunes the layer and evaluates. Both are timed in turn, layer by layer,
for several rounds.

With a checkpoint of a network trained on FashionMNIST: our scan with its defaults against that loop
over the whole validation set, for some evenly spaced layers, and whether both choose the same
ratios. The last lines estimate how often they do so, over many samples of the loop's images.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.checkpoints.weights import load_weights
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.modules import MobileNetV2, ShuffleNetV2
from lit_compress.pruning import magnitude_masks, prunable_weights
from lit_compress.sensitivity.levels import largest_tolerated
from lit_compress.sensitivity.options import LEVELS
from lit_compress.sensitivity.sample import draw, stratified
from lit_compress.sensitivity.targets import weight_targets
from lit_compress.sensitivity.trials import TrialRunner
from lit_compress.trainer import Trainer

RATIOS = [Fraction(repr(level)) for level in LEVELS]
#: Number of samples for the estimate of how often a scan chooses the same ratio as all images.
DRAWS = 200
NETWORKS: dict[str, Any] = {"MobileNetV2": MobileNetV2, "ShuffleNetV2": ShuffleNetV2}
Batch = tuple[Tensor, Tensor]


def evaluate(
    module: LightningModule, batches: Iterable[Batch]
) -> tuple[dict[str, float], np.ndarray]:
    """Return accuracy and loss over batches, and whether each image was classified correctly."""
    loss, hits = 0.0, []
    with torch.no_grad():
        for images, labels in batches:
            scores = module(images)
            loss += float(torch.nn.functional.cross_entropy(scores, labels)) * len(labels)
            hits.append((scores.argmax(-1) == labels).numpy())
    right = np.concatenate(hits)
    return {"val_acc": float(right.mean()), "val_loss": loss / len(right)}, right


def evaluate_levels(
    module: LightningModule, name: str, batches: Iterable[Batch]
) -> list[tuple[dict[str, float], np.ndarray]]:
    """Prune a layer by each level, each on a new copy of the network, and evaluate."""
    found = []
    for ratio in RATIOS:
        pruned = copy.deepcopy(module)
        weight = prunable_weights(pruned)[name]
        with torch.no_grad():
            if ratio:
                weight.mul_(magnitude_masks({name: weight}, ratio)[name])
        found.append(evaluate(pruned, batches))
    return found


def same_work(images: int, every: int, rounds: int) -> None:
    """Print a line for each network, with the same layers, levels and images on both sides."""
    generator = torch.Generator().manual_seed(0)
    for kind in NETWORKS.values():
        seed_everything(0, verbose=False)
        module = kind().eval()
        pixels = torch.randn(images, 3, 32, 32, generator=generator)
        labels = torch.randint(10, (images,), generator=generator)
        loader: DataLoader[Any] = DataLoader(TensorDataset(pixels, labels), batch_size=256)
        trainer = _trainer()
        trainer.validate(module, loader, verbose=False)
        found = [_in_turn(trainer, module, loader, every) for _ in range(rounds)]
        layers = len(found[0].ours) - 1
        ratios = sorted(sum(one.theirs) / sum(one.ours) for one in found)
        each = [t / o for one in found for t, o in zip(one.theirs[1:], one.ours[1:], strict=True)]
        print(
            f"{kind.__name__:13} {layers} layers, {len(RATIOS)} levels, {images} images: "
            f"{median(ratios):.1f}x faster ({ratios[0]:.1f} to {ratios[-1]:.1f} in {rounds} "
            f"rounds; median layer {median(each):.1f}x); {sum(one.wrong for one in found)} of "
            f"{rounds * layers * len(RATIOS)} rows differ",
            flush=True,
        )


@dataclass(frozen=True)
class Round:
    """One round of both sides.

    Attributes:
        ours: Seconds of our scan's preparation, then of each layer.
        theirs: Seconds of the loop, in the same places; its preparation is 0.
        wrong: Number of rows that differ.
    """

    ours: list[float]
    theirs: list[float]
    wrong: int


def _in_turn(trainer: Trainer, module: LightningModule, loader: Any, every: int) -> Round:
    """Scan every n-th layer with both, in turn."""
    copied, sample = clone(trainer, module), draw(loader, None)
    targets = weight_targets(copied, "element")[:-1][::every]
    start = perf_counter()
    measure = TrialRunner(trainer, module, sample, [target.tensors for target in targets])
    ours, theirs, wrong = [perf_counter() - start], [0.0], 0
    for target in targets:
        start = perf_counter()
        found = [
            measure.scores(target.pruned(ratio)[0]) if ratio else measure.baseline
            for ratio in RATIOS
        ]
        middle = perf_counter()
        expected = evaluate_levels(copied, target.name, loader)
        theirs.append(perf_counter() - middle)
        ours.append(middle - start)
        wrong += sum(not _same(a, b) for a, (b, _) in zip(found, expected, strict=True))
    return Round(ours, theirs, wrong)


def at_the_defaults(network: str, checkpoint: str, data_dir: str, layers: int) -> None:
    """Print how much faster a scan with its defaults is, and whether it chooses the same ratios."""
    module = NETWORKS[network](in_channels=1)
    load_weights(module, checkpoint)
    data = FashionMNISTDataModule(data_dir)
    data.prepare_data()
    data.setup("validate")
    names = list(prunable_weights(module))
    chosen = names[:: max(1, len(names) // layers)]
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        rules = _trainer().scan(
            module, datamodule=data, include=chosen, curves=False, dirpath=folder
        )
        quick = perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        curves = _trainer().scan(module, datamodule=data, include=chosen, dirpath=folder)
        full = perf_counter() - start
    module.eval()
    theirs, within = 0.0, {"curves": 0, "rules": 0}
    right: list[np.ndarray] = []
    for name in chosen:
        start = perf_counter()
        rows = evaluate_levels(module, name, cast("Iterable[Batch]", data.val_dataloader()))
        theirs += perf_counter() - start
        right.append(np.stack([hits for _, hits in rows]))
        best = chosen_ratio(right[-1])
        for word, scan in (("curves", curves), ("rules", rules)):
            within[word] += abs(scan.chosen[name] - best) <= Fraction(1, 10)
        picks = (best, curves.chosen[name], rules.chosen[name])
        print(f"{name:40}", *(float(pick) for pick in picks), flush=True)
    print(
        f"{network}, {len(chosen)} layers: {theirs / full:.1f}x faster with all curves, "
        f"{within['curves']} of {len(chosen)} ratios within one level; {theirs / quick:.1f}x "
        f"with the rules alone, {within['rules']} of {len(chosen)}"
    )
    batches = cast("Iterable[Batch]", data.val_dataloader())
    labels = np.concatenate([truth.numpy() for _, truth in batches])
    for images in (1024, 2048, 4096):
        share = np.mean([_agreement(hits, labels, images) for hits in right])
        print(f"{DRAWS} samples of {images} images: {share:.1%} of ratios within one level")


def chosen_ratio(right: np.ndarray) -> Fraction:
    """Return the ratio that a scan chooses.

    Args:
        right: Whether each image was classified correctly, levels x images.
    """
    drops = dict(zip(RATIOS, right[0].mean() - right.mean(1), strict=True))
    return largest_tolerated(drops, 0.01 + 1e-9)


def _agreement(right: np.ndarray, labels: np.ndarray, images: int) -> float:
    """Return the share of samples that choose the same ratio as all images, within one level."""
    best, random = chosen_ratio(right), np.random.default_rng(0)
    found = [chosen_ratio(right[:, stratified(labels, images, random)]) for _ in range(DRAWS)]
    return float(np.mean([abs(one - best) <= Fraction(1, 10) for one in found]))


def _same(one: dict[str, float], other: dict[str, float]) -> bool:
    loss = abs(one["val_loss"] - other["val_loss"]) <= 1e-6 * other["val_loss"]
    return loss and abs(one["val_acc"] - other["val_acc"]) < 1e-6


def _trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main() -> None:
    """Print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--every", type=int, default=3, help="every n-th layer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), default="ShuffleNetV2")
    parser.add_argument("--checkpoint")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{torch.get_num_threads()} threads")
    if options.checkpoint:
        at_the_defaults(options.network, options.checkpoint, options.data_dir, options.layers)
    else:
        same_work(options.images, options.every, options.rounds)


if __name__ == "__main__":
    main()
