from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.callbacks import MagnitudePruning
from lit_compress.callbacks._run.run_state import ELEMENTWISE, check_like, check_values, try_step
from lit_compress.errors import CheckpointError
from lit_compress.pruning import Schedule

Change = Callable[[dict[str, Any]], object]


class Line(LightningModule):
    """A linear layer, with an optimizer and a scheduler that a test gives."""

    def __init__(self, optimizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self._optimizer, self._scheduler = optimizer, scheduler

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        scheduler = {"scheduler": self._scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def step_lr(optimizer: Any) -> Any:
    return lr_scheduler.StepLR(optimizer, 2)


def fit(module: Line, folder: Path, epochs: int, checkpoint: Path | None = None) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[MagnitudePruning(0.5, schedule=Schedule(first=0, last=0))],
    )
    data = TensorDataset(torch.arange(16.0).reshape(4, 4))
    trainer.fit(module, DataLoader(data, 2), ckpt_path=checkpoint)
    return trainer


def resumed(folder: Path, change: Change, optimizer: Any = adam, scheduler: Any = step_lr) -> Path:
    """Fit two epochs, change the checkpoint, and go on for one more."""
    path = folder / "a.ckpt"
    fit(Line(optimizer, scheduler), folder, 2).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    fit(Line(optimizer, scheduler), folder, 3, path)
    return path


def without_change(content: dict[str, Any]) -> None:
    """Leave a checkpoint as it is."""


@pytest.mark.parametrize(
    "scheduler",
    [
        step_lr,
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=6),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
        ),
        lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, cycle_momentum=False),
    ],
    ids=["step", "one cycle", "restarts", "lambda", "sequence", "cycles"],
)
def test_a_whole_checkpoint_goes_on(scheduler: Any, tmp_path: Path) -> None:
    resumed(tmp_path, without_change, scheduler=scheduler)


def test_a_learning_rate_of_one_goes_on(tmp_path: Path) -> None:
    """A rate that is whole in the new run, and a fraction in the checkpoint, was refused."""
    resumed(tmp_path, without_change, lambda p: torch.optim.SGD(p, lr=1))


def test_a_finished_run_goes_on_from_its_last_step(tmp_path: Path) -> None:
    """A trial step of OneCycleLR after its last one was taken for damage."""

    def scheduler(optimizer: Any) -> Any:
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4)

    path = tmp_path / "a.ckpt"
    fit(Line(adam, scheduler), tmp_path, 2).save_checkpoint(path)
    fit(Line(adam, scheduler), tmp_path, 2, path)


def _state(content: dict[str, Any]) -> Any:
    return content["optimizer_states"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: _state(c)["state"][0].update(exp_avg=torch.zeros(2)), r"shape \(2,\) for a"),
        (lambda c: _state(c)["state"][0].update(exp_avg="x"), "cannot go on from"),
        (lambda c: _state(c)["param_groups"][0].update(lr="x"), "cannot go on from"),
        (lambda c: c["lr_schedulers"][0].update(last_epoch="x"), "'last_epoch' in lr_schedulers"),
        (lambda c: c["lr_schedulers"][0].update(step_size=0), "ZeroDivisionError"),
        (lambda c: c["lr_schedulers"][0].update(get_lr=1), "the name of a value, and is 'get_lr'"),
        (lambda c: c.update(loops={"fit_loop": 3}), "loops should be a dictionary"),
        (lambda c: c["state_dict"].update(x=torch.zeros(1, device="meta")), "has no values"),
    ],
)
def test_a_damaged_state_names_the_checkpoint(change: Change, message: str, tmp_path: Path) -> None:
    """42 of 117 fits that went on from a changed checkpoint ended in an error of torch."""
    with pytest.raises(CheckpointError, match=message) as caught:
        resumed(tmp_path, change)
    assert str(tmp_path / "a.ckpt") in str(caught.value)


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_a_trial_step_changes_nothing(kind: Any) -> None:
    layer = nn.Linear(4, 3)
    optimizer = kind(layer.parameters(), lr=0.01)
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    before = [p.detach().clone() for p in layer.parameters()]
    states = {k: str(v) for k, v in optimizer.state_dict()["state"].items()}
    try_step(optimizer)
    assert all(map(torch.equal, before, layer.parameters()))
    assert {k: str(v) for k, v in optimizer.state_dict()["state"].items()} == states


@pytest.mark.parametrize(
    ("new", "given"),
    [
        (0, -1),
        (0, True),
        (0, 0.5),
        (0.5, "x"),
        (True, 1),
        ("x", 1),
        ({}, []),
        ([0], {}),
        ([0], ["x"]),
    ],
)
def test_another_kind_is_refused(new: Any, given: Any) -> None:
    with pytest.raises(CheckpointError, match="part should be"):
        check_like(new, given, "part")


@pytest.mark.parametrize(
    ("new", "given"), [(None, "x"), (0, 3), (-1, -1), (0.5, 1), ([], ["x"]), ({}, {"x": 1})]
)
def test_the_same_kind_passes(new: Any, given: Any) -> None:
    check_like(new, given, "part")


def test_a_tensor_without_values_is_found_at_any_depth() -> None:
    with pytest.raises(CheckpointError, match="'b' in 1 in 'a' in the checkpoint has no values"):
        check_values({"a": [0, {"b": torch.zeros(2, device="meta")}]})
