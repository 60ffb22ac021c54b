"""Print what the logging of ``CompressionReport`` adds to a fit, its two measurements apart.

ShuffleNetV2 trains on scikit-learn's digits and is pruned, with a TensorBoard logger. The hooks of
the report are timed inside the fit: the same cost as the difference of a fit with and one without,
without the noise of two trainings. Not counted are the measurement at the end, and the one of a
single batch at the start, which finds errors before the training; its seconds are printed too. The
share is the median over the fits, with its 95 % interval (bootstrap)::

    python benchmarks/report_overhead.py

An epoch of the digits takes about a second and a half; the seconds are the same where it is longer.
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
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_end",
    "before_pruning",
    "on_fit_end",
)


class TimedReport(CompressionReport):
    """A report whose hooks are timed, and which does not measure at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = {"logging": 0.0, "start": 0.0}
        for hook in HOOKS:
            setattr(self, hook, self._timed(getattr(self, hook), "logging"))
        self.on_train_start = self._timed(self.on_train_start, "start")  # type: ignore[method-assign]

    def _timed(self, hook: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = perf_counter()
            try:
                return hook(*args, **options)
            finally:
                self.seconds[kind] += perf_counter() - start

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


def fit(epochs: int, batch_size: int) -> tuple[float, dict[str, float]]:
    """Return the seconds of a fit, and those of the hooks of the report in it."""
    seed_everything(0, verbose=False)
    watch, report = Stopwatch(), TimedReport()
    pruning = FilterPruning(0.5, of="macs", schedule=Schedule(first=1, last=epochs // 2))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[watch, pruning, report],
            logger=TensorBoardLogger(Path(folder)),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(ShuffleNetV2(in_channels=1), DigitsDataModule(batch_size=batch_size))
    return watch.seconds, report.seconds


def interval(shares: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a median, by bootstrap."""
    draws = np.random.default_rng(0).integers(0, len(shares), (4000, len(shares)))
    low, high = np.quantile(np.median(shares[draws], axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Print the share, and the seconds at the start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--fits", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    fit(3, options.batch_size)  # warms up
    fits = [fit(options.epochs, options.batch_size) for _ in range(options.fits)]
    shares = np.array([
        hooks["logging"] / (seconds - sum(hooks.values())) for seconds, hooks in fits
    ])  # fmt: skip
    low, high = interval(shares)
    print(
        f"ShuffleNetV2, digits, {options.epochs} epochs, batch {options.batch_size}, "
        f"{torch.get_num_threads()} threads, {options.fits} fits of "
        f"{median(seconds for seconds, _ in fits):.1f} s"
    )
    logging_seconds = median(hooks["logging"] for _, hooks in fits)
    print(
        f"logging: {np.median(shares):.2%} ({low:.2%} to {high:.2%}) of the fit without it, "
        f"{logging_seconds:.2f} s"
    )
    print(f"check at the start: {median(hooks['start'] for _, hooks in fits):.2f} s, once")


if __name__ == "__main__":
    main()
