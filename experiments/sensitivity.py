"""Draw the paper's sensitivity figures: six networks, pruned without training, ratios 0 to 1.

    python experiments/sensitivity.py --data-dir DIR [--epochs N] [--images N]

Trains each network with its packaged config, unless ``runs/NAME/version_0`` has a checkpoint. Scans
it as the paper's original code prunes (filters of convolutions, elements of linear layers), writes
the figure to ``docs/sensitivity``, and prints the accuracy with all layers pruned at each ratio. A
script that was stopped continues.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lit_compress.cli import main as lit_compress
from lit_compress.sensitivity.table import TABLE, Row, Table

NAMES = (
    "shufflenet_v2_fashion_mnist",
    "mobilenet_v2_fashion_mnist",
    "alexnet_fashion_mnist",
    "shufflenet_v2_cifar10",
    "mobilenet_v2_cifar10",
    "alexnet_cifar10",
)
LEVELS = [round(0.1 * step, 1) for step in range(11)]
FIGURES = Path(__file__).parent.parent / "docs" / "sensitivity"


def trained(name: str, data_dir: str, runs: Path, epochs: int | None) -> Path:
    """Return the checkpoint of a config's run; train first if there is none."""
    found = runs / name / "version_0" / "checkpoints" / "last.ckpt"
    if not found.is_file():
        words = ["fit", "--config", f"{name}.yaml", f"--data.data_dir={data_dir}"]
        words.append(f"--trainer.logger.init_args.save_dir={runs}")
        if epochs is not None:
            words += [f"--trainer.max_epochs={epochs}"]
            words += [f"--model.lr_scheduler.init_args.T_max={epochs}"]
        if lit_compress(words):
            raise SystemExit(f"{name}: the training failed")
    return found


def scanned(name: str, checkpoint: Path, data_dir: str, runs: Path, images: int) -> list[Row]:
    """Scan a network and return the rows with all layers pruned at one ratio."""
    folder = runs / "sensitivity" / name
    words = ["scan", "--config", f"{name}.yaml", f"--data.data_dir={data_dir}"]
    words += [f"--ckpt_path={checkpoint}", f"--dirpath={folder}", "--granularity=original"]
    words += [f"--levels={LEVELS}", f"--images={images}", "--monitor=val_acc"]
    words += ["--trainer.logger=false", "--trainer.callbacks=null"]
    if lit_compress(words):
        raise SystemExit(f"{name}: the scan failed")
    FIGURES.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "scan.png", FIGURES / f"{name}.png")
    rows = Table.read(folder / TABLE)
    return [row for row in rows if row.layer == "*"]


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--epochs", type=int, help="in place of the config's own")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("names", nargs="*", default=NAMES)
    options = parser.parse_args()
    lines = []
    for name in options.names:
        checkpoint = trained(name, options.data_dir, options.runs, options.epochs)
        rows = scanned(name, checkpoint, options.data_dir, options.runs, options.images)
        accuracies = " ".join(f"{row.scores['val_acc']:.3f}" for row in rows)
        lines.append(f"{name:28} {accuracies}")
    print("val_acc with all layers pruned, without training, at " + " ".join(map(str, LEVELS)))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
