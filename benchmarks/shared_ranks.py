"""Measure what several processes of a run save, on one machine, and that they find the same.

    python benchmarks/shared_ranks.py [scan rules quantize sensitivity] [--network MobileNetV2]

Each work runs in one process, and in several that torchrun starts; each has one thread. Works:
``scan`` (each layer at each level), ``rules`` (``curves=False``, the few levels of a bisection),
``quantize`` with a monitor, and ``sensitivity``, a fit of one batch with
``FilterPruning(of="parameters", allocation="sensitivity")``; all on random images of 32 pixels.
Printed are the wall seconds, the CPU seconds of each process, and two ratios: of the wall seconds,
which means something on idle cores only, and of the CPU seconds of one process to those of the
busiest of several, which idle cores cannot exceed. Last comes what the processes spend more than
one alone: work that each of them does again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.artifact import read_card
from lit_compress.callbacks import FilterPruning
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2
from lit_compress.trainer import Trainer, started_processes

NETWORKS: dict[str, type[LightningModule]] = {
    "AlexNet": AlexNet,
    "MobileNetV2": MobileNetV2,
    "ShuffleNetV2": ShuffleNetV2,
}
WORKS = ("scan", "rules", "quantize", "sensitivity")


def loader(images: int) -> DataLoader[Any]:
    """Return a loader of random images with labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 1, 32, 32, generator=generator)
    labels = torch.randint(10, (images,), generator=generator)
    return DataLoader(TensorDataset(pixels, labels), batch_size=128)


def work(kind: str, network: str, images: int, folder: Path) -> dict[str, Any]:
    """Do a work in this process, and return its seconds and a digest of what it found.

    Args:
        kind: One of ``WORKS``.
        network: One of ``NETWORKS``.
        images: Number of validation images.
        folder: Where files go.
    """
    seed_everything(0, verbose=False)
    module, data = NETWORKS[network](in_channels=1), loader(images)
    callbacks: list[Any] = []
    if kind == "sensitivity":
        callbacks = [FilterPruning(0.5, of="parameters", allocation="sensitivity")]
    trainer = Trainer(
        **(started_processes() or {"devices": 1}),
        accelerator="cpu",
        callbacks=callbacks,
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=8 if kind == "sensitivity" else 1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "sensitivity":
        trainer.fit(module, data, data)
        found: object = [tuple(weight.shape) for weight in module.parameters()]
    elif kind == "quantize":
        trainer.quantize(module, data, monitor="val_acc", dirpath=str(folder / "artifact"))
        card = read_card(folder / "artifact")
        found = [(one.name, one.metric) for one in card.variants]
    else:
        scan = trainer.scan(module, data, curves=kind == "scan", dirpath=str(folder / "scan"))
        found = [(row.layer, row.ratio, dict(row.scores)) for row in scan.rows]
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "found": hashlib.sha256(repr(found).encode()).hexdigest(),
    }


def in_processes(count: int, kind: str, network: str, images: int) -> list[dict[str, Any]]:
    """Return what each of some processes that do a work together has found."""
    with tempfile.TemporaryDirectory() as folder:
        words = [__file__, kind, "--network", network, "--images", str(images), "--in", folder]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*command, f"--nproc-per-node={count}", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SystemExit(f"{kind} failed:\n{done.stderr[-4000:]}")
        files = [Path(folder, f"{rank}.json") for rank in range(count)]
        return [json.loads(file.read_text()) for file in files]


def compare(kind: str, network: str, images: int, count: int) -> None:
    """Print a line about a work in one process and in several."""
    alone = in_processes(1, kind, network, images)[0]
    ranks = in_processes(count, kind, network, images)
    wall, cpu = max(rank["wall"] for rank in ranks), [rank["cpu"] for rank in ranks]
    same = all(rank["found"] == alone["found"] for rank in ranks)
    print(
        f"{kind:12} {network:13} 1: {alone['wall']:6.1f} s ({alone['cpu']:.1f} s CPU)  "
        f"{count}: {wall:6.1f} s ({', '.join(f'{one:.1f}' for one in cpu)} s CPU)  "
        f"ratio {alone['wall'] / wall:.2f}, at most {alone['cpu'] / max(cpu):.2f}; "
        f"done again {sum(cpu) - alone['cpu']:.1f} s; {'the same' if same else 'ANOTHER'} result",
        flush=True,
    )


def main() -> None:
    """Compare the works, or do one of them as one of several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", default=WORKS, metavar="WORK")
    parser.add_argument("--network", choices=list(NETWORKS), default="ShuffleNetV2")
    parser.add_argument("--images", type=int, default=10_000, help="number of validation images")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--in", dest="folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is None:
        for kind in options.works:
            compare(kind, options.network, options.images, options.processes)
        return
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    (kind,) = options.works
    with contextlib.redirect_stdout(io.StringIO()):
        found = work(kind, options.network, options.images, Path(options.folder))
    Path(options.folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
