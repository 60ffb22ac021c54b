"""What the user's steps see of the run while they run aside, and what they cannot change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback as AnyCallback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn

from lit_compress.evaluation.loaders import training_loaders, validation_loaders
from lit_compress.evaluation.run_view.copies import clone, clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.validate import validate

MakeTrainer = Callable[..., Trainer]
#: Not the run's: the steps are those of a copy.
OF_THE_COPY = {"lightning_module", "model"}


def public(trainer: Trainer) -> list[str]:
    """Return the names of all public attributes of a Trainer that are not methods."""
    names = {*dir(type(trainer)), *vars(trainer)}
    return sorted(
        name
        for name in names
        if not name.startswith("_") and not callable(getattr(type(trainer), name, None))
    )


class Watching(ForeignModule):
    """Reads everything in a validation hook, as people do, and writes wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.set_up = 0

    def setup(self, stage: str) -> None:
        self.set_up += 1

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss)
        return loss

    def on_validation_epoch_end(self) -> None:
        trainer, logger = self.trainer, self.logger
        seen = {name: getattr(trainer, name) for name in public(trainer)}
        SEEN.append({**seen, "state": copy.copy(trainer.state)})
        assert isinstance(trainer, Trainer)
        assert isinstance(logger, TensorBoardLogger)
        SEEN[-1]["folder"] = Path(logger.log_dir, str(logger.version), str(logger.name))
        SEEN[-1]["experiment"] = logger.experiment.get_logdir()
        if WRITES:
            logger.log_metrics({"mine": 1.0})
            logger.experiment.add_scalar("mine", 1.0)
            trainer.save_checkpoint("mine.ckpt")
            trainer.should_stop = True
            trainer.early_stopping_callback.patience = 99  # type: ignore[union-attr]
            self.print("mine")


SEEN: list[dict[str, Any]] = []
WRITES: list[bool] = []


class Aside(Callback):
    """Validates a copy while the run goes on."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        twin = clone(trainer, pl_module)
        before = dict(trainer.callback_metrics)
        WRITES.append(True)
        self.metrics = validate(trainer, twin, validation_loaders(trainer))
        WRITES.clear()
        assert dict(trainer.callback_metrics) == before
        assert twin._trainer is None


class Counting(AnyCallback):
    """Counts the validations that it is told of."""

    def __init__(self) -> None:
        self.count = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.count += 1


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader()

    def val_dataloader(self) -> Any:
        return loader(32, 1)


@pytest.fixture
def watched(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Trainer, Watching, Aside]:
    monkeypatch.chdir(tmp_path)
    SEEN.clear()
    module, aside = Watching(), Aside()
    callbacks = [ModelCheckpoint(tmp_path / "c"), EarlyStopping("my_loss"), Counting(), aside]
    trainer = make_trainer(
        max_epochs=1,
        callbacks=callbacks,
        enable_checkpointing=True,
        logger=TensorBoardLogger(tmp_path),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=Data())
    return trainer, module, aside


def test_a_hook_reads_the_runs_own_values(watched: tuple[Trainer, Watching, Aside]) -> None:
    """Eight of eight public hooks failed under a second Trainer, which had none of these."""
    run, aside = SEEN
    assert set(run) == set(aside)
    assert len(run) > 60
    different = {name for name in run if not bool(run[name] == aside[name])}
    assert different == OF_THE_COPY


def test_nothing_of_the_run_changes(
    watched: tuple[Trainer, Watching, Aside],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer, module, aside = watched
    assert module.set_up == 1  # networks made in setup() were made anew
    assert not (tmp_path / "mine.ckpt").exists()
    assert trainer.early_stopping_callback.patience == 3  # type: ignore[union-attr]
    assert next(c for c in trainer.callbacks if isinstance(c, Counting)).count == 1  # type: ignore[attr-defined]
    assert trainer.current_epoch == 1
    assert "mine" not in capsys.readouterr().out
    assert "mine" not in trainer.logged_metrics
    events = next(tmp_path.rglob("events.*")).read_bytes()
    assert b"my_loss" in events
    assert b"mine" not in events
    assert aside.metrics["my_acc"] == trainer.callback_metrics["my_acc"]


class Remembers(Logger):
    """A logger of the user's own, whose experiment is any object."""

    class Experiment:
        def __init__(self) -> None:
            self.id, self.said = "run-7", []

        def track(self, value: Any) -> None:
            self.said.append(value)

        def __getitem__(self, name: str) -> list[Any]:
            return self.said

    def __init__(self) -> None:
        super().__init__()
        self.experiment = self.Experiment()

    name = property(lambda self: "mine")  # type: ignore[assignment]
    version = property(lambda self: 3)  # type: ignore[assignment]

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        pass

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


