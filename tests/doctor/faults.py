"""Twenty faults of a run, each planted in a healthy one, with the line that must name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.doctor import Diagnosis, Finding
from lit_compress.trainer import Trainer

CLASSES, SIDE = 4, 8


class Net(LightningModule):
    """A small classifier; the parts that a fault changes are arguments."""

    def __init__(self, more: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
        )
        self.more = more or nn.ReLU()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.more(self.body(x)))
        return scores

    def training_step(self, batch: Any, _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        scores = self(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("val_acc", (scores.argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class OtherOptimizer(Net):
    """Trains the weights of another network."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(Net().parameters(), lr=0.01)


class Branches(nn.Module):
    """Its path depends on the values, so no graph has it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Rotate(nn.Module):
    """Multiplies by a matrix in an operation that has no int8 form here."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,chw->nchw", x, self.weight).cumsum(2) * self.weight


@dataclass
class Case:
    """A run that is about to be fitted."""

    folder: Path
    module: LightningModule
    train: list[Tensor]
    val: list[Tensor]
    callbacks: list[Callback] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    patches: list[Any] = field(default_factory=list)

    @contextmanager
    def trainer(self) -> Iterator[Trainer]:
        """Build the Trainer, with what the case patches."""
        own = {"default_root_dir": self.folder, "accelerator": "cpu", "max_epochs": 6}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        for one in self.patches:
            one.start()
        try:
            checkpoints = any(isinstance(one, ModelCheckpoint) for one in self.callbacks)
            made: dict[str, Any] = {**own, **quiet, "enable_checkpointing": checkpoints}
            yield Trainer(**made | self.options, callbacks=self.callbacks)
        finally:
            for one in self.patches:
                one.stop()

    def loaders(self) -> dict[str, DataLoader[Any]]:
        """Return the loaders, as arguments of a fit."""
        splits = {"train_dataloaders": self.train, "val_dataloaders": self.val}
        return {k: DataLoader(TensorDataset(*v), batch_size=16) for k, v in splits.items()}


def healthy(folder: Path) -> Case:
    """Return a run without a fault, whose network was trained for some steps."""
    torch.manual_seed(0)
    module = Net()
    case = Case(folder, module, _data(96), _data(96), [FilterPruning(0.25)])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        module.training_step([*case.train], 0).backward()
        optimizer.step()
    optimizer.zero_grad()
    return case


def diagnosed(case: Case) -> Diagnosis:
    """Return what the doctor finds in a run."""
    with case.trainer() as trainer:
        return trainer.doctor(case.module, **case.loaders())


def _data(count: int) -> list[Tensor]:
    return [torch.randn(count, 1, SIDE, SIDE), torch.arange(count) % CLASSES]


