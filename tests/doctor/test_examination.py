"""The doctor finds planted faults, raises no false alarm, and changes nothing."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor

from doctor.faults import FAULTS, Net, diagnosed, healthy
from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning, PostTrainingQuantization
from lit_compress.doctor import diagnose, machine
from lit_compress.errors import InvalidArgumentError


@pytest.fixture(autouse=True)
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI the doctor has a warning more, whatever the run."""
    monkeypatch.setattr(machine, "lacks_vnni", lambda: False)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    case, fault = healthy(tmp_path), FAULTS[name]
    fault.plant(case)
    found = diagnosed(case)
    assert fault.is_in(found), str(found)
    assert found.ok == (fault.verdict == "warning")
    others = [f for f in (*found.errors, *found.warnings) if not fault.names(f)]
    twice = {"wrong image shape": ["validation step"]}  # both steps get such images
    assert [one.question for one in others] == twice.get(name, []), str(found)


@pytest.mark.parametrize("int8", [False, True])
def test_a_healthy_run_gets_no_warning(int8: bool, tmp_path: Path) -> None:
    case = healthy(tmp_path)
    if int8:
        case.callbacks += [PostTrainingQuantization("val_acc"), CompressionReport("val_acc")]
        case.callbacks.append(ModelCheckpoint(monitor="val_acc", mode="max"))
    found = diagnosed(case)
    assert {one.verdict for one in found.findings} == {"fine"}, str(found)
    assert list(tmp_path.rglob("*")) == []


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = healthy(tmp_path / "runs")
    # One writes where it is told, the other in the folder of the logger.
    case.callbacks += [PostTrainingQuantization("val_acc", dirpath="int8"), CompressionReport()]
    case.callbacks.append(PostTrainingQuantization())
    case.callbacks.append(OnExceptionCheckpoint(tmp_path / "failed"))
    case.options = {"logger": True, "enable_checkpointing": True}
    before, attributes = _state(case.module), set(vars(case.module))
    train, loaders = case.module.training, case.loaders()
    with case.trainer() as trainer:
        callbacks = [copy.copy(vars(one)) for one in trainer.callbacks]
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        found = trainer.doctor(case.module, **loaders)
        assert found.ok, str(found)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert np.array_equal(np.random.get_state()[1], states[2])
        assert trainer.global_step == 0
        assert trainer.state.fn is None
        assert not trainer.optimizers
        for one, known in zip(trainer.callbacks, callbacks, strict=True):
            assert vars(one).keys() == known.keys()
            assert all(vars(one)[name] is value for name, value in known.items())
    assert list(tmp_path.rglob("*")) == []
    assert case.module.training is train
    assert set(vars(case.module)) == attributes
    assert all(p.grad is None for p in case.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in _state(case.module).items())


def test_a_fit_after_the_doctor_is_the_fit_without_it(tmp_path: Path) -> None:
    def fitted(asks: bool) -> dict[str, Tensor]:
        case = healthy(tmp_path / str(asks))
        case.options = {"max_epochs": 3}
        with case.trainer() as trainer:
            loaders = case.loaders()
            if asks:
                trainer.doctor(case.module, **loaders)
            trainer.fit(case.module, **loaders)
        return _state(case.module)

    plain, asked = fitted(False), fitted(True)
    assert all(torch.equal(value, plain[name]) for name, value in asked.items())


def test_a_plain_trainer_is_diagnosed(tmp_path: Path) -> None:
    """Any Trainer of Lightning and any callback: hooks of a user's own are not called."""

    class Writes(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            (tmp_path / "written").write_text("")

    trainer = pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, callbacks=[Writes()]
    )
    found = diagnose(trainer, ForeignModule(), loader(64), loader(64))
    assert found.ok, str(found)
    assert json.loads(found.to_json())["ok"]
    assert list(tmp_path.iterdir()) == []


