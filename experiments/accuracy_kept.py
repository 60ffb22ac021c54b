"""How much accuracy is kept by distillation and by training with fake quantisation.

    python experiments/accuracy_kept.py --data-dir DIR --runs RUNS

FashionMNIST, each network with and without distillation, with int8 after the training and in it, at
several shares of removed parameters, for each seed. Every compressed network begins as a dense one
that was trained for ``FIRST`` epochs, its teacher, and trains for ``MORE``; the dense network that
it is compared with trains for both together. A killed command goes on from the last epoch, and what
is finished is not run again. The card and the right answers on the test data come to
``experiments/results/accuracy_kept/NAME``; ``experiments/draw.py`` makes the table of
docs/results.md from them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from table import RESULTS, TEST_IMAGES, last_checkpoint, test_accuracy, train

#: Epochs of the dense network that is pruned, and of its compression.
FIRST, MORE = 30, 30
#: Where cards and counts are kept.
KEPT = RESULTS / "accuracy_kept"
SEEDS = (0, 1, 2)
#: By network, the shares of its parameters that are removed, the most important first.
TARGETS = {"shufflenet_v2": (0.7, 0.9, 0.5), "mobilenet_v2": (0.7,)}
#: Learning rates of the dense training and of the compression.
LR, MORE_LR = 0.1, 0.05


@dataclass(frozen=True)
class Trial:
    """One compressed network.

    Attributes:
        network: The network.
        seed: The seed.
        target: Share of the parameters to remove.
        distilled: Whether it learns from the dense network.
        aware: Whether its last epochs run as the int8 file does.
    """

    network: str
    seed: int
    target: float
    distilled: bool
    aware: bool

    @property
    def name(self) -> str:
        """Its name in the results."""
        distilled = "distilled" if self.distilled else "plain"
        int8 = "aware" if self.aware else "after"
        return f"{self.network}-{self.target}-{distilled}-{int8}-{self.seed}"

    def callbacks(self) -> list[dict[str, Any]]:
        """Return the callbacks that it adds to a dense training, as a config has them."""
        last = MORE * 3 // 10
        found: list[dict[str, Any]] = [
            {
                "class_path": "FilterPruning",
                "init_args": {
                    "target": self.target,
                    "of": "parameters",
                    "round_to": 4,
                    "schedule": {"first": 0, "last": last},
                    "monitor": "val_acc",
                },
            }
        ]
        if self.distilled:
            found.append({"class_path": "KnowledgeDistillation"})
        settings: dict[str, Any] = {"monitor": "val_acc", "calibration_batches": 32}
        if self.aware:
            settings["first"] = MORE - 3
        kind = "QuantizationAwareTraining" if self.aware else "PostTrainingQuantization"
        return [*found, {"class_path": kind, "init_args": settings}]


def trials() -> Iterator[Trial]:
    """Yield all compressed networks, the most important first."""
    ways = [(True, True), (True, False), (False, False), (False, True)]
    for place in range(max(map(len, TARGETS.values()))):
        for seed in SEEDS:
            for network, targets in TARGETS.items():
                if place < len(targets):
                    for distilled, aware in ways:
                        yield Trial(network, seed, targets[place], distilled, aware)


def words(network: str, seed: int, epochs: int, lr: float) -> list[str]:
    """Return the words behind ``lit-compress fit`` for a training."""
    return [
        *("--config", f"{network}_fashion_mnist.yaml", "--seed_everything", str(seed)),
        *("--data.batch_size", "128", "--data.crop", "2", "--trainer.max_epochs", str(epochs)),
        *("--model.optimizer.lr", str(lr), "--model.lr_scheduler.T_max", str(epochs)),
    ]


def dense(network: str, seed: int, epochs: int, runs: Path, data_dir: str) -> Path:
    """Train a dense network, and return the folder of its run."""
    folder = runs / network / f"dense-{epochs}-{seed}" / "run"
    train(words(network, seed, epochs, LR), folder, data_dir)
    return folder


def compressed(trial: Trial, teacher: Path, runs: Path, data_dir: str) -> Path:
    """Train a compressed network, and return the folder of its run."""
    folder = runs / trial.network / trial.name / "run"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part.yaml"
    part.write_text(yaml.safe_dump({"trainer": {"callbacks+": trial.callbacks()}}))
    more = words(trial.network, trial.seed, MORE, MORE_LR)
    begin = ["--model.init_from", str(last_checkpoint(teacher))]
    train([*more[:2], "--config", str(part), *more[2:], *begin], folder, data_dir)
    return folder


def keep(name: str, folder: Path, variant: str, accuracy: float) -> None:
    """Keep the card and the count of a network."""
    target = KEPT / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "artifact" / "card.json", target)
    counted = {"images": TEST_IMAGES, "correct": {variant: round(accuracy * TEST_IMAGES)}}
    (target / "test.json").write_text(json.dumps(counted, indent=2) + "\n")


def measured(name: str) -> bool:
    """Tell whether a network was measured."""
    return (KEPT / name / "test.json").is_file()


def run(trial: Trial, runs: Path, data_dir: str) -> None:
    """Train and measure a compressed network, and the dense one that it is compared with."""
    name = f"{trial.network}-dense-{trial.seed}"
    if not measured(name):
        print(name, flush=True)
        folder = dense(trial.network, trial.seed, FIRST + MORE, runs, data_dir)
        accuracy = test_accuracy(folder, "--ckpt_path", str(last_checkpoint(folder)))
        keep(name, folder, "dense", accuracy)
    if not measured(trial.name):
        print(trial.name, flush=True)
        teacher = dense(trial.network, trial.seed, FIRST, runs, data_dir)
        folder = compressed(trial, teacher, runs, data_dir)
        accuracy = test_accuracy(
            folder, "--artifact", str(folder / "artifact"), "--ckpt_path", "null"
        )
        keep(trial.name, folder, "int8", accuracy)


def main() -> None:
    """Run all trials in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--network", choices=list(TARGETS), help="default: all")
    given = parser.parse_args()
    for trial in trials():
        if given.network in (None, trial.network):
            run(trial, given.runs.resolve(), str(Path(given.data_dir).resolve()))


if __name__ == "__main__":
    main()
