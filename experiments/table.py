"""Train, compress and measure the six networks of the results table, each from one command.

    python experiments/table.py --data-dir DIR --runs RUNS [--row shufflenet_v2_fashion_mnist]

Trains what ``experiments/rows.py`` says: the dense network, the compressed one that begins with its
weights, and a narrow dense one to compare with. A killed command goes on from the last epoch; a
training that is finished with the same words is not run again. What is small enough to check comes
to ``experiments/results/ROW``: the cards, the accuracy on the test data, and the int8 file.

    python experiments/check.py     counts the correct answers of the files again
    python experiments/draw.py      writes the tables and the picture of README and docs
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from rows import ROWS, Row

from lit_compress.artifact import read_card
from lit_compress.cli import PACKAGED
from lit_compress.cli import main as lit_compress

#: Where the results are kept.
RESULTS = Path(__file__).parent / "results"
#: Larger files are not kept.
LARGEST = 1_000_000
#: Images of the test data of each data set.
TEST_IMAGES = 10_000


def key(words: list[str]) -> str:
    """Return the first digits of the SHA-256 of a command and of the values in its configs."""
    digest = hashlib.sha256()
    for word in words:
        path = Path(word)
        if path.suffix == ".yaml":
            values = yaml.safe_load((PACKAGED / path).read_text("utf-8"))
            digest.update(json.dumps(values, sort_keys=True).encode())
        else:  # of a checkpoint: the folder of its own row and training
            digest.update("/".join(path.parts[-5:]).encode() + b"\n")
    return digest.hexdigest()[:8]


def last_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint of a run; None if there is none."""
    found = sorted((run / "checkpoints").glob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def train(words: list[str], folder: Path, data_dir: str) -> None:
    """Train in a process of its own; goes on where an earlier one was stopped.

    Args:
        words: The words behind ``lit-compress fit``.
        folder: Folder of the run.
        data_dir: Folder of the data.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    if (folder / "done").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    words = [*words, "--data.data_dir", data_dir, "--trainer.enable_progress_bar", "false"]
    where = folder.parent
    for name, value in (("save_dir", where.parent), ("name", where.name), ("version", folder.name)):
        words += [f"--trainer.logger.init_args.{name}", str(value)]
    resumed = last_checkpoint(folder)
    words += ["--ckpt_path", str(resumed)] if resumed else []
    with (folder / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "lit_compress", "fit", *words]
        subprocess.run(command, check=True, stdout=log, stderr=log)  # noqa: S603  # our own words
    (folder / "done").touch()


def test_accuracy(folder: Path, *words: str) -> float:
    """Return the accuracy on the test data, as ``lit-compress test`` prints it."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        # Without a logger nothing is written into the folder of the run.
        quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
        code = lit_compress(["test", "--config", str(folder / "config.yaml"), *quiet, *words])
    found = re.search(r"test_acc\W+([0-9.]+)", shown.getvalue())
    if code or not found:
        raise SystemExit(f"lit-compress test in {folder} failed:\n{shown.getvalue()}")
    return float(found[1])


def keep(row: Row, stage: str, folder: Path) -> None:
    """Copy the card and a small int8 file, and write the accuracies on the test data."""
    target, artifact = RESULTS / row.config / stage, folder / "artifact"
    if (target / "test.json").is_file() and _same(artifact / "card.json", target / "card.json"):
        return
    checkpoint = last_checkpoint(folder)
    names = [variant.name for variant in read_card(artifact).variants]
    float_name = "pruned" if "pruned" in names else "dense"
    hits = {float_name: test_accuracy(folder, "--ckpt_path", str(checkpoint))}
    if "int8" in names:
        hits["int8"] = test_accuracy(folder, "--artifact", str(artifact), "--ckpt_path", "null")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(artifact / "card.json", target)
    model = artifact / "model.onnx"
    if model.is_file() and model.stat().st_size <= LARGEST:
        shutil.copy(model, target)
    counted = {name: round(accuracy * TEST_IMAGES) for name, accuracy in hits.items()}
    text = json.dumps({"images": TEST_IMAGES, "correct": counted}, indent=2)
    (target / "test.json").write_text(text + "\n")


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def run(row: Row, runs: Path, data_dir: str) -> None:
    """Train and measure what a row needs and does not have."""
    dense: Path | None = None
    for stage in row.stages:
        words = row.command(stage, dense if stage == "compressed" else None)
        folder = runs / row.config / f"{stage}-{key(words)}" / "run"
        print(f"{row.config}: {stage} in {folder}", flush=True)
        train(words, folder, data_dir)
        keep(row, stage, folder)
        dense = last_checkpoint(folder) if stage == "dense" else dense


def main() -> None:
    """Run the rows in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--row", choices=list(ROWS), action="append", help="default: all six")
    words = parser.parse_args()
    for name in words.row or list(ROWS):
        run(ROWS[name], words.runs.resolve(), str(Path(words.data_dir).resolve()))


if __name__ == "__main__":
    main()
