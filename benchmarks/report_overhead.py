"""Print what ``CompressionReport`` adds to a fit, its measurement at the end apart.

ShuffleNetV2 trains on scikit-learn's digits and is pruned, with a TensorBoard logger, once with the
report and once without, in turn, round after round. A fit is timed from its set-up to its last
epoch: the report measures after that. The figure is the median over the rounds of the ratio, with
its 95 % interval (bootstrap). The seconds that the hooks of the report take, measured in the same
fits, are the same cost without the noise of the training::

    python benchmarks/report_overhead.py
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning
from lit_compress.datamodules import DigitsDataModule
from lit_compress.modules import ShuffleNetV2

#: The hooks of the report before the end of the fit.
HOOKS = (
    "setup",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_end",
    "before_pruning",
    "on_fit_end",
)


class TimedReport(CompressionReport):
    """A report whose hooks are timed, and which measures nothing at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        for hook in HOOKS:
            setattr(self, hook, self._timed(getattr(self, hook)))

    def _timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = perf_counter()
            try:
                return hook(*args, **options)
            finally:
                self.seconds += perf_counter() - start

        return run

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave out the measurement."""


class Stopwatch(Callback):
    """Times a fit from its first hook to its last epoch."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start."""
        self._start = perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = perf_counter() - self._start


def fit(report: TimedReport | None, epochs: int, batch_size: int) -> float:
    """Return the seconds of a fit."""
    seed_everything(0, verbose=False)
    watch = Stopwatch()
    pruning = FilterPruning(0.5, of="macs", schedule=Schedule(first=1, last=epochs // 2))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[watch, pruning, *([report] if report else [])],
            logger=TensorBoardLogger(Path(folder)),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(ShuffleNetV2(in_channels=1), DigitsDataModule(batch_size=batch_size))
    return watch.seconds


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a median, by bootstrap."""
    draws = np.random.default_rng(0).integers(0, len(ratios), (4000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Print the ratio, and the share of the hooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    fit(None, 3, options.batch_size)  # warms up
    ratios, shares, seconds = [], [], []
    for index in range(options.rounds):
        times = {}
        for with_report in (True, False) if index % 2 else (False, True):
            report = TimedReport() if with_report else None
            times[with_report] = fit(report, options.epochs, options.batch_size)
            if report is not None:
                shares.append(report.seconds / (times[True] - report.seconds))
                seconds.append(report.seconds)
        ratios.append(times[True] / times[False])
    low, high = interval(np.array(ratios))
    print(
        f"ShuffleNetV2, digits, {options.epochs} epochs, batch {options.batch_size}, "
        f"{torch.get_num_threads()} threads, {options.rounds} rounds in turn"
    )
    print(f"a fit with the report: {median(ratios):.3f}x ({low:.3f} to {high:.3f}) of one without")
    print(f"its hooks: {median(seconds):.2f} s, {median(shares):.1%} of the fit")


if __name__ == "__main__":
    main()
