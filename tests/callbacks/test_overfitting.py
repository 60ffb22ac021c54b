"""Overfitting on purpose, with a user's own module and data that are not lit-compress's."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning, Overfitting
from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.errors import InvalidArgumentError, PatternError

MakeTrainer = Callable[..., Trainer]
SHIFT = 3.0  # what the test's augmentation adds, so that a batch shows whether it was augmented


class Dropped(ForeignModule):
    """With dropout; notes, in each training batch, what is in training mode and what it was fed."""

    def __init__(self, lr: float = 0.05, decay: float = 0.0) -> None:
        super().__init__(lr)
        self.decay = decay
        self.net.insert(7, nn.Dropout(0.5))
        self.flags: list[tuple[int, bool, bool]] = []
        self.augmented: dict[int, set[bool]] = {}
        self.fed: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        epoch = self.trainer.current_epoch
        self.flags.append((epoch, self.net[1].training, self.net[7].training))
        self.augmented.setdefault(epoch, set()).add(bool(batch[0].mean() > SHIFT / 2))
        self.fed.append(batch[0])
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=self.decay)


class Restless(Dropped):
    """Sets itself to training mode at each epoch's start, as older Lightnings do."""

    def on_train_epoch_start(self) -> None:
        self.train()


class Add:
    def __call__(self, batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, labels = torch.utils.data.default_collate(batch)
        return images + SHIFT, labels


class Data(LightningDataModule):
    """A user's own: shuffles, drops the last batch, and augments where ``augment`` is set."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self.augment: Add | None = Add()
        self.workers = workers

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            stripes(70, 0),
            batch_size=16,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=self.augment,
        )

    def val_dataloader(self) -> DataLoader:
        return loader(32, 1)


class Counting(LightningModule):
    """Right on all but the images that are told to be wrong, whatever it learns."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.acc = MulticlassAccuracy(2, average="micro")
        self.whole = whole

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0][:1]).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        guess = torch.zeros_like(batch[1])
        if self.whole:
            self.acc(guess, batch[1])
            self.log("acc", self.acc)
        else:
            self.log("acc", (guess == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def pruning(first: int, target: float = 0.5) -> MagnitudePruning:
    return MagnitudePruning(target, Schedule(first, shape="one_shot"))


def accuracy(module: Dropped, data: TensorDataset) -> float:
    """The accuracy as a user would write it down, by no code of ours or Lightning's."""
    twin = copy.deepcopy(module.net).eval()
    images, labels = data.tensors
    with torch.no_grad():
        return float((twin(images).argmax(-1) == labels).double().mean())


# --- what is held ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Dropped, Restless])
def test_held_in_eval_mode_in_every_training_batch(
    kind: type[Dropped], make_trainer: MakeTrainer
) -> None:
    module = kind()
    callback = Overfitting("my_acc", threshold=1.0)
    before = copy.deepcopy(module.net[1].state_dict())
    trainer = make_trainer(max_epochs=4, callbacks=[callback, pruning(3)])
    trainer.fit(module, datamodule=Data())
    assert [f[1:] for f in module.flags if f[0] < 3] == [(False, False)] * 12
    assert [f[1:] for f in module.flags if f[0] == 3] == [(True, True)] * 4
    assert callback.steps[1].step == "overfitted"
    assert not torch.equal(before["running_mean"], module.net[1].running_mean)


def test_statistics_scales_and_shifts_stay(make_trainer: MakeTrainer) -> None:
    module = Dropped(decay=0.1)  # a decay would move a scale that gets no gradient but a step
    before = copy.deepcopy(module.state_dict())
    with pytest.warns(UserWarning, match="not 1.0: raise max_epochs"):
        make_trainer(callbacks=[Overfitting("my_acc", threshold=1.0)]).fit(
            module, datamodule=Data()
        )
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("net.1."), name
    assert module.net[1].training
    assert module.net[7].training


def test_the_same_weights_as_a_loop_written_out(make_trainer: MakeTrainer) -> None:
    torch.manual_seed(0)
    module = Dropped(decay=0.01)
    twin = copy.deepcopy(module.net)
    with pytest.warns(UserWarning, match="raise max_epochs"):
        make_trainer(callbacks=[Overfitting("my_acc", threshold=1.0)]).fit(
            module, loader(64), loader(16, 1)
        )
    twin.train()
    twin[1].eval()
    twin[7].eval()
    learnt = [p for name, p in twin.named_parameters() if not name.startswith("1.")]
    sgd = torch.optim.SGD(learnt, lr=0.05, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        for images, labels in loader(64):
            sgd.zero_grad()
            nn.functional.cross_entropy(twin(images), labels).backward()
            sgd.step()
    for a, b in zip(module.net.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_optimizer_state_of_the_norms_is_not_touched(make_trainer: MakeTrainer) -> None:
    class Watch(Callback):
        states: list[bool] = []  # noqa: RUF012

        def on_train_batch_end(self, trainer: Trainer, module: Dropped, *_: Any) -> None:
            self.states.append(module.net[1].weight in trainer.optimizers[0].state)

    watch = Watch()
    callbacks = [Overfitting("my_acc", threshold=1.0), pruning(2), watch]
    make_trainer(max_epochs=3, callbacks=callbacks).fit(Dropped(), datamodule=Data())
    assert watch.states == [False] * 8 + [True] * 4


def test_training_mode_set_within_a_batch_is_refused(make_trainer: MakeTrainer) -> None:
    class Stubborn(Dropped):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            self.train()
            return super().training_step(batch, batch_idx)

    with pytest.raises(InvalidArgumentError, match=r"Stubborn set net.1 to training mode"):
        make_trainer(callbacks=[Overfitting("my_acc")]).fit(Stubborn(), datamodule=Data())


class Functional(Dropped):
    """Calls dropout as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.net[8] = nn.Identity()
        self.net.append(Head())


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(x, 0.5, self.training))


def test_dropout_called_as_a_function_is_found_and_can_be_held(make_trainer: MakeTrainer) -> None:
    with pytest.warns(UserWarning, match=r"net\.9 is still random.*name it in hold"):
        make_trainer(max_epochs=1, callbacks=[Overfitting("my_acc", threshold=0.01)]).fit(
            Functional(), loader(64), loader(16, 1)
        )
    quiet = Overfitting("my_acc", threshold=0.01, hold=["net.9"])
    make_trainer(max_epochs=1, callbacks=[quiet]).fit(Functional(), loader(64), loader(16, 1))


# --- augmentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_augmentation_is_off_and_then_on_again(workers: int, make_trainer: MakeTrainer) -> None:
    module, data = Dropped(), Data(workers)
    given = data.augment
    callbacks = [pruning(2), Overfitting("my_acc", threshold=1.0)]
    make_trainer(max_epochs=4, callbacks=callbacks).fit(module, datamodule=data)
    assert module.augmented == {0: {False}, 1: {False}, 2: {True}, 3: {True}}
    assert data.augment is given


def test_measured_on_all_training_images_without_augmentation(make_trainer: MakeTrainer) -> None:
    module, callback = Dropped(), Overfitting("my_acc", threshold=1.0)
    start = accuracy(module, stripes(70, 0))
    trainer = make_trainer(max_epochs=6, callbacks=[callback, pruning(2)])
    trainer.fit(module, datamodule=Data())
    reference, _, pruned = callback.steps
    assert [s.step for s in callback.steps] == ["reference", "overfitted", "pruned"]
    assert reference.train == pytest.approx(start, abs=1e-6)
    assert pruned.train == pytest.approx(accuracy(module, stripes(70, 0)), abs=1e-6)
    assert pruned.val == pytest.approx(accuracy(module, stripes(32, 1)), abs=1e-6)
    assert pruned.gap == pruned.train - pruned.val


def test_augmentation_is_on_again_after_an_exception(make_trainer: MakeTrainer) -> None:
    class Fails(Dropped):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            raise ArithmeticError("as expected")

    module, data = Fails(), Data()
    with pytest.raises(ArithmeticError):
        make_trainer(callbacks=[Overfitting("my_acc")]).fit(module, datamodule=data)
    assert isinstance(data.augment, Add)
    assert module.net[1].training


def test_says_where_augmentation_is_the_datas_own(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        make_trainer(max_epochs=1, callbacks=[Overfitting("my_acc", threshold=0.01)]).fit(
            Dropped(), loader(64), loader(16, 1)
        )
    assert "augmentation, if there is any, stays on" in caplog.text


# --- the threshold ---------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("count", "most"), [(48_000, 4), (40_000, 4), (50_000, 5), (200, 0)])
def test_the_errors_that_a_threshold_allows(
    count: int, most: int, whole: bool, make_trainer: MakeTrainer
) -> None:
    def epochs(errors: int) -> int:
        labels = torch.zeros(count, dtype=torch.int64)
        labels[torch.randperm(count)[:errors]] = 1
        data = DataLoader(TensorDataset(torch.zeros(count, 1), labels), batch_size=999)
        data = DataLoader(_Whole(data.dataset), batch_size=None)
        trainer = make_trainer(max_epochs=1, callbacks=[Overfitting("acc")], limit_train_batches=1)
        trainer.fit(Counting(whole), data)
        return trainer.current_epoch

    assert [epochs(errors) for errors in range(most + 1)] == [0] * (most + 1)
    with pytest.warns(UserWarning, match="raise max_epochs"):
        assert epochs(most + 1) == 1


class _Whole(torch.utils.data.Dataset):
    """A data set in batches of 999, the last a smaller one."""

    def __init__(self, data: TensorDataset) -> None:
        self.batches = list(zip(*(t.split(999) for t in data.tensors), strict=True))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= len(self.batches):
            raise IndexError
        return self.batches[index]


def test_alone_it_stops_the_run_when_the_threshold_is_reached(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    class Measure(Callback):
        seen: list[float] = []  # noqa: RUF012

        def on_train_epoch_end(self, trainer: Trainer, module: Dropped) -> None:
            self.seen.append(accuracy(module, stripes(70, 0)))

    module, measure = Dropped(lr=0.1), Measure()
    callback = Overfitting("my_acc", threshold=0.9)
    trainer = make_trainer(max_epochs=60, callbacks=[measure, callback])
    trainer.fit(module, datamodule=Data())
    assert 1 < trainer.current_epoch < 60
    assert [value >= 0.9 for value in measure.seen] == [False] * (len(measure.seen) - 1) + [True]
    assert len(measure.seen) == trainer.current_epoch
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [line[0] for line in lines[2:]] == ["reference", "overfitted"]
    assert lines[3][1:3] == [str(trainer.current_epoch), f"{callback.steps[1].train:.4f}"]


def test_measuring_less_often_leaves_the_training_as_it_is(make_trainer: MakeTrainer) -> None:
    weights = []
    for every in (1, 3):
        torch.manual_seed(0)
        module = Dropped()
        with pytest.warns(UserWarning, match="raise max_epochs"):
            make_trainer(callbacks=[Overfitting("my_acc", threshold=1.0, every=every)]).fit(
                module, datamodule=Data()
            )
        weights.append(copy.deepcopy(module.state_dict()))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_overfit_batches_measures_what_is_trained_on(make_trainer: MakeTrainer) -> None:
    callback = Overfitting("my_acc", threshold=1.0)
    module = Dropped(lr=0.1)
    trainer = make_trainer(max_epochs=200, callbacks=[callback], overfit_batches=1)
    trainer.fit(module, DataLoader(stripes(64, 0), batch_size=8), loader(16, 1))
    assert trainer.current_epoch < 200
    assert accuracy(module, TensorDataset(*stripes(64, 0)[:8])) == 1.0


# --- beside pruning --------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [MagnitudePruning, FilterPruning])
def test_the_threshold_brings_pruning_forward(
    prune: type[MagnitudePruning | FilterPruning], make_trainer: MakeTrainer
) -> None:
    module, callback = Dropped(lr=0.1), Overfitting("my_acc", threshold=0.8)
    pruner = prune(0.5, schedule=Schedule(50, 52, shape="linear"))
    trainer = make_trainer(max_epochs=60, callbacks=[callback, pruner])
    trainer.fit(module, datamodule=Data())
    assert trainer.current_epoch == 60
    first = callback.steps[1].epoch
    assert 0 < first < 50
    assert [event["epoch"] for event in pruner.history] == [first, first + 1, first + 2]
    assert pruner.progress()["reached"] == pytest.approx(0.5, abs=0.01)
    assert {epoch for epoch, norm, _ in module.flags if not norm} == set(range(first))


def test_several_pruning_callbacks_keep_their_distance(make_trainer: MakeTrainer) -> None:
    early = MagnitudePruning(0.5, Schedule(6, shape="one_shot"), include=["net.0"])
    late = MagnitudePruning(0.5, Schedule(8, shape="one_shot"), include=["net.3"])
    overfitting = Overfitting("my_acc", threshold=0.01)
    trainer = make_trainer(max_epochs=10, callbacks=[overfitting, late, early])
    trainer.fit(Dropped(), datamodule=Data())
    first = overfitting.steps[1].epoch
    assert first < 6
    assert [p.history[0]["epoch"] for p in (early, late)] == [first, first + 2]


def test_an_importance_that_needs_gradients_gets_an_epoch_of_them(
    make_trainer: MakeTrainer,
) -> None:
    pruner = FilterPruning(0.5, schedule=Schedule(6, shape="one_shot"), importance="taylor")
    callbacks = [Overfitting("my_acc", threshold=0.01), pruner]
    make_trainer(max_epochs=8, callbacks=callbacks).fit(Dropped(), datamodule=Data())
    assert pruner.history[0]["epoch"] == callbacks[0].steps[1].epoch < 6
    assert pruner.reached == pytest.approx(0.5, abs=0.1)


def test_pruning_does_not_begin_before_the_epoch_it_rewinds_to(make_trainer: MakeTrainer) -> None:
    schedule = Schedule(6, shape="one_shot")
    pruner = MagnitudePruning(0.5, schedule, rewind="epoch 4")
    callbacks = [Overfitting("my_acc", threshold=0.01), pruner]
    make_trainer(max_epochs=8, callbacks=callbacks).fit(Dropped(), datamodule=Data())
    assert callbacks[0].steps[1].epoch == pruner.history[0]["epoch"] == 4


@pytest.mark.filterwarnings("ignore:Be aware that when using")  # ModelCheckpoint is left out
@pytest.mark.parametrize("threshold", [1.0, 0.6])
def test_resumed_from_any_epoch_it_ends_the_same(
    threshold: float, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    def run(path: Path | None = None) -> tuple[dict[str, Tensor], list[Any], PruningCallback]:
        torch.manual_seed(0)
        callback, pruner = Overfitting("my_acc", threshold=threshold), pruning(4)
        saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        module = Dropped(lr=0.1)
        module.net[7] = nn.Identity()  # dropout's draws are not those of the whole run
        callbacks = [callback, pruner] + [saving] * (not path)
        trainer = make_trainer(max_epochs=7, callbacks=callbacks, enable_checkpointing=not path)
        trainer.fit(module, datamodule=Ordered(), ckpt_path=path)
        return module.state_dict(), callback.steps, pruner

    weights, steps, pruner = run()
    assert (pruner.history[0]["epoch"] < 4) == (threshold < 1)
    saved = sorted(tmp_path.glob("epoch=*.ckpt"))
    assert len(saved) == 7
    for path in saved[:-1]:
        again, same, resumed = run(path)
        assert same == steps
        assert resumed.history == pruner.history
        assert all(torch.equal(again[name], weights[name]) for name in weights)


class Ordered(Data):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(stripes(64, 0), batch_size=16, collate_fn=self.augment)


def test_no_pruned_row_if_the_run_ends_before(make_trainer: MakeTrainer) -> None:
    callback = Overfitting("my_acc", threshold=1.0)
    with pytest.warns(UserWarning, match=r"raise max_epochs|reached 0.00 of 0.50"):
        make_trainer(max_epochs=9, max_steps=8, callbacks=[callback, pruning(4)]).fit(
            Dropped(), datamodule=Data()
        )
    assert [step.step for step in callback.steps] == ["reference", "overfitted"]


def test_no_validation_data_no_gap(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = Overfitting("my_acc", threshold=0.01)
    make_trainer(callbacks=[callback]).fit(Dropped(), loader(64))
    assert callback.steps[0].val is None
    assert callback.steps[0].gap is None
    assert "reference" in capsys.readouterr().out


def test_fast_dev_run(make_trainer: MakeTrainer) -> None:
    overfitting, pruner = Overfitting("my_acc"), pruning(4)
    trainer = make_trainer(fast_dev_run=True, callbacks=[overfitting, pruner])
    trainer.fit(Dropped(), datamodule=Data())
    assert trainer.global_step == 1
    assert pruner.reached == pytest.approx(pruner.goal, abs=0.1)


def test_logged_for_tensorboard(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    callback = Overfitting("my_acc", threshold=0.99)
    callbacks = [callback, pruning(2)]
    make_trainer(max_epochs=4, callbacks=callbacks, logger=logger, log_every_n_steps=1).fit(
        Dropped(), datamodule=Data()
    )
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    logged = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert not [tag for tag in logged if tag.endswith(("train_my_acc", "gap_my_acc"))]
    assert "compress/overfitting/my_acc" in logged
    text = events.Tensors("compress/overfitting/text_summary")[0].tensor_proto.string_val[0]
    assert all(step.step.encode() in text for step in callback.steps)


@pytest.mark.slow
def test_two_processes_measure_and_end_alike(tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    command = [sys.executable, str(here / "overfitting_program.py"), str(tmp_path)]
    done = subprocess.run(
        command, env=dict(os.environ, PYTHONPATH=path), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [step[0] for step in first["steps"]] == ["reference", "overfitted", "pruned"]
    ended = first["steps"][1][1]
    assert 0 < ended < 40
    assert first["held"] == list(range(ended))
    assert first["augmented"] == list(range(ended, 42))
    assert done.stdout.count("reference") == 1


# --- what cannot be right --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threshold": 0}, "threshold must be a number in"),
        ({"threshold": 1.01}, "got 1.01"),
        ({"threshold": float("nan")}, "got nan"),
        ({"threshold": "0.99"}, "got '0.99'"),
        ({"threshold": True}, "got True"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"every": 1.5}, "got 1.5"),
        ({"monitor": ""}, "monitor must be the name of a metric"),
        ({"hold": "net.*"}, "hold must be a list of patterns"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        Overfitting(**arguments)


@pytest.mark.parametrize(
    ("callbacks", "error", "words"),
    [
        ([Overfitting("val_acc")], InvalidArgumentError, r"not logged .*it logs: my_acc, my_loss"),
        ([Overfitting("my_loss")], InvalidArgumentError, r"needs an accuracy, in \[0, 1\]"),
        ([Overfitting("my_acc", hold=["n"])], PatternError, "'n' matches no module of Dropped"),
        ([Overfitting("my_acc"), pruning(0)], InvalidArgumentError, "which is at epoch 0"),
    ],
)
def test_refused_before_training(
    callbacks: list[Callback],
    error: type[Exception],
    words: str,
    make_trainer: MakeTrainer,
) -> None:
    module = Dropped()
    with pytest.raises(error, match=words):
        make_trainer(callbacks=callbacks).fit(module, datamodule=Data())
    assert module.flags == []


def test_refused_without_validation_step(make_trainer: MakeTrainer) -> None:
    class Blind(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> None: ...

    with pytest.raises(InvalidArgumentError, match=r"Blind has no validation_step: .*'my_acc'"):
        make_trainer(callbacks=[Overfitting("my_acc")]).fit(Blind(), loader(16))


def test_a_second_fit_of_the_trainer_goes_on(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pruned network was held in eval mode again, and called the reference."""
    overfitting = Overfitting("my_acc", threshold=0.9)
    pruning = MagnitudePruning(0.5, Schedule(1, 1, shape="one_shot"))
    trainer = make_trainer(max_epochs=3, callbacks=[overfitting, pruning])
    module = Dropped()
    trainer.fit(module, loader(), loader(32, 1))
    steps = list(overfitting.steps)
    assert [(step.step, step.epoch) for step in steps] == [
        *(("reference", 0), ("overfitted", 1), ("pruned", 3)),
    ]
    assert "my_acc" in capsys.readouterr().out
    trainer.fit(module, loader(), loader(32, 1))
    assert overfitting.steps == steps
    assert not capsys.readouterr().out  # nothing was trained, nothing is said
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, loader(), loader(32, 1))
    assert overfitting.steps[:2] == steps[:2]
    assert (overfitting.steps[2].step, overfitting.steps[2].epoch) == ("pruned", 4)
    assert module.flags[-1][1:] == (True, True)
