"""Train ShuffleNetV2 on FashionMNIST, dense and with half of its filters removed.

    python experiments/filter_pruning.py --data-dir DIR [--epochs 12]

Both train for the same epochs, with the settings of ``shufflenet_v2_fashion_mnist.yaml`` and
``prune_filters.yaml``, at the same time in two processes of one thread each. Prints the accuracies,
the sizes, and the time of each fit divided by that of the dense one. Both curves are written to
``runs/filter_pruning`` for TensorBoard.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter, process_time

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning
from lit_compress.datamodules import FashionMNISTDataModule
from lit_compress.measure import cost
from lit_compress.modules import ShuffleNetV2


def run(kind: str, data_dir: str, epochs: int) -> dict[str, float]:
    """Train one of the two and return its accuracies, size and time."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    module = ShuffleNetV2(
        in_channels=1,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=epochs),
    )
    callbacks: list[Callback] = []
    if kind == "pruned":
        callbacks.append(FilterPruning(0.5, schedule=Schedule(first=1)))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger("runs", "filter_pruning", kind),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = FashionMNISTDataModule(data_dir, batch_size=64)
    start, busy = perf_counter(), process_time()
    trainer.fit(module, datamodule=data)
    seconds, work = perf_counter() - start, process_time() - busy
    reached = dict(trainer.validate(module, datamodule=data, verbose=False)[0])
    reached.update(trainer.test(module, datamodule=data, verbose=False)[0])
    counted = cost(module.eval(), torch.zeros(1, *data.image_shape))
    return {
        "validation": reached["val_acc"],
        "test": reached["test_acc"],
        "parameters": counted.parameters,
        "macs": counted.macs,
        "seconds": seconds,
        "work": work,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--epochs", type=int, default=12)
    words = parser.parse_args()
    kinds = ("dense", "pruned")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        futures = [pool.submit(run, kind, words.data_dir, words.epochs) for kind in kinds]
        results = [future.result() for future in futures]
    print(f"{words.epochs} epochs, 1 thread each, seed 0")
    print("        val_acc  test_acc  parameters       MACs  fit time  CPU time")
    for kind, row in zip(kinds, results, strict=True):
        wall, work = (row[key] / results[0][key] for key in ("seconds", "work"))
        print(
            f"{kind:6} {row['validation']:8.4f} {row['test']:9.4f} {int(row['parameters']):11,} "
            f"{int(row['macs']):10,} {wall:8.2f}x {work:8.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
