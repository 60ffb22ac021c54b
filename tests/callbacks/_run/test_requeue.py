"""SLURM's signal at any moment of a fit: what is saved leads to the weights of the whole run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, stripes
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, KnowledgeDistillation, QuantizationAwareTraining

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*srun:UserWarning", "ignore:Experiment logs directory:UserWarning"
)

MakeTrainer = Callable[..., Trainer]
EPOCHS, BATCHES = 5, 4


class Stopped(Exception):
    """The end of the job, after SLURM was asked to run it again."""


class Resumable(DataLoader):
    """Goes on from the batch at which a checkpoint was saved, as Lightning asks of loaders."""

    taken = skipped = 0

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped = state["taken"]

    def __iter__(self) -> Iterator[Any]:
        first, self.skipped = self.skipped, 0
        for index, batch in enumerate(super().__iter__()):
            if index >= first:
                self.taken = index + 1
                yield batch


class Signal(Callback):
    """Sends the signal at a moment, and ends the job once ``scontrol`` was called."""

    def __init__(self, moment: str, epoch: int, asked: Path) -> None:
        self.moment, self.epoch, self.asked = moment, epoch, asked
        self.sent = False

    def send(self, trainer: Trainer, moment: str) -> None:
        if (moment, trainer.current_epoch) == (self.moment, self.epoch) and not self.sent:
            self.sent = True
            signal.raise_signal(signal.SIGUSR1)

    def stop(self) -> None:
        if self.asked.exists():
            raise Stopped

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "epoch start")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.stop()
        self.send(trainer, f"batch {batch_idx}")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.send(trainer, "batch end")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "epoch end")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "conversion")
        self.stop()


class Signalled(ForeignModule):
    """Sends the signal between the step of its optimizer and the count of it."""

    def on_before_zero_grad(self, optimizer: Any) -> None:
        for one in self.trainer.callbacks:
            if isinstance(one, Signal):
                one.send(self.trainer, "zero grad")

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        for one in self.trainer.callbacks:
            if isinstance(one, Signal):
                one.send(self.trainer, "optimizer")


class SignalledPruning(FilterPruning):
    """Sends the signal in the middle of a pruning step: channels are cut, and nothing is noted."""

    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for one in trainer.callbacks:
            if isinstance(one, Signal):
                one.send(trainer, "pruning step")
        super().after_pruning_step(trainer, pl_module)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that a stand-in of SLURM's ``scontrol`` writes its words to."""
    commands = tmp_path / "commands"
    commands.mkdir()
    file = tmp_path / "asked"
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" > "{file}"\n')
    (commands / "scontrol").chmod(0o755)
    for name, value in {
        "PATH": f"{commands}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "fit",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    return file


def fitted(make_trainer: MakeTrainer, folder: Path, *more: Callback, aware: bool = False) -> Any:
    """Fit, or go on where a job was stopped; return the weights of the end."""
    seed_everything(0, verbose=False)
    module = Signalled()
    parts: list[Callback] = [SignalledPruning(0.4, schedule=Schedule(1, 2)), *more]
    if aware:
        parts += [
            KnowledgeDistillation(),
            QuantizationAwareTraining(first=3, freeze=4, dirpath=str(folder / "artifact")),
        ]
    trainer = make_trainer(
        default_root_dir=folder,
        callbacks=parts,
        max_epochs=EPOCHS,
        plugins=[SLURMEnvironment(auto_requeue=True)],
    )
    data = Resumable(stripes(16 * BATCHES, 0), batch_size=16)
    trainer.fit(module, data, DataLoader(stripes(16, 1), batch_size=16))
    return module.state_dict()


def resumes_to_the_same(
    make_trainer: MakeTrainer, folder: Path, asked: Path, moment: str, epoch: int, aware: bool
) -> None:
    whole = fitted(make_trainer, folder / "whole", aware=aware)
    with pytest.raises(Stopped):
        fitted(make_trainer, folder / "part", Signal(moment, epoch, asked), aware=aware)
    assert asked.read_text().split() == ["requeue", "7"]
    assert (folder / "part" / "hpc_ckpt_1.ckpt").is_file()
    asked.unlink()
    # A job that runs again is given no ckpt_path: Lightning finds the newest of these files.
    part = fitted(make_trainer, folder / "part", aware=aware)
    assert {name: tuple(tensor.shape) for name, tensor in part.items()} == {
        name: tuple(tensor.shape) for name, tensor in whole.items()
    }
    assert [name for name, tensor in whole.items() if not torch.equal(part[name], tensor)] == []
    if aware:
        one, other = (folder / name / "artifact" / "model.onnx" for name in ("whole", "part"))
        assert one.read_bytes() == other.read_bytes()


MOMENTS = [
    ("epoch start", 0),
    ("epoch start", 1),
    ("pruning step", 1),
    ("pruning step", 2),
    ("batch 0", 1),
    ("batch 2", 2),
    ("batch 3", 2),
    ("zero grad", 2),
    ("optimizer", 1),
    ("optimizer", 2),
    ("batch end", 2),
    ("validation", 1),
    ("validation", 2),
    ("epoch end", 1),
    ("epoch end", 3),
]


@pytest.mark.parametrize(("moment", "epoch"), MOMENTS)
def test_a_requeued_job_ends_in_the_same_weights(
    moment: str, epoch: int, make_trainer: MakeTrainer, asked: Path, tmp_path: Path
) -> None:
    """Lightning saved in the middle of a pruning step, and the job that ran again pruned twice."""
    resumes_to_the_same(make_trainer, tmp_path, asked, moment, epoch, aware=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "epoch"), [*MOMENTS, ("batch 1", 3), ("optimizer", 3), ("batch 0", 4)]
)
def test_a_requeued_job_ends_in_the_same_file(
    moment: str, epoch: int, make_trainer: MakeTrainer, asked: Path, tmp_path: Path
) -> None:
    resumes_to_the_same(make_trainer, tmp_path, asked, moment, epoch, aware=True)
