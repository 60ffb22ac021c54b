"""Is a pruned network better than a narrow one of the same size that was never pruned?

    python experiments/controls.py --data-dir DIR --runs RUNS [--network shufflenet_v2] [--widths]

FashionMNIST. At each size of the int8 file, three networks that were trained for equally many
epochs, those of their teacher included, and that all learn from it:

- ``pruned``: begins as the teacher, loses filters by ``FilterPruning``;
- ``random``: the same, with filters that are chosen by chance;
- ``narrow``: a dense network with fewer channels, whose file is not smaller.

The learning rate of each is chosen at the middle size, on the validation data of one seed; then
each is trained with other seeds and counted once on the test data. A killed command goes on from
the last epoch, and what is finished is not run again. Cards and answers come to
``experiments/results/controls``; ``experiments/draw.py`` makes the table of docs/results.md from
them. ``--widths`` prints how large the files of the narrow networks are.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from check import answers, fashion_mnist
from table import RESULTS, last_checkpoint, train

from lit_compress.artifact import read_card
from lit_compress.cli import main as lit_compress

#: Epochs of the teacher, and of each network that learns from it.
FIRST, MORE = 15, 15
#: Where cards and answers are kept.
KEPT = RESULTS / "controls"
#: The seed of the runs that choose, and the seeds that are counted on the test data, by network.
CHOOSING = 100
SEEDS = {"shufflenet_v2": (0, 1, 2, 3, 4), "mobilenet_v2": (0, 1, 2, 3, 4), "alexnet": (0, 1, 2)}
#: Learning rate of the teacher, and those that are tried for each kind.
LR = {"shufflenet_v2": 0.1, "mobilenet_v2": 0.1, "alexnet": 0.02}
FACTORS = (0.5, 1.0, 2.0)
Kind = Literal["pruned", "random", "narrow"]
KINDS: tuple[Kind, ...] = ("pruned", "random", "narrow")
#: By network, the largest bytes of the file and a width whose file is a little larger (``--widths``
#: prints it); the size at which learning rates are chosen comes first.
SIZES: dict[str, dict[int, float]] = {
    "shufflenet_v2": {200_000: 0.345, 100_000: 0.22, 400_000: 0.525},
    "mobilenet_v2": {300_000: 0.26},
    "alexnet": {250_000: 0.065},
}


@dataclass(frozen=True)
class Control:
    """One network that learns from a teacher.

    Attributes:
        network: The network.
        size: Largest bytes of the int8 file; a narrow network has not fewer.
        kind: How it became small.
        seed: The seed, also of its teacher.
        factor: Learning rate, as a multiple of the teacher's.
    """

    network: str
    size: int
    kind: Kind
    seed: int
    factor: float

    @property
    def name(self) -> str:
        """Its name in the results; runs that choose have their learning rate in it."""
        chosen = f"-lr{self.factor}" if self.seed == CHOOSING else ""
        return f"{self.network}-{self.size}-{self.kind}-{self.seed}{chosen}"

    def callbacks(self, teacher: Path) -> list[dict[str, Any]]:
        """Return the callbacks that it adds to a dense training, as a config has them."""
        dense = {"class_path": CLASSES[self.network]}
        dense["init_args"] = {"in_channels": 1, "init_from": str(teacher)}
        settings: dict[str, Any] = {"monitor": "val_acc", "calibration_batches": 32}
        found = [
            {"class_path": "KnowledgeDistillation", "init_args": {"teacher": dense}},
            {"class_path": "PostTrainingQuantization", "init_args": settings},
        ]
        if self.kind == "narrow":
            return found
        pruning: dict[str, Any] = {"target": self.size, "of": "bytes", "round_to": 4}
        pruning["schedule"] = {"first": 0, "last": MORE * 3 // 10}
        if self.kind == "random":
            pruning.update(importance="random", allocation="uniform")
        return [{"class_path": "FilterPruning", "init_args": pruning}, *found]


CLASSES: dict[str, Any] = {
    "shufflenet_v2": "ShuffleNetV2",
    "mobilenet_v2": "MobileNetV2",
    "alexnet": "AlexNet",
}


def words(network: str, seed: int, epochs: int, lr: float) -> list[str]:
    """Return the words behind ``lit-compress fit`` for a training."""
    return [
        *("--config", f"{network}_fashion_mnist.yaml", "--seed_everything", str(seed)),
        *("--data.batch_size", "128", "--data.crop", "2", "--trainer.max_epochs", str(epochs)),
        *("--model.optimizer.lr", str(lr), "--model.lr_scheduler.T_max", str(epochs)),
    ]


def trained(control: Control, runs: Path, data_dir: str) -> Path:
    """Train a network, and its teacher before; return the folder of its run."""
    network, lr = control.network, LR[control.network]
    teacher = runs / network / f"teacher-{control.seed}" / "run"
    train(words(network, control.seed, FIRST, lr), teacher, data_dir)
    checkpoint = last_checkpoint(teacher)
    if checkpoint is None:
        raise SystemExit(f"{teacher} has no checkpoint: remove the folder, and run this again")
    folder = runs / network / control.name / "run"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part.yaml"
    part.write_text(yaml.safe_dump({"trainer": {"callbacks+": control.callbacks(checkpoint)}}))
    more = words(network, control.seed, MORE, lr * control.factor)
    if control.kind == "narrow":
        begin = ["--model.width", str(SIZES[network][control.size])]
    else:
        begin = ["--model.init_from", str(checkpoint)]
    train([*more[:2], "--config", str(part), *more[2:], *begin], folder, data_dir)
    return folder


def result(control: Control, runs: Path, data_dir: str) -> dict[str, Any]:
    """Return what is kept of a network; train and measure it first if nothing is."""
    target = KEPT / control.name
    kept = target / "test.json"
    if not kept.is_file():
        print(control.name, flush=True)
        artifact = trained(control, runs, data_dir) / "artifact"
        int8 = read_card(artifact).variant("int8")
        if int8.metric is None:
            raise SystemExit(f"{artifact}: the int8 file has no metric: {int8.note}")
        found: dict[str, Any] = {"factor": control.factor, "validation": int8.metric.value}
        if control.seed != CHOOSING:
            images, labels = fashion_mnist(Path(data_dir))
            right = answers(artifact / "model.onnx", images) == labels
            found["correct"] = {"int8": int(right.sum())}
            found["images"] = len(labels)
            found["right"] = base64.b64encode(np.packbits(right).tobytes()).decode()
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(artifact / "card.json", target)
        kept.write_text(json.dumps(found, indent=2) + "\n")
    return dict(json.loads(kept.read_text("utf-8")))


def choosing(network: str, kind: Kind) -> list[Control]:
    """Return the runs that choose a learning rate."""
    size = next(iter(SIZES[network]))
    return [Control(network, size, kind, CHOOSING, factor) for factor in FACTORS]


def controls(network: str, runs: Path, data_dir: str) -> Iterator[Control]:
    """Yield all networks, first those that choose the learning rates of the others."""
    best: dict[Kind, float] = {}
    for kind in KINDS:
        found = [result(control, runs, data_dir) for control in choosing(network, kind)]
        best[kind] = max(found, key=lambda one: one["validation"])["factor"]
    for seed in SEEDS[network]:
        for size in SIZES[network]:
            for kind in KINDS:
                yield Control(network, size, kind, seed, best[kind])


def print_widths(network: str, data_dir: str) -> None:
    """Print the bytes of the int8 files of the narrow networks, after a single batch."""
    for size, width in SIZES[network].items():
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.yaml"
            quantization = Control(network, size, "narrow", 0, 1.0).callbacks(part)[1:]
            part.write_text(yaml.safe_dump({"trainer": {"callbacks": quantization}}))
            given = ["--model.width", str(width), "--data.data_dir", data_dir]
            given += ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
            given += ["--trainer.logger", "false", "--trainer.default_root_dir", folder]
            given += ["--trainer.enable_progress_bar", "false"]
            more = words(network, 0, 1, LR[network])
            if lit_compress(["fit", *more[:2], "--config", str(part), *more[2:], *given]):
                raise SystemExit(f"{network} of width {width}: the training failed")
            (file,) = Path(folder).rglob("model.onnx")
            print(f"{network}, width {width}: {file.stat().st_size:,} bytes for {size:,}")


def main() -> None:
    """Run all networks in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--network", choices=list(SIZES), help="default: all")
    parser.add_argument("--widths", action="store_true", help="print the sizes of narrow networks")
    given = parser.parse_args()
    data_dir = str(Path(given.data_dir).resolve())
    for network in [given.network] if given.network else SIZES:
        if given.widths:
            print_widths(network, data_dir)
            continue
        for control in controls(network, given.runs.resolve(), data_dir):
            result(control, given.runs.resolve(), data_dir)


if __name__ == "__main__":
    main()