# --- faults ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        plant: Puts it into a healthy run.
        question: Name of the question whose answer names it.
        verdict: The verdict of the answer.
        words: A part of the answer.
    """

    plant: Callable[[Case], object]
    question: str
    verdict: str
    words: str

    def is_in(self, found: Diagnosis) -> bool:
        """Tell whether an answer names the fault, and what to do about it."""
        return any(self.names(one) for one in found.findings)

    def names(self, one: Finding) -> bool:
        """Tell whether one answer names it."""
        named = (one.question, one.verdict) == (self.question, self.verdict)
        return named and self.words in one.found and bool(one.remedy)


def _quantized(case: Case, **settings: Any) -> None:
    case.callbacks.append(PostTrainingQuantization(**settings))


def _nan_image(case: Case) -> None:
    case.val[0][70, 0, 3, 3] = float("nan")


def _infinite_image(case: Case) -> None:
    case.train[0][20] = float("inf")


def _strange_label(case: Case) -> None:
    case.train[1][50] = CLASSES


def _no_validation_image(case: Case) -> None:
    case.val = [tensor[:0] for tensor in case.val]


def _colour_images(case: Case) -> None:
    case.train[0], case.val[0] = (s[0].expand(-1, 3, -1, -1) for s in (case.train, case.val))


def _branching_forward(case: Case) -> None:
    case.module = Net(Branches())
    case.callbacks = []
    _quantized(case)


def _unmatched_pattern(case: Case) -> None:
    case.callbacks = [FilterPruning(0.25, exclude=["heads.*"])]


def _unmatched_skip(case: Case) -> None:
    _quantized(case, skip=["heads.*"])


@torch.no_grad()
def _nan_weight(case: Case) -> None:
    case.module.body[3].weight[2, 0, 0, 0] = float("nan")  # type: ignore[index,union-attr]


@torch.no_grad()
def _dead_channels(case: Case) -> None:
    case.module.body[3].weight[2:4] = 0  # type: ignore[index,union-attr]


def _reset_norm(case: Case) -> None:
    case.module.body[1].reset_running_stats()  # type: ignore[index,union-attr]


def _tied_weights(case: Case) -> None:
    more = nn.Conv2d(8, 8, 3)
    more.weight = case.module.body[3].weight  # type: ignore[index,union-attr,assignment]
    case.module.more = more


def _frozen_weights(case: Case) -> None:
    case.module.body[3].weight.requires_grad_(False)  # type: ignore[index,union-attr]


def _float_layer(case: Case) -> None:
    case.module.more = Rotate()
    case.callbacks = []
    _quantized(case)


def _late_schedule(case: Case) -> None:
    case.callbacks = [FilterPruning(0.25, schedule=Schedule(last=9))]


def _early_stopping(case: Case) -> None:
    case.callbacks.append(EarlyStopping("val_loss", patience=1))


def _unlogged_monitor(case: Case) -> None:
    case.callbacks.append(ModelCheckpoint(case.folder / "kept", monitor="val/accuracy"))


def _wrong_mode(case: Case) -> None:
    case.callbacks.append(ModelCheckpoint(case.folder / "kept", monitor="val_acc", mode="min"))


def _other_optimizer(case: Case) -> None:
    made = OtherOptimizer()
    made.load_state_dict(case.module.state_dict())
    case.module, case.callbacks = made, []


def _full_disk(case: Case) -> None:
    case.callbacks.append(ModelCheckpoint(case.folder / "kept", save_top_k=-1))
    usage = type("Usage", (), {"free": 1000})
    case.patches = [patch("shutil.disk_usage", lambda _: usage)]


#: The faults by name: one for each thing that the doctor is to know.
FAULTS = {
    "NaN in a validation image": Fault(_nan_image, "validation data", "error", "NaN"),
    "infinity in a training image": Fault(_infinite_image, "training data", "error", "infinite"),
    "label out of range": Fault(_strange_label, "labels", "error", "label 4"),
    "empty validation data": Fault(_no_validation_image, "validation data", "error", "no batch"),
    "wrong image shape": Fault(_colour_images, "training step", "error", "channels"),
    "forward cannot be exported": Fault(
        _branching_forward, "PostTrainingQuantization", "error", "cannot be exported"
    ),
    "pattern without a layer": Fault(_unmatched_pattern, "FilterPruning", "error", "heads.*"),
    "skip without a layer": Fault(_unmatched_skip, "PostTrainingQuantization", "error", "heads.*"),
    "NaN in a weight": Fault(_nan_weight, "weights", "error", "body.3.weight"),
    "dead channels": Fault(_dead_channels, "dead channels", "warning", "body.3 (2 of 8"),
    "initial batch norm": Fault(_reset_norm, "batch norms", "warning", "body.1"),
    "tied weights": Fault(_tied_weights, "tied weights", "warning", "more.weight"),
    "frozen weights": Fault(_frozen_weights, "frozen weights", "warning", "body.3.weight"),
    "layer without int8": Fault(_float_layer, "int8 layers", "warning", "more"),
    "schedule past the end": Fault(_late_schedule, "FilterPruning", "error", "schedule.last is 9"),
    "early stop before the target": Fault(
        _early_stopping, "early stopping", "warning", "patience 1"
    ),
    "monitor that is not logged": Fault(_unlogged_monitor, "monitors", "error", "val/accuracy"),
    "mode the wrong way round": Fault(_wrong_mode, "monitors", "warning", "mode: min"),
    "optimizer of other weights": Fault(_other_optimizer, "optimizer", "error", "not weights"),
    "full disk": Fault(_full_disk, "disk space", "error", "free"),
}
