"""Print the share of a training epoch that each packaged config spends waiting for data.

Lightning's profiler times both, at the config's own batch size::

    python benchmarks/input_pipeline.py --data-dir DIR
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lightning.pytorch.profilers import SimpleProfiler

from lit_compress.cli import PACKAGED
from lit_compress.cli_lightning import run

#: Names of the profiler's entries.
WAITING = "[_TrainingEpochLoop].train_dataloader_next"
EPOCH = "run_training_epoch"


def waiting_share(config: Path, data_dir: str, batches: int) -> tuple[float, int]:
    """Return the share of an epoch spent waiting for batches, and the batch size."""
    words = ["fit", "--config", str(config), "--trainer.callbacks=[]", "--trainer.profiler=simple"]
    if "digits" not in config.read_text().lower():
        words.append(f"--data.data_dir={data_dir}")
    with tempfile.TemporaryDirectory() as folder:
        words += [
            "--trainer.max_epochs=1",
            f"--trainer.limit_train_batches={batches}",
            "--trainer.limit_val_batches=0",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--trainer.enable_checkpointing=false",
            f"--trainer.logger.init_args.save_dir={folder}",
        ]
        cli = run("fit", words)
    profiler, data = cli.trainer.profiler, cli.datamodule  # type: ignore[attr-defined]
    if not isinstance(profiler, SimpleProfiler):
        raise TypeError(f"expected Lightning's SimpleProfiler, got {type(profiler).__name__}")
    durations = profiler.recorded_durations
    # The first wait also starts the loader, once an epoch, however long the epoch is.
    share = sum(durations[WAITING]) / sum(durations[EPOCH])
    return share, data.batch_size


def main() -> None:
    """Print one line for each config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--batches", type=int, default=100)
    options = parser.parse_args()
    lines = []
    for config in sorted(PACKAGED.glob("*.yaml")):
        if "class_path" in config.read_text().partition("model:")[2]:
            share, batch_size = waiting_share(config, options.data_dir, options.batches)
            lines.append(f"{config.name:<34}{batch_size:>6}{share:>11.2%}")
    print(f"\n{'config':<34}{'batch':>6}{'waiting':>11}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
