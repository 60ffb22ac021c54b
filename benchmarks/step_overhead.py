"""Print the time that pruning callbacks add to a training step.

Each network trains for a few steps without a callback, with ``MagnitudePruning``, with
``RulePruning`` (which keeps filters of convolutions and elements of linear layers at zero) and with
Lightning's ``ModelPruning``. They run in turn, round after round. A step is timed from the start to
the end of its batch. The figure is the median over the rounds of the ratio of median steps.
``ModelPruning`` cannot handle the channels-last memory format, the default of these modules, so it
is compared with fits in the contiguous format::

    python benchmarks/step_overhead.py
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from lit_compress import Schedule
from lit_compress.callbacks import MagnitudePruning, RulePruning
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2

NETWORKS = {"MobileNetV2": MobileNetV2, "ShuffleNetV2": ShuffleNetV2, "AlexNet": AlexNet}
#: The fit that each callback is compared with.
BASES = {
    "MagnitudePruning": "none",
    "RulePruning": "none",
    "ModelPruning": "none, plain order",
}
ARMS = ("none", *BASES, "none, plain order")


class StepTimer(Callback):
    """Times each training step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Record the start of the batch."""
        self._start = perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Record the seconds since the start of the batch."""
        self.steps.append(perf_counter() - self._start)


def callbacks(arm: str, module: LightningModule) -> list[Callback]:
    """Return the pruning callback of an arm; it prunes half of all weights at once."""
    if arm == "MagnitudePruning":
        return [MagnitudePruning(0.5, Schedule(shape="one_shot"))]
    if arm == "RulePruning":
        return [RulePruning(target=0.5, schedule=Schedule(shape="one_shot"), shrink="never")]
    if arm == "ModelPruning":
        layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        return [
            ModelPruning(
                "l1_unstructured",
                parameters_to_prune=[(layer, "weight") for layer in layers],
                amount=0.5,
                use_lottery_ticket_hypothesis=False,
                prune_on_train_epoch_end=False,
                apply_pruning=True,
                make_pruning_permanent=False,
            )
        ]
    return []


def step_time(arm: str, kind: Callable[..., LightningModule], batch_size: int, steps: int) -> float:
    """Return the median seconds of a step in a short fit."""
    torch.manual_seed(0)
    module = kind(
        channels_last=kind is not AlexNet and arm not in ("ModelPruning", "none, plain order")
    )
    side = 64 if kind is AlexNet else 32
    data = TensorDataset(torch.randn(batch_size, 3, side, side), torch.arange(batch_size) % 10)
    timer = StepTimer()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[*callbacks(arm, module), timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=steps,
    )
    loader: DataLoader[Any] = DataLoader(ConcatDataset([data] * steps), batch_size=batch_size)
    trainer.fit(module, loader, loader if arm == "ModelPruning" else None)
    return median(timer.steps[steps:])  # the second epoch, as ModelPruning prunes after the first


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"batch {options.batch_size}, {torch.get_num_threads()} threads, against no callback")
    print(f"{'network':<14}" + "".join(f"{arm:>18}" for arm in BASES))
    for name in options.networks:
        ratios: dict[str, list[float]] = {arm: [] for arm in BASES}
        for index in range(options.rounds):
            order = ARMS if index % 2 else ARMS[::-1]
            times = {
                arm: step_time(arm, NETWORKS[name], options.batch_size, options.steps)
                for arm in order
            }
            for arm, values in ratios.items():
                values.append(times[arm] / times[BASES[arm]])
        print(f"{name:<14}" + "".join(f"{median(ratios[arm]):>17.3f}x" for arm in BASES))


if __name__ == "__main__":
    main()