def test_what_depends_on_an_error_is_skipped(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.val[0][:] = float("nan")
    found = {one.question: one for one in diagnosed(case).findings}
    assert found["validation data"].verdict == "error"
    for question in ("validation step", "export", "channels", "FilterPruning"):
        assert found[question].verdict == "skipped"
        assert found[question].found == "not asked, since validation data has an error"
    assert found["weights"].verdict == found["training step"].verdict == "fine"


@pytest.mark.parametrize("part", ["train", "setup", "optimizer"])
def test_a_set_up_that_fails_is_an_answer(part: str, tmp_path: Path) -> None:
    class Data(LightningDataModule):
        def setup(self, stage: str) -> None:
            if part == "setup":
                raise FileNotFoundError("images.npy")

        def train_dataloader(self) -> Any:
            if part == "train":
                raise RuntimeError("no images")
            return loader(64)

    class Module(ForeignModule):
        def configure_optimizers(self) -> Any:
            if part == "optimizer":
                raise KeyError("lr")
            return super().configure_optimizers()

    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path)
    found = diagnose(trainer, Module(), datamodule=Data())
    (error,) = found.errors
    assert error.question == "set-up"
    assert {"train": "no images", "setup": "images.npy", "optimizer": "lr"}[part] in error.found
    assert "test_examination.py" in error.remedy
    assert {f.question: f.verdict for f in found.findings}["weights"] == "fine"


def test_empty_training_data_is_named(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.train = [tensor[:0] for tensor in case.train]
    found = diagnosed(case)
    (error,) = found.errors
    assert (error.question, error.found) == ("training data", "the training data has no batch")


def test_a_checkpoint_counts_as_trained(tmp_path: Path) -> None:
    """A checkpoint of a network that never ran has the statistics of its construction."""
    case = healthy(tmp_path)
    path = tmp_path / "other.ckpt"
    module, options = Net(), {"logger": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=0, enable_checkpointing=False, **options)
    trainer.fit(module, **case.loaders())
    trainer.save_checkpoint(path)
    with case.trainer() as made:
        loaders = case.loaders()
        found = diagnose(pl.Trainer(max_epochs=3, **options), Net(), **loaders)
        assert not found.warnings, str(found)
        made.callbacks.clear()
        found = made.doctor(Net(), **loaders, ckpt_path=str(path))
    (warned,) = found.warnings
    assert warned.question == "batch norms"


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    with case.trainer() as trainer:
        found = trainer.doctor(case.module, **case.loaders(), ckpt_path=str(tmp_path / "x.ckpt"))
    assert [one.question for one in found.errors] == ["set-up"]
    assert "x.ckpt" in found.errors[0].found


def test_the_true_folder_is_named(tmp_path: Path) -> None:
    """The copies write below a temporary folder, whose name says nothing."""
    case = healthy(tmp_path)
    target = tmp_path / "int8"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    case.callbacks = [PostTrainingQuantization(dirpath=str(target))]
    found = diagnosed(case)
    (error,) = found.errors
    assert error.question == "folder"
    assert str(target) in error.found
    assert error.remedy == "name another dirpath, or empty the folder"


def test_two_artefacts_in_one_folder_are_an_error(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.callbacks = [PostTrainingQuantization(dirpath=str(tmp_path / "a")) for _ in range(2)]
    (error,) = diagnosed(case).errors
    assert str(tmp_path / "a") in error.found


def test_a_run_that_max_steps_ends_early_is_an_error(tmp_path: Path) -> None:
    case = healthy(tmp_path)
    case.callbacks = [FilterPruning(0.25, schedule=Schedule(last=4))]
    case.options = {"max_steps": 12}
    (error,) = diagnosed(case).errors
    assert error.question == "schedule"
    assert "max_steps (12)" in error.found


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = healthy(tmp_path)
    with case.trainer() as trainer:
        monkeypatch.setattr(type(trainer), "world_size", 2)
        with pytest.raises(InvalidArgumentError, match="one process"):
            trainer.doctor(case.module, **case.loaders())