class Tracks(ForeignModule):
    aside = False

    def on_validation_epoch_end(self) -> None:
        if not self.aside:
            return
        experiment = self.logger.experiment  # type: ignore[union-attr]
        assert experiment.id == "run-7"
        experiment.track(self.current_epoch)
        experiment["images"].append(self.current_epoch)
        with experiment.said as said:
            said.append(1)


def test_the_experiment_of_any_logger_is_read_and_not_written_to(
    make_trainer: MakeTrainer,
) -> None:
    logger, module = Remembers(), Tracks()
    trainer = make_trainer(max_epochs=1, logger=logger)
    trainer.fit(module, loader(), loader(32, 1))
    module.aside = True
    validate(trainer, clone(trainer, module), [loader(32, 1)])
    assert logger.experiment.said == []


class ReadsTrainingMetrics(Watching):
    def on_validation_epoch_end(self) -> None:
        SEEN.append({"train_loss": self.trainer.callback_metrics["train_loss"]})


def test_metrics_of_the_training_exist_before_its_first_step(make_trainer: MakeTrainer) -> None:
    """A hook that reads them ended the fit at step 0, though it works in a plain fit."""

    class AtStart(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            validate(trainer, clone(trainer, pl_module), validation_loaders(trainer))

    module = ReadsTrainingMetrics()
    trainer = make_trainer(max_epochs=1, callbacks=[AtStart()], num_sanity_val_steps=0)
    trainer.fit(module, loader(), loader(32, 1))
    assert len(SEEN) >= 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("kind", [ForeignModule, ManualModule])
def test_training_aside_changes_the_copy_alone(
    kind: type[ForeignModule], precision: Any, make_trainer: MakeTrainer
) -> None:
    found: list[bool] = []

    class Once(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            states = copy.deepcopy([pl_module.state_dict(), *map(state, trainer.optimizers)])
            twin, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
            train(trainer, twin, optimizers, training_loaders(trainer), batches=2)
            now = [pl_module.state_dict(), *map(state, trainer.optimizers)]
            assert repr(states) == repr(now)
            found.append(not torch.equal(twin.net[0].weight, pl_module.net[0].weight))  # type: ignore[union-attr,index]
            assert twin.net[0].weight.dtype is pl_module.net[0].weight.dtype  # type: ignore[union-attr,index]

    def state(optimizer: Any) -> Any:
        return optimizer.state_dict()

    options = {"max_epochs": 2, "callbacks": [Once()], "precision": precision}
    make_trainer(**options).fit(kind(), loader(), loader(32, 1))
    assert found == [True, True]


class InPrecision(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("kind", float(self(batch[0]).dtype is torch.bfloat16))
        self.log("input", float(batch[0].dtype is torch.float64))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("32-true", {"kind": 0.0, "input": 0.0}),
        ("bf16-mixed", {"kind": 1.0, "input": 0.0}),
        ("64-true", {"kind": 0.0, "input": 1.0}),
    ],
)
def test_the_precision_is_the_runs(
    precision: Any, expected: dict[str, float], make_trainer: MakeTrainer
) -> None:
    """All was measured in single precision."""
    module = InPrecision()
    trainer = make_trainer(max_epochs=1, precision=precision)
    trainer.fit(module, loader(), loader(32, 1))
    twin = clone(trainer, module)
    assert validate(trainer, twin, [loader(32, 1)]) == expected
    assert twin.net[0].weight.dtype is torch.float32


class TwoTrainingLoaders(ForeignModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(super(TwoTrainingLoaders, self).training_step(b, 0) for b in batch.values())


class Iterates(ForeignModule):
    def training_step(self, dataloader_iter: Any) -> Tensor:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("mine", loss, batch_size=len(batch[0]))
        return loss


@pytest.mark.filterwarnings("ignore:Found `dataloader_iter`")
@pytest.mark.parametrize(
    ("module", "data"),
    [
        (TwoTrainingLoaders(), {"a": loader(), "b": loader(32, 2)}),
        (Iterates(), loader()),
    ],
    ids=["dict", "dataloader_iter"],
)
def test_training_loaders_of_all_kinds(
    module: ForeignModule, data: Any, make_trainer: MakeTrainer
) -> None:
    class Once(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            twin, optimizers = clone_with(trainer, pl_module, trainer.optimizers)
            train(trainer, twin, optimizers, training_loaders(trainer))
            assert not torch.equal(twin.net[0].weight, pl_module.net[0].weight)  # type: ignore[union-attr,index]

    make_trainer(max_epochs=1, callbacks=[Once()]).fit(module, data)


def test_a_logger_that_has_files_writes_none_of_it(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(max_epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    module = Watching()
    module.on_validation_epoch_end = lambda: None  # type: ignore[method-assign]
    trainer.fit(module, loader(), loader(32, 1))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.csv")}
    validate(trainer, clone(trainer, module), [loader(32, 1)])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.csv")} == before
