"""Print the hypervolume that searches of digits reach, and that of random search.

::

    python benchmarks/search.py [--trials 30] [--seeds 5] [--dirpath DIR]

Each study is one worker of ``lit-compress search``: accuracy of a small network on scikit-learn's
digits against the bytes of its weights; width, learning rate, weight decay, batch size and pruned
share vary. The samplers ``tpe`` and ``nsga2`` stop hopeless trials; ``random`` runs as many trials
and stops none, so it costs at least as much. Hypervolume: the area that the front covers, of
accuracy above chance over the logarithm of the bytes below 256 KiB, relative to a perfect network
of 1 KiB. Cost: epochs that were trained. With ``--dirpath`` the same command goes on.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from math import log2
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from lit_compress.cli import main as lit_compress
from lit_compress.search._hopeless import EPOCHS

SAMPLERS = ("random", "tpe", "nsga2")
#: Epochs of a fit.
LENGTH = 4
#: Accuracy of chance; logarithms of the largest and of the smallest number of bytes.
CHANCE, LARGEST, SMALLEST = 0.1, 18, 10
FIT = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": LENGTH,
        "logger": False,
        "enable_checkpointing": False,
        "callbacks": [
            {
                "class_path": "FilterPruning",
                "init_args": {"target": 0.5, "schedule": {"first": 0, "last": 1}},
            },
            {"class_path": "CompressionReport", "init_args": {"monitor": "val_acc"}},
        ],
    },
    "model": {"class_path": "search.Digits"},
    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 64}},
}
SEARCH = {
    "fit": "fit.yaml",
    "objectives": ["val_acc", "bytes"],
    "ranges": {
        "model.width": [4, 32],
        "model.lr": {"low": 0.0001, "high": 1, "log": True},
        "model.weight_decay": {"low": 0.000001, "high": 0.1, "log": True},
        "data.batch_size": {"low": 16, "high": 256, "step": 16},
        "callbacks.FilterPruning.target": [0, 0.9],
    },
}


def layer(inputs: int, filters: int) -> tuple[nn.Module, ...]:
    """Return a convolution that halves the image, with batch norm."""
    conv = nn.Conv2d(inputs, filters, 3, stride=2, padding=1, bias=False)
    return conv, nn.BatchNorm2d(filters), nn.ReLU()


class Digits(LightningModule):
    """Three convolutions, trained by SGD with momentum."""

    def __init__(self, width: int = 16, lr: float = 0.05, weight_decay: float = 0.0001) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay = lr, weight_decay
        self.net = nn.Sequential(
            *layer(1, width),
            *layer(width, 2 * width),
            *layer(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the ten classes."""
        scores: Tensor = self.net(images)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        self.log("val_acc", (self(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), self.lr, 0.9, weight_decay=self.weight_decay)


def hypervolume(points: Sequence[Sequence[float]]) -> float:
    """Return the share of the area of accuracy over logarithmic bytes that points cover.

    Args:
        points: Accuracy and bytes of each.
    """
    area, left = 0.0, float(LARGEST)
    for accuracy, size in sorted(points, key=lambda point: (-point[0], point[1])):
        height, at = max(0.0, (accuracy - CHANCE) / (1 - CHANCE)), log2(size)
        if at < left:
            area += height * (left - at)
            left = at
    return area / (LARGEST - SMALLEST)


def study(folder: Path, sampler: str, seed: int, trials: int) -> list[Any]:
    """Search as one worker, and return the trials of the study.

    Args:
        folder: Where the study and its trials are.
        sampler: Name of the sampler.
        seed: Seed of the sampler.
        trials: Number of trials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fit.yaml").write_text(yaml.safe_dump(FIT))
    content = {**SEARCH, "sampler": sampler, "stop": sampler != "random", "trials": trials}
    (folder / "search.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    words = ["search", f"--config={folder / 'search.yaml'}", f"--dirpath={folder / 'found'}"]
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
        code = lit_compress([*words, f"--seed={seed}"])
    if code:
        raise RuntimeError(printed.getvalue())
    storage = f"sqlite:///{folder / 'found' / 'study.db'}"
    found: list[Any] = optuna.load_study(study_name="search", storage=storage).get_trials()
    return found


def epochs(trial: Any) -> int:
    """Return the number of epochs that a trial was trained."""
    if trial.state.name != "PRUNED":
        return LENGTH
    return max((int(epoch) + 1 for epoch in trial.user_attrs.get(EPOCHS, {})), default=LENGTH)


def main() -> None:
    """Read the arguments, search, and print a row for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--dirpath", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        measure(given.dirpath or Path(temporary), given.seeds, given.trials)


def measure(folder: Path, seeds: int, trials: int) -> None:
    """Search with each sampler and seed, and print hypervolume and epochs."""
    print("seed  " + "".join(f"{name:>8} epochs" for name in SAMPLERS), flush=True)
    won = dict.fromkeys(SAMPLERS[1:], 0)
    for seed in range(seeds):
        reached, row = {}, f"{seed:4}  "
        for name in SAMPLERS:
            found = study(folder / f"{name}-{seed}", name, seed, trials)
            points = [trial.values for trial in found if trial.state.name == "COMPLETE"]
            reached[name] = hypervolume(points)
            row += f"{reached[name]:8.4f} {sum(map(epochs, found)):6}"
        print(row, flush=True)
        for name in won:
            won[name] += reached[name] >= reached["random"]
    for name, count in won.items():
        print(f"{name}: at least the hypervolume of random search in {count} of {seeds} seeds")


if __name__ == "__main__":
    main()
