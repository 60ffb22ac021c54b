"""Count the planted faults that the doctor finds, and its false alarms on torchvision networks.

    python experiments/doctor_check.py [--only TEXT] [--compress]

Prints a line for each fault of ``tests/doctor/faults.py``, and for each of 30 classifiers of
torchvision after 20 training steps on digits, with random weights before. Any warning or error
about them is a false alarm. ``--compress`` also prunes and converts each to int8, on trial. Exits
with 1 if a fault is missed or there is a false alarm. Takes about 8 minutes on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import DigitsDataModule
from lit_compress.doctor import Diagnosis
from lit_compress.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

faults = import_module("doctor.faults")

#: The networks, each with the side of its images in pixels: as small as it takes them.
SIDES = {
    **dict.fromkeys(("alexnet", "vgg11_bn", "googlenet"), 64),
    **dict.fromkeys(("squeezenet1_0", "squeezenet1_1", "convnext_tiny", "swin_t"), 32),
    **dict.fromkeys(("densenet121", "vit_b_16", "efficientnet_b0", "efficientnet_b1"), 32),
    **dict.fromkeys(("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"), 32),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), 32),
    **dict.fromkeys(("regnet_x_400mf", "regnet_y_400mf", "regnet_x_800mf"), 32),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnext50_32x4d"), 32),
    **dict.fromkeys(("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5"), 32),
    "efficientnet_v2_s": 32,
    "inception_v3": 299,
}
STEPS, CLASSES = 20, 10


class Classifier(LightningModule):
    """Any classifier; in training its auxiliary heads count as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return the scores; of a network with auxiliary heads, theirs too in training."""
        return self.network(images)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the sum of the losses of all heads."""
        outputs = self(batch[0])
        heads = [outputs] if isinstance(outputs, Tensor) else [*outputs]
        return torch.stack([functional.cross_entropy(head, batch[1]) for head in heads]).sum()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Log loss and accuracy."""
        scores = self(batch[0])
        self.log("val_loss", functional.cross_entropy(scores, batch[1]))
        self.log("val_acc", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def found_faults(only: str) -> tuple[int, int]:
    """Plant each fault, and return how many were found, and how many there are."""
    found = count = 0
    for name, fault in faults.FAULTS.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder, quiet():
            case = faults.healthy(Path(folder))
            fault.plant(case)
            diagnosis = faults.diagnosed(case)
        named = [one for one in diagnosis.findings if fault.names(one)]
        count, found = count + 1, found + bool(named)
        print(f"  {name}: {str(named[0])[:110] if named else 'MISSED'}", flush=True)
    return found, count


def false_alarms(only: str, compress: bool) -> tuple[int, int]:
    """Train each network for some steps, and return false alarms and the number of networks."""
    alarms = count = 0
    for name, side in SIDES.items():
        if only not in name:
            continue
        start = time.monotonic()
        torch.manual_seed(0)
        with quiet():
            found = after_training(name, side, compress)
        wrong = [str(one) for one in (*found.errors, *found.warnings, *found.of("skipped"))]
        count, alarms = count + 1, alarms + len(wrong)
        seconds = time.monotonic() - start
        print(f"  {name}: {'; '.join(wrong) or 'no alarm'} ({seconds:.0f} s)", flush=True)
    return alarms, count


def after_training(name: str, side: int, compress: bool) -> Diagnosis:
    """Train a network for some steps, and return what the doctor finds."""
    size = {"image_size": side} if name.startswith("vit") else {}
    module = Classifier(models.get_model(name, weights=None, num_classes=CLASSES, **size))
    batch = 2 if side > 200 else 16
    images, labels = digits(side, batch * STEPS)
    loader = DataLoader(TensorDataset(images, labels), batch_size=batch)
    callbacks = [FilterPruning(0.3), PostTrainingQuantization("val_acc")] if compress else []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            max_epochs=1,
            max_steps=STEPS,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, loader)
        trainer = Trainer(
            accelerator="cpu", default_root_dir=folder, max_epochs=6, callbacks=callbacks
        )
        return trainer.doctor(module, loader, loader)


def digits(side: int, count: int) -> tuple[Tensor, Tensor]:
    """Return digits as colour images, and their labels."""
    data = DigitsDataModule(batch_size=count)
    data.prepare_data()
    data.setup("fit")
    images, labels = next(iter(data.train_dataloader()))
    return functional.interpolate(images, side).expand(-1, 3, -1, -1).contiguous(), labels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what is printed and warned of away, until the end of the block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def main() -> int:
    """Print both counts, and return the exit code."""
    parser = argparse.ArgumentParser(description="Count found faults and false alarms.")
    parser.add_argument("--only", default="", metavar="TEXT", help="names with this text alone")
    parser.add_argument("--compress", action="store_true", help="prune and convert on trial, too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found, faults = found_faults(given.only)
    print(f"{found} of {faults} planted faults found", flush=True)
    alarms, networks = false_alarms(given.only, given.compress)
    print(f"{alarms} false alarms on {networks} torchvision networks")
    return int(found < faults or alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
